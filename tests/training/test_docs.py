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
    LatentsStage,
    MuonRecipe,
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
    ThinnedRecipe,
)
from splitcodec.training.task_recipe import (
    DeepLabRecipe,
    FasterRcnnRecipe,
    FcosRecipe,
    HeadStage,
    RetinaNetRecipe,
    SegmenterRecipe,
    TaskDataRecipe,
    TaskRecipe,
    TaskStage,
)

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "train-your-own.md").read_text(encoding="utf-8")
KEYS = (DOCS / "recipe-keys.md").read_text(encoding="utf-8")
TASKS = (DOCS / "tasks.md").read_text(encoding="utf-8")


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
        ("student", ThinnedRecipe),
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
        ("stageN", LatentsStage),
        ("stageN.optimizer", AdamRecipe),
        ("stageN.optimizer", MuonRecipe),
        ("stageN.optimizer", SgdRecipe),
        ("stageN.schedule", StepsRecipe),
    ],
)
def test_every_key_is_explained(prefix: str, model: type[BaseModel]) -> None:
    """Under its own name: a key of one kind was told by another's of the same last word."""
    told = explained(KEYS)
    for key in model.model_fields:
        name = f"{prefix}.{key}" if prefix else key
        assert name in told or any(one.startswith(f"{name}.") for one in told), name


def explained(text: str) -> set[str]:
    """Return the keys that the tables explain: `.y` after `a.x` is a.y, what is in braces in a row of `a` is a's."""
    told = set[str]()
    for names, rest in re.findall(r"^\| (`.*?`) \|(.*)$", text, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", names)
        inner = {word for braces in re.findall(r"\{(.*?)\}", rest) for word in re.findall(r"\w+", braces)}
        beside = {one for one in others if one.lstrip(".") not in inner}
        told |= {first} | {f"{first}.{word}" for word in inner}
        told |= {first.rpartition(".")[0] + one if one.startswith(".") else one for one in beside}
    return told


@pytest.mark.parametrize(
    "model",
    [
        TaskRecipe,
        TaskDataRecipe,
        HeadStage,
        TaskStage,
        FcosRecipe,
        RetinaNetRecipe,
        FasterRcnnRecipe,
        SegmenterRecipe,
        DeepLabRecipe,
    ],
)
def test_every_key_of_a_task_is_explained(model: type[BaseModel]) -> None:
    """The page had five of them; the others were to be found in the code."""
    table = TASKS.split("| key of a recipe |")[1].split("\n\n")[0]
    told = {name.rsplit(".", 1)[-1] for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row)}
    missing = set(model.model_fields) - told - {"data", "kind"}
    assert not missing, missing
