"""The script in benchmarks/ that times encoding against image codecs at equal accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from splitcodec.wire.bundle import Bundle
from tests.evaluation.conftest import Make


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import encode

    return encode


def point(method: str, setting: str, size: float, top1: float) -> dict[str, Any]:
    return {"method": method, "setting": setting, "bytes_mean": size, "top1": top1}


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    """Return an rd.json: tiny scores 80 % at its default level, kin 70 %."""
    path = tmp_path / "rd.json"
    points = [
        *(point("splitcodec", f"level {level}", 100 + level, 75.0 + 5 * level) for level in range(3)),
        *(point("kin", f"level {level}", 90 + level, 65.0 + 5 * level) for level in range(3)),
        *(point("jpeg", f"quality {quality}", 10 * quality, 50.0 + quality) for quality in (10, 20, 30, 40)),
        point("jpeg", "quality 40, 48 px", 250, 72.0),
        *(point("webp", f"quality {quality}", 9 * quality, 60.0 + quality) for quality in (5, 10, 15)),
    ]
    body = {
        "teacher_top1": 90.0,
        "images": 9,
        "commit": "abc",
        "points": points,
        "encoders": {"splitcodec": {"bundles": ["tiny@1"]}, "kin": {"bundles": ["kin@1"]}},
    }
    path.write_text(json.dumps(body), encoding="utf-8")
    return path


def run(script: ModuleType, rates: Path, *bundles: Path) -> tuple[int, Path]:
    out = rates.parent / "encode.json"
    names = ",".join(str(path) for path in bundles)
    options = ["--bundles", names, "--most", "2", "--turns", "1", "--rates", str(rates), "--out", str(out)]
    return script.main(options), out


def test_codecs_are_timed_at_the_accuracy_of_each_bundle(
    script: ModuleType, rates: Path, tiny_folder: Path, like_tiny: Make, tmp_path: Path
) -> None:
    like_tiny("kin", folder=tmp_path / "kin")
    code, out = run(script, rates, tiny_folder, tmp_path / "kin")
    assert code == 0
    body = json.loads(out.read_bytes())
    assert list(body["bundles"]) == ["tiny@1", "kin@1"]
    tiny, kin = body["bundles"].values()
    assert (tiny["top1"], kin["top1"]) == (80.0, 70.0)
    assert tiny["rivals"]["jpeg"] == {"setting": "quality 30", "bytes_mean": 300, "top1": 80.0, "reaches": True}
    assert kin["rivals"]["jpeg"]["setting"] == "quality 20"  # 200 bytes; the smaller picture scores more, for 250
    assert tiny["rivals"]["webp"] == {"setting": "quality 15", "bytes_mean": 135, "top1": 75.0, "reaches": False}
    assert kin["rivals"]["webp"]["setting"] == "quality 10"
    for one in (tiny, kin):
        assert {"network", "jpeg", "webp", "encode fp32, constriction", "encode fp32, plain"} <= set(one["ms"])
        for name, ratios in one["ratios"].items():
            assert ratios["of_jpeg"] == pytest.approx(one["ms"][name] / one["ms"]["jpeg"])


def test_a_smaller_picture_is_scaled_before_it_is_coded(script: ModuleType, tiny: Bundle) -> None:
    import numpy as np

    crop = np.random.default_rng(2).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    whole, small = (script._save(crop, side=side, quality=40, format="JPEG") for side in (None, 32))
    assert len(small) < len(whole)


def test_a_bundle_that_was_not_measured_is_refused(
    script: ModuleType, rates: Path, like_tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    like_tiny("stranger", folder=tmp_path / "stranger")
    assert run(script, rates, tmp_path / "stranger")[0] == 2
    assert "stranger@1 was not measured there at level 1" in capsys.readouterr().err
    assert not (tmp_path / "encode.json").exists()
