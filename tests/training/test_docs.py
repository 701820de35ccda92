from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image
from pydantic import BaseModel

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.evaluation.retail import read_classes, retail
from splitcodec.model.teacher import load_teacher
from splitcodec.training.build import build_student
from splitcodec.training.recipe import DataRecipe, LevelsRecipe, Recipe, TeacherRecipe
from splitcodec.training.stages import (
    AdamRecipe,
    AnswersStage,
    DistillStage,
    PixelsStage,
    SgdRecipe,
    SquaresStage,
    StepsRecipe,
)
from splitcodec.training.students import (
    HyperpriorRecipe,
    ImageRecipe,
    PaperRecipe,
    PatchLayer,
    PatchRecipe,
    ReducedRecipe,
    SqueezeRecipe,
)

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


def test_own_classes_in_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, colour in (("robin", "firebrick"), ("wren", "saddlebrown")):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for n in range(2):
            Image.new("RGB", (260 + n, 260), colour).save(tmp_path / "birds" / name / f"{n}.png")
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(lines, "train-your-own.md", "exec"), {})
    retail("efficientnet-lite0", tail="birds.onnx", classes=read_classes("birds.txt"), name="birds", out="birds-bundle")
    device, edge = Device("efficientnet-lite0", threads=1), Edge("birds-bundle", threads=1)
    for name in ("robin", "wren"):
        guesses = edge.answer(device.encode(tmp_path / "birds" / name / "0.png"))["answers"]["classify"]
        assert guesses[0]["label"] == name
        assert len(guesses) == 2


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
        ("student", ImageRecipe),
        ("student", HyperpriorRecipe),
        ("levels", LevelsRecipe),
        ("data", DataRecipe),
        ("stageN", DistillStage),
        ("stageN", SquaresStage),
        ("stageN", AnswersStage),
        ("stageN", PixelsStage),
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
