"""benchmarks/corruptions.py on a small bundle: what corruptions do, what codecs get, and the page's section."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from splitcodec.errors import DataError, SettingsError
from splitcodec.evaluation.codecs import AVIF, JPEG
from tests.labelled import write_colours

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GREY = np.full((40, 40, 3), (120, 100, 80), dtype=np.uint8)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import corruptions

    return corruptions


def test_corruptions_are_those_of_imagenet_c(benchmark: ModuleType) -> None:
    def made(name: str, severity: int, image: object = GREY) -> np.ndarray:
        corrupted: np.ndarray = benchmark.Case(name, severity).of(image, 7)
        assert corrupted.dtype == np.uint8
        return corrupted.astype(int)

    assert np.array_equal(benchmark.Case().of(GREY, 7), GREY)
    for name in benchmark.CORRUPTIONS:
        assert np.array_equal(made(name, 3), made(name, 3)), name
    noise = made("Gaussian noise", 1) - GREY
    assert abs(noise.mean()) < 1
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.05)
    photons = made("shot noise", 3)[..., 0] / 255 * 12
    assert np.abs(photons - np.rint(photons)).max() < 0.04  # counts
    assert photons.std() == pytest.approx((120 / 255 * 12) ** 0.5, rel=0.1)
    assert np.unique(made("brightness", 1) - GREY, axis=None)[-1] == round(
        0.1 * 255
    )  # of the largest channel, hue kept
    assert made("brightness", 5)[0, 0].tolist() == [round(v * (120 + 127.5) / 120) for v in (120, 100, 80)]
    light = made("brightness", 5, np.full_like(GREY, (250, 100, 50)))
    assert light[0, 0].tolist() == [255, 102, 51]  # as bright as can be, in its own hue
    half = np.zeros_like(GREY)
    half[20:] = 200
    assert np.unique(made("contrast", 1, half)).tolist() == [60, 140]  # 0.4 of the distance from 100
    assert np.ptp(made("pixelation", 3, half)[:, 0, 0]) == 200
    step = made("Gaussian blur", 1, half)[:, 0, 0]
    assert (np.diff(step) >= 0).all()
    assert 2 < np.count_nonzero((step > 10) & (step < 190)) < 6


def test_a_codec_gets_the_cheapest_setting_that_scores_as_well(benchmark: ModuleType) -> None:
    def point(method: str, setting: str, size: float, top1: float) -> dict[str, object]:
        return {"method": method, "setting": setting, "bytes_mean": size, "top1": top1}

    points = [
        point("splitcodec", "level 2", 500, 70.0),
        point("jpeg", "quality 50", 900, 69.9),
        point("jpeg", "quality 40, 96 px", 600, 75.0),  # not a whole crop
        point("jpeg", "quality 85", 2000, 80.0),
        point("jpeg", "quality 70", 1500, 70.0),
    ]
    assert benchmark.settings({"points": points}, 2, [JPEG]) == [(JPEG, 70)]
    for level, codec in ((1, JPEG), (2, AVIF)):
        with pytest.raises(SettingsError, match=f"no setting of {codec.name} scores as well as level {level}"):
            benchmark.settings({"points": points}, level, [codec])


def test_a_report_and_its_section(
    benchmark: ModuleType, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pages.corruptions import corruptions, limit, section, spoilt

    (tmp_path / "photos").mkdir()
    for path in write_colours(tmp_path / "made", count=2).rglob("*.png"):
        path.rename(tmp_path / "photos" / f"{int(path.parent.name == 'sea')}_{path.stem}.png")
    points = [
        {"method": "splitcodec", "setting": "level 1", "bytes_mean": 50, "top1": 50},
        {"method": "jpeg", "setting": "quality 35", "bytes_mean": 900, "top1": 60},
    ]
    (tmp_path / "rd.json").write_text(json.dumps({"points": points}))
    out = tmp_path / "report.json"
    words = ["--bundle", str(tiny_folder), "--level", "1", "--rates", str(tmp_path / "rd.json"), "--out", str(out)]
    assert benchmark.main([*words, "--data", str(tmp_path / "photos"), "--codecs", "jpeg"]) == 0
    report = json.loads(out.read_text())
    assert (report["photographs"], report["level"], report["settings"]) == (4, 1, {"jpeg": "quality 35"})
    assert len(report["cases"]) == 1 + 3 * len(benchmark.CORRUPTIONS)
    clean, noisy = report["cases"][:2]
    assert [noisy["corruption"], noisy["severity"]] == ["Gaussian noise", 1]
    assert noisy["methods"]["jpeg"]["bytes_mean"] > clean["methods"]["jpeg"]["bytes_mean"]
    for case in report["cases"]:
        for one in case["methods"].values():
            assert one["minus_teacher"][0] == pytest.approx(one["top1"] - case["teacher_top1"])
    lines = section(report)
    assert lines[0] == "## Corrupted photographs"
    assert (
        "| photographs | severity | teacher, % | splitcodec, bytes | splitcodec, minus teacher | jpeg, bytes |"
        in "\n".join(lines)
    )
    assert sum(line.startswith("| mean, corrupted |") for line in lines) == 1
    assert "4 photographs" in capsys.readouterr().out
    assert benchmark.main([*words, "--data", str(tmp_path / "none")]) == 2
    assert corruptions(tmp_path) == spoilt(tmp_path) == []
    (tmp_path / "reports").mkdir()
    out.rename(tmp_path / "reports" / "corruptions.json")
    assert corruptions(tmp_path) == lines
    assert spoilt(tmp_path) == limit(report)
    sizes = [case["methods"]["splitcodec"]["bytes_mean"] for case in report["cases"]]
    assert f"  {sum(sizes[1:]) / len(sizes[1:]):,.0f} bytes ({sizes[0]:,.0f} clean) and " in limit(report)[1]
    gaps = [case["methods"]["jpeg"]["minus_teacher"][0] for case in report["cases"]]
    assert f" {-sum(gaps[1:]) / len(gaps[1:]):.1f} points ({-gaps[0]:.1f}). Worst is " in limit(report)[2]


def test_another_decoder_stands_beside_for_the_same_packets_alone(benchmark: ModuleType, tmp_path: Path) -> None:
    from pages.corruptions import corruptions, spoilt

    def report(points: float, size: float, *others: str) -> dict[str, object]:
        def method(gap: float) -> dict[str, object]:
            return {"bytes_mean": size, "top1": 50.0 + gap, "minus_teacher": [gap, gap - 1, gap + 1]}

        named = [(None, 0), ("Gaussian noise", 1), ("Gaussian noise", 3)]
        return {
            "bundle": "b@1",
            "level": 6,
            "data": "d",
            "photographs": 10,
            "settings": dict.fromkeys(others, "quality 50"),
            "command": "python",
            "cases": [
                {
                    "corruption": name,
                    "severity": severity,
                    "teacher_top1": 50.0,
                    "methods": {"splitcodec": method(points * severity), **{one: method(-1.0) for one in others}},
                }
                for name, severity in named
            ],
        }

    (tmp_path / "reports").mkdir()
    shipped, other = (tmp_path / "reports" / f"corruptions{name}.json" for name in ("", "_unswitched"))
    shipped.write_text(json.dumps(report(-4.0, 1000.0, "avif")))
    assert "decoder" not in "".join(spoilt(tmp_path))
    assert "Worst is Gaussian noise of severity 3: 12.0 and 1.0 points" in "".join(spoilt(tmp_path))
    other.write_text(json.dumps(report(2.0, 1000.0)))
    assert "From the same packets the decoder lost -4.0 points (-0.0 clean) before" in spoilt(tmp_path)[-2]
    told = "\n".join(corruptions(tmp_path))
    assert (
        "| Gaussian noise | 3 | 50.0 | 1,000 | -12.0 [-13.0, -11.0] | 1,000 | +6.0 [+5.0, +7.0] | 1,000 | -1.0 |"
        in told
    )
    assert "`one decoder`: the same packets as they were answered before" in told
    other.write_text(json.dumps(report(2.0, 1001.0)))
    with pytest.raises(DataError, match="other packets"):
        corruptions(tmp_path)
