"""The script in benchmarks/ that measures what a camera's large JPEG costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_large_pictures_are_measured(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import large_pictures

    out = tmp_path / "large.json"
    words = ["--bundle", str(tiny_folder), "--most", "1", "--out", str(out)]
    assert large_pictures.main([*words, "--turns", "1"]) == 0
    large, small = json.loads(out.read_text())["sizes"]
    assert (large["width"], small["height"]) == (4032, 1080)
    for one in (large, small):
        assert one["reduced_ms"] < one["whole_ms"]
        assert one["grey_levels_off"] < 1
        assert one["symbols_equal_percent"] > 90
    assert large_pictures.main([*words, "--turns", "0"]) == 2
    assert "--turns 0" in capsys.readouterr().err
