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
    assert text.count("\n| jpeg | quality") == 18
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
    assert "Undertrained, so no claim is made against them: paper. " in text
    assert "tuned (undertrained)" not in text
    (row,) = [line for line in lines if "9,000" in line]
    assert row == (
        "| paper (undertrained) | 500.0 M | 9,000 | 20,000 | 4,000 (2 runs) | 3,000 | 6,000 (wall) | undertrained "
        "| same |"
    )
    assert "![encoder size, data size, accuracy](frontier.png)" in text
    assert "\n| jpeg | none | " in text


def test_training_is_told_in_processor_time_or_says_that_it_is_not(arena: Report) -> None:
    cost = replace(arena.encoders["paper"], processor_seconds=7200.0)
    text = markdown(replace(arena, encoders={**arena.encoders, "paper": cost}))
    assert "| 4,000 (2 runs) | 3,000 | 120 | undertrained |" in text
    cost = replace(cost, device_seconds={"NVIDIA H100": 600.0})
    text = markdown(replace(arena, encoders={**arena.encoders, "paper": cost}))
    assert "| 4,000 (2 runs) | 3,000 | 120 + 10 of NVIDIA H100 | undertrained |" in text
    assert "| training, processor minutes | state |" in text


def test_intervals_stand_behind_the_figures_that_have_one(arena: Report) -> None:
    found = arena.bd["jpeg"]
    bd = found._replace(
        rate=found.rate._replace(value=-87.6, interval=(-88.94, -86.2)),
        accuracy=found.accuracy._replace(value=30.0, interval=(28.0, 31.0)),
        payload=found.payload._replace(value=-86.5, interval=None),
    )
    row = arena.equal_score[0]
    row = replace(row, bytes_of=dict.fromkeys(row.bytes_of, 1816.4), interval_of=dict.fromkeys(row.interval_of))
    row.interval_of["jpeg"] = (1501.9, 2210.0)
    matrix = {**arena.bd_rate_matrix, "tiny-large": {"jpeg": bd.rate}}
    text = markdown(replace(arena, bd={"jpeg": bd}, equal_score=(row,), bd_rate_matrix=matrix))
    assert "\n| jpeg | -87.6 % [-88.9, -86.2] | -86.5 % | +30.0 [+28.0, +31.0] | " in text
    assert "| 1,816 | 1,816 [1,502 to 2,210] | 1,816 |\n" in text
    assert "\n| tiny-large |  |  |  |  | -87.6 % [-88.9, -86.2] |  |\n" in text


def test_our_other_bundles_are_held_against_rivals_and_codecs(arena: Report, report: Report) -> None:
    kin = arena.contrasts_of_kin
    assert [(one.a, one.method_b) for one in kin] == [
        (f"tiny-large level {level}", rival) for level in range(3) for rival in ("paper", "tuned", "jpeg", "webp")
    ]
    assert all(one.low <= one.top1 <= one.high for one in kin)
    twin = [one for one in arena.contrasts if one.method_b in {"paper", "tuned", "jpeg", "webp"}]  # the same levels
    assert [(one.b, one.top1, one.low, one.high) for one in kin] == [
        (one.b, one.top1, one.low, one.high) for one in twin
    ]
    assert [one["a"] for one in arena.to_json()["differences_of_kin"]] == [one.a for one in kin]
    text = markdown(arena)
    assert "\n| level | bytes | paper (undertrained) | tuned | jpeg | webp |\n" in text
    first = kin[0]
    assert f"\n| {first.a} | {first.bytes_a:,.0f} | {first.top1:+.2f} [" in text
    assert report.contrasts_of_kin == ()
    assert "Our other bundles" not in markdown(report)


def test_no_word_of_training_where_all_are_trained(report: Report) -> None:
    assert "undertrained" not in markdown(report).lower()
    assert "BD-rate of every method with an encoder" not in markdown(report)


def test_a_folder_that_cannot_be_written_is_refused(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        write_report(report, tmp_path / "file")
    (tmp_path / "rd.json").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*rd\.json: "):
        write_report(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "rd.json"]


def test_names_of_other_letters_and_signs_cost_no_report(report: Report, tmp_path: Path) -> None:
    """A name that is no UTF-8, or begins a formula of matplotlib, ended the run after all was measured."""
    odd = replace(report, data="a$\\frac{$\udcff", skipped=(("0001_\udcff.jpg", "not a picture"),))
    point = replace(report.points[-1], method="$x^$|y")
    paths = write_report(replace(odd, points=(*report.points, point), equal_score=()), tmp_path)
    text = paths[3].read_text(encoding="utf-8")
    assert "left out: 0001_\\udcff.jpg (not a picture)" in text
    (head,) = [line for line in text.splitlines() if line.startswith("| below teacher | top-1 % | splitcodec |")]
    assert "$x^$\\|y |" in head
    assert json.loads(paths[0].read_bytes())["skipped"] == [{"image": "0001_\udcff.jpg", "reason": "not a picture"}]
