from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from pydantic import ValidationError

from splitcodec.errors import DataError
from splitcodec.layouts.folders import find_photographs
from splitcodec.model.student import Student
from splitcodec.training.build import Halves, build_student, build_teacher
from splitcodec.training.data import centre_crops
from splitcodec.training.distill import train
from splitcodec.training.end import place
from splitcodec.training.place import place_levels
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run

Make = Callable[[], dict[str, Any]]


def _trained(finished: Path) -> tuple[Student, Halves, Recipe]:
    run = Run(finished)
    recipe = run.recipe()
    teacher = build_teacher(recipe)
    student = build_student(recipe, teacher)
    student.load_state_dict(run.weights())
    fabric = Fabric(accelerator="cpu", devices=1)
    return student, Halves(fabric, recipe, teacher=teacher), recipe


def _kilobytes(student: Student, halves: Halves, crops: torch.Tensor, level: int) -> float:
    """Return the mean code length at a level, under the symbols' own frequencies."""
    with torch.no_grad():
        symbols_bchw = student.symbols(halves.stem(halves.scale(crops)), level)
    bits = 0.0
    for channel in range(symbols_bchw.shape[1]):
        _, counts = np.unique(symbols_bchw[:, channel].numpy(), return_counts=True)
        bits -= float(np.sum(counts * np.log2(counts / counts.sum())))
    return bits / len(crops) / 8000


def test_levels_are_moved_to_the_sizes_asked_for(finished: Path, photos: Path) -> None:
    student, halves, recipe = _trained(finished)
    paths = find_photographs([photos])
    crops = centre_crops(paths, resize=recipe.teacher.resize, crop=recipe.teacher.crop).image_u8
    least, most = (_kilobytes(student, halves, crops, level) for level in (0, 1))
    assert least < most
    wanted = [least + (most - least) * share for share in (0.25, 0.75)]
    places = place_levels(student, halves, crops=crops, kilobytes=wanted)
    assert 0 < places[0] < places[1] < 1
    found = [_kilobytes(student, halves, crops, level) for level in (0, 1)]
    assert found == pytest.approx(wanted, rel=0.02)


def test_sizes_out_of_reach_take_the_first_and_the_last_level(finished: Path, photos: Path) -> None:
    student, halves, recipe = _trained(finished)
    gains, before = student.tabled().gains(), {name: one.clone() for name, one in student.state_dict().items()}
    paths = find_photographs([photos])[:4]
    crops = centre_crops(paths, resize=recipe.teacher.resize, crop=recipe.teacher.crop).image_u8
    places = place_levels(student.train(), halves, crops=crops, kilobytes=[1e-6, 1e3])
    assert places == pytest.approx([0.0, 1.0], abs=1e-3)
    assert student.tabled().gains() == pytest.approx(gains, rel=1e-2)
    changed = {name for name, one in student.state_dict().items() if not torch.equal(one, before[name])}
    assert changed == {"bottleneck.log_gain_lc"}  # nor what batch norm has seen


def test_a_level_that_cannot_be_of_the_size_asked_for_is_told(finished: Path, photos: Path, tmp_path: Path) -> None:
    """Several levels became one and the same, and nobody said so."""
    student, halves, recipe = _trained(finished)
    paths = find_photographs([photos])
    crops = centre_crops(paths, resize=recipe.teacher.resize, crop=recipe.teacher.crop).image_u8
    least, most = (_kilobytes(student, halves, crops, level) for level in (0, 1))

    def said(*kilobytes: float) -> list[str]:
        levels = recipe.levels.model_copy(update={"kilobytes": kilobytes})
        changed, told = recipe.model_copy(update={"levels": levels}), list[str]()
        again, _, _ = _trained(finished)
        place(changed, again, halves=halves, paths=paths, run=Run(tmp_path), say=told.append)
        return told

    assert said(least + (most - least) / 4, least + (most - least) / 2) == []
    (line,) = said(least / 2, least + (most - least) / 2)
    assert line.startswith("level 0: the size that levels.kilobytes asks for lies beyond")
    (line,) = said(least / 2, 2 * most)
    assert line.startswith("level 0, 1: the size")


def test_photographs_that_went_away_before_levels_are_placed_are_told(finished: Path, tmp_path: Path) -> None:
    """A traceback, at the end of a run: a mean of no sizes."""
    student, halves, recipe = _trained(finished)
    levels = recipe.levels.model_copy(update={"kilobytes": (0.02, 0.03)})
    changed, paths = recipe.model_copy(update={"levels": levels}), [tmp_path / "gone.jpg", tmp_path / "too.jpg"]
    with pytest.raises(DataError, match=r"none of 2 photographs can be read, .*gone\.jpg among them; give others"):
        place(changed, student, halves=halves, paths=paths, run=Run(tmp_path), say=lambda _: None)


def test_training_places_levels_and_doing_it_again_changes_nothing(
    recipe_data: Make, photos: Path, tmp_path: Path
) -> None:
    data = recipe_data()
    data["levels"] = {**data["levels"], "kilobytes": [0.02, 0.03]}
    recipe = Recipe.model_validate(data)
    train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None)
    first = Run(tmp_path / "run").weights()
    train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None)
    again = Run(tmp_path / "run").weights()
    assert '"stage": "placed"' in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8")
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize(
    ("kilobytes", "said"),
    [([0.5], "1 sizes for 2 levels"), ([0.5, 0.2], "kilobytes must rise"), ([0.0, 0.2], "greater than 0")],
)
def test_sizes_that_do_not_fit_the_levels_are_refused(recipe_data: Make, kilobytes: list[float], said: str) -> None:
    data = recipe_data()
    data["levels"] = {**data["levels"], "kilobytes": kilobytes}
    with pytest.raises(ValidationError, match=said):
        Recipe.model_validate(data)
