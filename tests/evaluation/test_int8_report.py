"""The script in benchmarks/ that reports what an INT8 encoder loses."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from splitcodec.wire.bundle import Bundle
from tests.evaluation.conftest import COUNT, Make


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import int8

    return int8


@pytest.fixture
def same(tiny: Bundle, like_tiny: Make) -> Bundle:
    """Return a bundle whose "INT8" encoder is its own."""
    return like_tiny("same", files={"encoder.int8.onnx": tiny.read("encoder.onnx")})


def test_an_encoder_that_is_the_same_loses_nothing(
    script: ModuleType, same: Bundle, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8.json"
    words = ["--bundle", str(same.path), "--photos", str(labelled), "--out", str(out), "--threads", "1"]
    assert script.main(words) == 0
    body = json.loads(out.read_bytes())
    assert body["photographs"] == COUNT
    assert body["skipped"] == 1
    assert [one["level"] for one in body["levels"]] == sorted({0, same.manifest.default_level, 2})
    assert body["loss"] == 0
    assert body["interval"] == [0, 0]
    assert not body["target"]["met"]
    assert "fewer than the 2,000 photographs" in capsys.readouterr().out
    assert str(tmp_path) not in out.read_text()
    assert str(labelled) not in out.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--levels", "x"], "--levels 'x'; expected numbers"),
        (["--levels", "9"], "levels [9]; same@1 has 0 to 2"),
        (["--most", "0"], "--most 0; expected at least 1"),
    ],
)
def test_a_refusal_is_one_line(
    script: ModuleType,
    same: Bundle,
    labelled: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert script.main(["--bundle", str(same.path), "--photos", str(labelled), *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_a_bundle_without_int8_is_refused(
    script: ModuleType, tiny_folder: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--bundle", str(tiny_folder), "--photos", str(labelled)]) == 2
    assert "holds no encoder.int8.onnx" in capsys.readouterr().err
