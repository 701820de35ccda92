"""benchmarks/own_classes.py on a small bundle, and the block of a page that its report becomes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.labelled import write_colours

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_own_classes_beside_a_codec(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(BENCHMARKS)
    import own_classes as benchmark
    from pages.classes import own_classes

    write_colours(tmp_path / "photos", count=5)
    out = tmp_path / "report.json"
    monkeypatch.setattr(benchmark, "MEMORY", tmp_path / "runs" / "seen")
    words = ["--bundle", str(tiny_folder), "--photos", str(tmp_path / "photos"), "--codecs", "jpeg", "--threads", "1"]
    assert benchmark.main([*words, "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert (report["classes"], report["learned_from"], report["held_out"]) == (2, 8, 2)
    assert [len(report["levels"]), list(report["codecs"])] == [3, ["jpeg"]]
    assert report["command"].count("--photos DIR") == 1
    assert str(tmp_path) not in out.read_text()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.json"]
    assert "2 classes of photos, 2 held out" in capsys.readouterr().out
    lines = own_classes(report)
    assert "the 2 folders of `photos`: 8 pictures to learn from, 2 others" in lines[0]
    assert lines[2] == "| level | bytes | right, % | jpeg as good, bytes |"
    assert benchmark.main([*words[:2], "--photos", str(tmp_path / "none"), "--out", str(out)]) == 2
