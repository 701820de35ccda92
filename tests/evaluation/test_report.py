from __future__ import annotations

import json
from pathlib import Path

import pytest

from splitcodec.errors import OutputError
from splitcodec.evaluation.report import markdown, write_report
from splitcodec.evaluation.result import Report


def test_four_files_are_written_and_nothing_else(report: Report, tmp_path: Path) -> None:
    paths = write_report(report, tmp_path / "new" / "out")
    assert [path.name for path in paths] == ["rd.json", "rd.png", "frontier.png", "report.md"]
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == {path.name for path in paths}
    assert json.loads(paths[0].read_bytes()) == json.loads(json.dumps(report.to_json()))


def test_the_tables_hold_every_point_and_survive_a_bar_in_a_name(report: Report) -> None:
    text = markdown(report)
    assert text.count("\n| jpeg | quality") == 15
    assert text.count("\n| splitcodec | level") == 3
    assert "| other | a\\|b | 300 |  | 50.00 |" in text
    assert "## BD-rate and BD-accuracy" in text
    assert "\n| other | - | - | - | - | - |" in text
    assert "\n- other, bytes: one point alone (" in text
    assert "left out: 0003_broken.jpg (not a picture" in text


def test_every_table_says_who_is_undertrained(arena: Report) -> None:
    text = markdown(arena)
    assert "paper" in text
    lines = [line for line in text.splitlines() if line.startswith("|") and "paper" in line]
    assert len(lines) > 10
    assert all("paper (undertrained)" in line for line in lines)
    assert "Undertrained: paper. " in text
    assert "tuned (undertrained)" not in text
    assert (
        "| paper (undertrained) | 500.0 M | 9,000 | 20,000 | 4,000 (2 runs) | 3,000 | 6,000 | undertrained | same |"
        in text
    )
    assert "![encoder size, data size, accuracy](frontier.png)" in text
    assert "\n| jpeg | none | " in text


def test_no_word_of_training_where_all_are_trained(report: Report) -> None:
    assert "undertrained" not in markdown(report).lower()
    assert "BD-rate of every method with an encoder" not in markdown(report)


def test_a_folder_that_cannot_be_written_is_refused(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        write_report(report, tmp_path / "file")
    (tmp_path / "rd.json").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "rd.json"]
