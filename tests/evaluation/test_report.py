from __future__ import annotations

import json
from dataclasses import replace
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


def test_names_of_other_letters_and_signs_cost_no_report(report: Report, tmp_path: Path) -> None:
    """A name that is no UTF-8, or begins a formula of matplotlib, ended the run after all was measured."""
    odd = replace(report, data="a$\\frac{$\udcff", skipped=(("0001_\udcff.jpg", "not a picture"),))
    point = replace(report.points[-1], method="$x^$|y")
    paths = write_report(replace(odd, points=(*report.points, point), equal_score=()), tmp_path)
    text = paths[3].read_text(encoding="utf-8")
    assert "left out: 0001_\\udcff.jpg (not a picture)" in text
    assert "| below teacher | top-1 % | splitcodec |" in text
    assert "$x^$\\|y |" in text.split("## Bytes at equal score")[1].splitlines()[4]
    assert json.loads(paths[0].read_bytes())["skipped"] == [{"image": "0001_\udcff.jpg", "reason": "not a picture"}]
