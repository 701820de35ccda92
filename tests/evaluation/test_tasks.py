"""`evaluate --task`: damaged data sets, files of earlier runs. What it measures: tests/training/test_task.py."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splitcodec.device.placed import letterbox_place
from splitcodec.errors import DataError, MissingExtra, SettingsError
from splitcodec.evaluation import task_report, tasks
from splitcodec.evaluation.codecs import HEVC, JPEG
from splitcodec.evaluation.drawing import styles
from splitcodec.evaluation.result import OURS, UNDERTRAINED
from splitcodec.evaluation.rivals import Rival
from splitcodec.evaluation.task_entrants import entrants_of
from splitcodec.evaluation.task_report import write_task_report
from splitcodec.evaluation.task_result import SCORES, TaskPoint, TaskReport, read_earlier
from splitcodec.evaluation.tasks import evaluate_task
from splitcodec.wire.bundle import open_bundle, renamed
from tests.labelled import write_camvid

REPORT = TaskReport(
    task="segment",
    teacher={"miou": 60.0, "pixel_accuracy": 90.0},
    points=(TaskPoint("jpeg", "quality 5", 900.0, {"miou": 50.0, "pixel_accuracy": 80.0}),),
    bundle="tiny@1",
    data="camvid",
    split="val",
    images=3,
    side=64,
    skipped=(),
    seconds=1.0,
)


def test_a_picture_whose_label_map_is_broken_is_left_out(tmp_path: Path) -> None:
    """It ended the run, and only after everything had been measured."""
    root = write_camvid(tmp_path / "camvid", train=1, val=2)
    first, second = sorted((root / "valannot").iterdir())
    second.write_bytes(second.read_bytes()[:60])
    report = evaluate_task("efficientnet-lite0", root, task="segment", threads=1)
    assert report.images == 1
    assert len(report.skipped) == 1
    assert f"{second.name}: not a readable label map" in report.skipped[0]
    first.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 2 pictures can be read; the first: .*not a readable label map"):
        evaluate_task("efficientnet-lite0", root, task="segment", threads=1)


@pytest.mark.parametrize("size", [float("nan"), float("inf"), -5.0, 0.0, 10**400, "7", None])
def test_earlier_points_that_are_no_numbers_are_refused(tmp_path: Path, size: object) -> None:
    _refused(tmp_path, {"method": "x", "setting": "1", "bytes_mean": size, "miou": 50.0, "pixel_accuracy": 80.0})


@pytest.mark.parametrize("score", [float("nan"), -1.0, 101.0, 10**400])
def test_earlier_scores_that_are_none_are_refused(tmp_path: Path, score: object) -> None:
    _refused(tmp_path, {"method": "x", "setting": "1", "bytes_mean": 9.0, "miou": score, "pixel_accuracy": 80.0})


def _refused(folder: Path, point: dict[str, Any]) -> None:
    file = folder / "segment.json"
    file.write_text(json.dumps(REPORT.to_json() | {"points": [point]}))
    with pytest.raises(DataError, match="no report of"):
        read_earlier(file, names=SCORES["segment"], keys=["task"])


def test_a_file_of_another_run_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_measuring(*_: object) -> None:
        raise AssertionError("measured before the file was looked at")

    monkeypatch.setattr(tasks._Bench, "read", no_measuring)
    root = write_camvid(tmp_path / "camvid", train=1, val=1)
    file = tmp_path / "segment.json"
    file.write_text(json.dumps(REPORT.to_json()))
    for place, why in ((file, "side is 64"), (tmp_path / "none.json", "cannot be read")):
        with pytest.raises(DataError, match=why):
            evaluate_task("efficientnet-lite0", root, task="segment", threads=1, points_files=[place])


def test_what_scores_boxes_is_asked_for_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra a run of hours ended in the advice to install it, and nothing of it was kept."""
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingExtra, match=r"mAP needs faster_coco_eval; install it with: pip install"):
        evaluate_task("efficientnet-lite0", tmp_path / "none", task="detect")


def test_names_of_other_letters_and_signs_cost_no_report(tmp_path: Path) -> None:
    odd = replace(REPORT, data="a$\\frac{$\udcff", split="$x^$")
    paths = write_task_report(odd, tmp_path)
    assert "a$\\frac{$\\udcff" in paths[1].read_text(encoding="utf-8")


def test_codecs_that_take_odd_sides_get_the_very_picture() -> None:
    """All were given even ones, so what JPEG coded of a fifth of VOC's pictures was resized by one pixel first."""
    place = letterbox_place((500, 332), side=384, multiple=32)
    assert (place.wide, place.high) == (384, 255)
    assert tasks._coded_size(place, JPEG, 1.0) == (384, 255)
    assert tasks._coded_size(place, HEVC, 1.0) == (384, 256)
    assert tasks._coded_size(place, JPEG, 0.5) == (192, 128)
    assert tasks._coded_size(letterbox_place((900, 1), side=384, multiple=32), HEVC, 0.5) == (192, 2)


def test_the_report_names_the_libraries_that_made_codecs_bytes() -> None:
    told = REPORT.to_json()["machine"]["codecs"]
    assert told["pillow"]


def test_two_versions_of_a_bundle_are_two_settings_of_a_rival() -> None:
    """They were told by their names alone, so the points of the second took the place of the first one's."""
    main, tiny = open_bundle("efficientnet-lite0"), open_bundle("efficientnet-lite0-tiny")
    rival = Rival((tiny, renamed(tiny, None, 99)), "paper")
    found = entrants_of(main, [rival], task="segment", taken=[])
    assert [one.prefix for one in found] == ["", f"{tiny.ident} ", "efficientnet-lite0-tiny@99 "]
    with pytest.raises(SettingsError, match="rival paper: a bundle comes twice"):
        entrants_of(main, [Rival((tiny, tiny), "paper")], task="segment", taken=[])


def test_curves_of_a_task_are_upper_hulls_in_the_colours_of_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codecs were a cloud of dots, in which nobody saw what the table reads off their hulls."""
    drawn: list[Any] = []
    monkeypatch.setattr(task_report, "png", drawn.append)
    sizes: dict[str, tuple[tuple[float, float], ...]] = {
        "jpeg": ((900.0, 50.0), (1000.0, 40.0), (2000.0, 58.0)),
        OURS: ((200.0, 50.0), (300.0, 45.0), (400.0, 59.0)),
        "paper": ((800.0, 20.0), (9000.0, 30.0)),
    }
    points = tuple(
        TaskPoint(name, str(size), size, {"miou": score, "pixel_accuracy": 80.0})
        for name, some in sizes.items()
        for size, score in some
    )
    task_report.plot(replace(REPORT, points=points, trained={"paper": UNDERTRAINED}))
    lines = [one for one in drawn[0].axes[0].lines if one.get_linestyle() in ("-", "--") and len(one.get_xdata()) == 2]
    assert [list(one.get_xdata()) for one in lines[:3]] == [[200, 400], [900, 2000], [800, 9000]]
    drawn_as = styles({OURS: "ours", "jpeg": "codec", "paper": "rival"})
    assert [one.get_color() for one in lines[:3]] == [one.colour for one in drawn_as.values()]
    assert [one.get_linestyle() for one in lines[:3]] == ["-", "-", "--"]
    dots = {one.get_label(): len(one.get_xdata()) for one in drawn[0].axes[0].lines if one.get_linestyle() == "None"}
    assert dots == {OURS: 3, "jpeg": 2, "paper (undertrained)": 2}


def test_bytes_at_equal_score_are_read_off_the_hull() -> None:
    points = tuple(
        TaskPoint("jpeg", str(size), size, {"miou": score, "pixel_accuracy": 80.0})
        for size, score in ((900.0, 50.0), (1000.0, 52.0), (1100.0, 58.0), (2000.0, 59.5), (2500.0, 59.0))
    )
    found = {row["below"]: row for row in replace(REPORT, points=points).equal_score()}
    assert list(found) == [0.5, 1.0, 2.0, 3.0, 5.0, 10.0]
    assert [found[below]["score"] for below in found] == [59.5, 59.0, 58.0, 57.0, 55.0, 50.0]
    sizes = [found[below]["bytes"]["jpeg"] for below in found]
    assert sizes == pytest.approx([2000, 1700, 1100, 1075, 1025, 900])  # 1,000 bytes lie below the hull


@pytest.mark.parametrize(("score", "same"), [(60.009, True), (59.991, True), (60.011, False), (59.989, False)])
def test_points_of_another_task_teacher_are_not_taken(tmp_path: Path, score: float, *, same: bool) -> None:
    file = tmp_path / "segment.json"
    file.write_text(json.dumps(REPORT.to_json()))
    earlier = read_earlier(file, names=SCORES["segment"], keys=["task", "images"])
    teacher = {"miou": 60.0, "pixel_accuracy": 90.0}
    earlier.check({"task": "segment", "images": 3}, teacher=teacher)
    for other in ({**teacher, "miou": score}, {**teacher, "pixel_accuracy": score + 30}):
        if same:
            earlier.check({"images": 3}, teacher=other)
            continue
        with pytest.raises(DataError, match="another task teacher"):
            earlier.check({"images": 3}, teacher=other)
    with pytest.raises(DataError, match="images is 3, this run's 4"):
        earlier.check({"images": 4}, teacher=teacher)
