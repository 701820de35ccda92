from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from splitcodec.errors import RecipeError
from splitcodec.training.build import build_student, build_teacher
from splitcodec.training.distill import train
from splitcodec.training.earlier import Earlier, Part, begin_from, earlier_runs, images_before, totals
from splitcodec.training.export import export
from splitcodec.training.recipe import Recipe
from splitcodec.training.redecode import together
from splitcodec.training.run import Run
from splitcodec.training.spent import Spent
from splitcodec.wire.bundle import derive, write_folder

Make = Callable[[], dict[str, Any]]
_NONE = torch.zeros(0)  # a run needs no crops


def _next(data: dict[str, Any], start: Path, **changes: Any) -> Recipe:
    return Recipe.model_validate({**data, "name": "next", "start": str(start), "stage2": None, **changes})


def test_a_run_begins_with_another_s_weights_and_counts_its_pictures(
    recipe_data: Make, finished: Path, photos: Path, tmp_path: Path
) -> None:
    neighbour = _next(recipe_data(), finished, levels={"lambdas": [0.2, 0.05], "default": 1})
    student = build_student(neighbour, build_teacher(neighbour))
    begin_from(finished, neighbour, student, image_u8=_NONE, taken_bchw=_NONE, feature_bchw=_NONE)
    theirs = Run(finished).weights()
    assert all(torch.equal(value, theirs[name]) for name, value in student.state_dict().items())
    report = train(neighbour, photos=[photos], out=tmp_path / "next", report=lambda _: None)
    assert (report["images"], report["images_cumulative"]) == (24, 24 + 36)
    assert report["seconds_cumulative"] >= report["seconds"]
    assert [(one["key"], one["recipe"], one["images"]) for one in report["builds_on"]] == [("start", "tiny-run", 36)]
    again = _next(recipe_data(), tmp_path / "next")
    report = train(again, photos=[photos], out=tmp_path / "again", report=lambda _: None)
    assert report["images_cumulative"] == 24 + 24 + 36
    assert report["processor_seconds_cumulative"] == pytest.approx(
        report["processor_seconds"] + report["builds_on"][0]["processor_seconds"]
    )
    told = Run(finished).report()
    assert report["builds_on"][0]["processor_seconds"] > told["processor_seconds"] > 0
    assert "builds_on" not in Run(finished).report()


def test_processor_time_is_not_told_where_an_earlier_run_did_not_count_it(
    recipe_data: Make, finished: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(finished, old)
    report = Run(finished).report()
    report = {key: value for key, value in report.items() if key != "processor_seconds"}
    (old / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (found,) = earlier_runs(_next(recipe_data(), old))
    final = totals([found], images=4, spent=Spent(60.0, 90.0, {"H100": 60.0}))
    assert (final["processor_seconds"], final["device_seconds"]) == (90.0, {"H100": 60.0})
    assert final["seconds_cumulative"] == pytest.approx(60.0 + report["seconds"])
    assert not {"processor_seconds_cumulative", "device_seconds_cumulative"} & final.keys()
    assert "processor_seconds" not in final["builds_on"][0]
    took = Spent(1.0, 2.0, {"H100": 3.0, "A100": 1.0})
    two = Earlier("start", "x", 1, took, (Part("x", 1, took, (1, 1.0)),))
    final = totals([two], images=4, spent=Spent(60.0, 90.0, {"H100": 60.0}))
    assert final["processor_seconds_cumulative"] == 92.0
    assert final["device_seconds_cumulative"] == {"H100": 63.0, "A100": 1.0}


@pytest.mark.parametrize("old", [False, True])
def test_what_start_and_lead_both_build_upon_counts_once(
    recipe_data: Make, finished: Path, tmp_path: Path, *, old: bool
) -> None:
    """`old` reports tell of the nearest runs alone, with all that is below them."""

    def run(name: str, images: int, **below: Path) -> Path:
        recipe = Recipe.model_validate({**recipe_data(), **{key: str(place) for key, place in below.items()}})
        report = {"finished": True, **totals(earlier_runs(recipe), images=images, spent=Spent(images, 2.0 * images))}
        if old:
            report.pop("lineage", None)
        shutil.copytree(finished, tmp_path / name)
        (tmp_path / name / "report.json").write_text(json.dumps(report), encoding="utf-8")
        return tmp_path / name

    def seen(place: Path) -> tuple[int, float, float]:
        report = Run(place).report()
        return tuple(report[f"{key}_cumulative"] for key in ("images", "seconds", "processor_seconds"))

    root = run("root", 1000)
    one, two = run("one", 200, start=root), run("two", 30, start=root)
    bundle = export(one, tmp_path / "bundle", golden=lambda _: b"none").path
    for number, start in enumerate((one, bundle)):
        assert seen(run(f"both{number}", 4, start=start, lead=two)) == (1234, 1234, 2468)
        assert seen(run(f"same{number}", 4, start=start, lead=one)) == (1204, 1204, 2408)
        assert seen(run(f"line{number}", 4, start=start, lead=root)) == (1204, 1204, 2408)
    (begun, _) = below = earlier_runs(Recipe.model_validate({**recipe_data(), "start": str(one), "lead": str(two)}))
    assert (begun.images, images_before(below)) == (1200, 1230)
    if not old:
        assert seen(run("late", 5, start=tmp_path / "both0", lead=tmp_path / "line1")) == (1243, 1243, 2486)
    whole = ("photographs", "levelled", "levelling")
    reports = [{**Run(place).report(), **dict.fromkeys(whole, 0)} for place in (one, two)]
    assert together(reports)["images_cumulative"] == 1230
    later = [run(name, 6, start=place) for name, place in (("next1", one), ("next2", two))]
    reports = [{**Run(place).report(), **dict.fromkeys(whole, 0)} for place in later]
    assert together(reports)["images_cumulative"] == (1230 + 12 + 1000 * old)


def test_the_held_out_loss_goes_on_where_it_was(
    recipe_data: Make, finished: Path, photos: Path, tmp_path: Path
) -> None:
    data = recipe_data()
    same = _next(data, finished, stage1={**data["stage2"], "tune": "decoder", "rate_ramp": 0.0})
    report = train(same, photos=[photos], out=tmp_path, report=lambda _: None)
    last, first = Run(finished).report()["validation"][-1], report["validation"][0]
    assert first["loss"] == pytest.approx(last["loss"], rel=1e-4)
    assert math.isfinite(report["levelling"]["percent_of_last_doubling"]["stage1"])


def test_a_tail_that_an_earlier_run_tuned_is_the_student_s_from_the_start(
    recipe_data: Make, photos: Path, tmp_path: Path
) -> None:
    """Until a stage tuned it again, errors behind the cut were those of the teacher's tail, which nobody ships."""
    data = recipe_data() | {"stage2": None}
    data["stage1"] |= {"tail": True, "learning_rate": 1e-2}
    first = train(Recipe.model_validate(data), photos=[photos], out=tmp_path / "first", report=lambda _: None)
    stages = {"stage1": {**data["stage1"], "tail": False}, "stage2": {**data["stage1"], "images": 4}}
    after = Recipe.model_validate({**data, **stages, "start": str(tmp_path / "first")})
    report = train(after, photos=[photos], out=tmp_path / "after", report=lambda _: None)
    assert report["validation"][0]["loss"] == pytest.approx(first["validation"][-1]["loss"], rel=1e-4)


def test_a_tail_of_its_own_begins_as_the_teacher_s(recipe_data: Make, finished: Path) -> None:
    data = recipe_data()
    recipe = _next(data, finished, stage1={**data["stage1"], "tail": True})
    teacher = build_teacher(recipe)
    student = build_student(recipe, teacher)
    begin_from(finished, recipe, student, image_u8=_NONE, taken_bchw=_NONE, feature_bchw=_NONE)
    wanted = teacher.tail.state_dict()
    assert student.tail is not None
    assert all(torch.equal(value, wanted[name]) for name, value in student.tail.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"start": "nowhere"}, "start: no run in nowhere"),
        ({"levels": {"lambdas": [0.5], "default": 0}}, "start: the student in .* has other shapes"),
        ({"teacher": {"later": []}}, "start: .* another teacher section"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    recipe_data: Make, finished: Path, photos: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    data = recipe_data()
    if "teacher" in changes:
        changes = {"teacher": {**data["teacher"], **changes["teacher"]}}
    recipe = Recipe.model_validate({**data, "start": str(finished), **changes})
    with pytest.raises(RecipeError, match=says):
        train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None)


def test_a_start_that_has_not_finished_is_refused(
    recipe_data: Make, recipe: Recipe, photos: Path, tmp_path: Path
) -> None:
    train(recipe, photos=[photos], out=tmp_path / "half", report=lambda _: None, stop_after_s=0.0)
    with pytest.raises(RecipeError, match=r"start: the run in .* has not finished"):
        train(_next(recipe_data(), tmp_path / "half"), photos=[photos], out=tmp_path / "run", report=lambda _: None)


@pytest.mark.parametrize("bundled", [False, True])
def test_with_a_lead_the_start_gives_its_encoder_alone(
    recipe_data: Make, finished: Path, photos: Path, tmp_path: Path, *, bundled: bool
) -> None:
    levels = {"lambdas": [0.5], "default": 0}  # the lead gives others
    other = Recipe.model_validate({**recipe_data(), "name": "other", "seed": 5, "levels": levels, "stage2": None})
    train(other, photos=[photos], out=tmp_path / "other", report=lambda _: None)
    start = tmp_path / "other"
    if bundled:
        start = export(start, tmp_path / "bundle", golden=lambda _: b"none").path
    stage = {"kind": "latents", "images": 16, "batch": 8, "learning_rate": 1e-9}
    both = Recipe.model_validate(
        {
            **recipe_data(),
            "name": "both",
            "start": str(start),
            "lead": str(finished),
            "stage1": stage,
            "stage2": None,
        }
    )
    final = train(both, photos=[photos], out=tmp_path / "both", report=lambda _: None)
    name = "other@1" if bundled else "other"
    assert [(one["key"], one["recipe"]) for one in final["builds_on"]] == [("start", name), ("lead", "tiny-run")]
    weights, began, led = (Run(folder).weights() for folder in (tmp_path / "both", tmp_path / "other", finished))
    assert all(torch.equal(weights[key], led[key]) for key in led if key.startswith(("decoder.", "bottleneck.")))
    first = "squeeze.layers.0.0.weight"
    # its layers but the last, which are turned; a bundle's have batch norm folded in
    assert bundled or torch.allclose(weights[first], began[first], atol=1e-6)
    assert not torch.allclose(weights[first], led[first], atol=1e-3)
    assert final["validation"][0]["loss"] < 0.6  # near the lead's latent from the start


@pytest.mark.parametrize("report", [{"images": None}, {"images": "many", "seconds": 10**400}, "text", [1]])
def test_what_a_stranger_s_bundle_says_of_its_training_may_be_anything(
    recipe_data: Make, finished: Path, tmp_path: Path, report: object
) -> None:
    bundle = export(finished, tmp_path / "bundle", golden=lambda _: b"none")
    told = replace(bundle.manifest, provenance={**bundle.manifest.provenance, "report": report})
    place = write_folder(derive(bundle, told, files={}), tmp_path / "told").path
    (found,) = earlier_runs(Recipe.model_validate({**recipe_data(), "start": str(place)}))
    assert (found.images, found.spent) == (0, Spent(0.0))
