from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from splitcodec.model.teacher import load_teacher
from splitcodec.training.build import build_student
from splitcodec.training.recipe import DataRecipe, LevelsRecipe, Recipe, TeacherRecipe
from splitcodec.training.stages import AdamRecipe, AnswersStage, DistillStage, SgdRecipe, SquaresStage, StepsRecipe
from splitcodec.training.students import PaperRecipe, PatchLayer, PatchRecipe, ReducedRecipe, SqueezeRecipe

TEXT = (Path(__file__).parents[2] / "docs" / "train-your-own.md").read_text(encoding="utf-8")


def test_the_recipe_in_the_guide_can_be_built() -> None:
    recipe = Recipe.model_validate(yaml.safe_load(TEXT.split("```yaml\n")[1].split("```")[0]))
    assert isinstance(recipe.student, SqueezeRecipe)
    teacher = load_teacher(
        recipe.teacher.model,
        weights="random",
        cut=recipe.teacher.cut,
        stem=recipe.student.stem,
        later=recipe.teacher.later,
        classes=4,
    )
    assert build_student(recipe, teacher).bottleneck.channels == recipe.student.channels


@pytest.mark.parametrize(
    ("prefix", "model"),
    [
        ("", Recipe),
        ("teacher", TeacherRecipe),
        ("student", SqueezeRecipe),
        ("student", PatchRecipe),
        ("student.patches", PatchLayer),
        ("student", PaperRecipe),
        ("student", ReducedRecipe),
        ("levels", LevelsRecipe),
        ("data", DataRecipe),
        ("stageN", DistillStage),
        ("stageN", SquaresStage),
        ("stageN", AnswersStage),
        ("stageN.optimizer", AdamRecipe),
        ("stageN.optimizer", SgdRecipe),
        ("stageN.schedule", StepsRecipe),
    ],
)
def test_every_key_is_explained(prefix: str, model: type[BaseModel]) -> None:
    rows = re.findall(r"^\| (`.*?`) \|", TEXT, re.MULTILINE)
    told = {name.rsplit(".", 1)[-1] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    grouped = {"teacher", "student", "levels", "data", "decoder"}
    missing = set(model.model_fields) - told - grouped
    assert not missing, f"{prefix}: {missing}"
