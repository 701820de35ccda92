from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from splitcodec.errors import RecipeError
from splitcodec.training.recipe import Recipe, read_recipe
from tests.training.conftest import COMMITTED

Make = Callable[[], dict[str, Any]]


def _read(folder: Path, data: object, *changes: str) -> Recipe:
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return read_recipe(path, changes=changes)


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*.yaml")), ids=lambda p: p.stem)
def test_committed_recipes_are_valid(path: Path) -> None:
    assert read_recipe(path).name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("colour=1", "colour: unknown key; remove it or mend its spelling"),
        ("stage1.imags=5", "stage1.imags: unknown key"),
        ("student.decoder.depth=5", "student.decoder.depth: unknown key"),
        ("stage1.images=many", "stage1.images: .*integer"),
        ("stage1.images=0", "stage1.images: .*greater than 0"),
        ("stage1.learning_rate=-1", "stage1.learning_rate: .*greater than 0"),
        ("stage1.tail_from=1.5", "stage1.tail_from: .*less than or equal to 1"),
        ("stage2.feature=-0.1", "stage2.feature: .*greater than or equal to 0"),
        ("stage1.batch=5", r"stage1\.batch must be a multiple of the number of levels \(2\)"),
        ("stage2.batch=3", r"stage2\.batch must be a multiple of the number of levels \(2\)"),
        ("levels.lambdas=[0.1, 0.5]", "levels: .*lambdas must fall from level to level"),
        ("levels.lambdas=[]", "levels.lambdas: .*at least 1 item"),
        ("levels.lambdas=[0.1, -0.5]", "levels.lambdas.1: .*greater than 0"),
        ("levels.lambdas=" + str([1.0] * 17), "levels.lambdas: .*at most 16"),
        ("levels.default=2", "levels: .*default must be a level from 0 to 1"),
        ("levels.default=-1", "levels.default: .*greater than or equal to 0"),
        ("student.halvings=3", "student: .*halvings 3 needs as many widths, not 2"),
        ("student.widths=[8, 0]", "student.widths.1: .*greater than 0"),
        ("teacher.resize=60", "teacher: .*resize 60 must be at least crop 64"),
        ("teacher.std=0", "teacher.std: .*greater than 0"),
        ("teacher.model=null", "teacher.model: .*string"),
        ("name=My Codec", "name: .*pattern"),
        ("name=codec-", "name: .*pattern"),
        ("precision=fp8", "precision: .*pattern"),
        ("teacher=none", "teacher: .*"),
        ("data.holdout=-1", "data.holdout: .*greater than or equal to 0"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, recipe_data: Make, change: str, says: str) -> None:
    with pytest.raises(RecipeError, match=rf"r\.yaml: .*{says}"):
        _read(tmp_path, recipe_data(), change)


@pytest.mark.parametrize("key", ["name", "teacher", "student", "levels", "stage1"])
def test_a_missing_key_is_named(tmp_path: Path, recipe_data: Make, key: str) -> None:
    data = recipe_data()
    del data[key]
    with pytest.raises(RecipeError, match=rf"r\.yaml: {key}: Field required"):
        _read(tmp_path, data)


def test_several_complaints_are_counted(tmp_path: Path, recipe_data: Make) -> None:
    with pytest.raises(RecipeError, match=r"and 1 more"):
        _read(tmp_path, recipe_data(), "stage1.images=0", "stage2.images=0")


def test_set_changes_keys(tmp_path: Path, recipe_data: Make) -> None:
    recipe = _read(
        tmp_path, recipe_data(), "stage1.images=48", "levels.lambdas=[3, 2]", "stage2=null", "data.jitter=0", "seed=7"
    )
    assert recipe.stage1.images == 48
    assert recipe.levels.lambdas == (3.0, 2.0)
    assert recipe.stage2 is None
    assert recipe.data.jitter == 0
    assert recipe.data.holdout == 2
    assert recipe.seed == 7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("stage1.images", "expected key=value"),
        ("=3", "expected key=value"),
        ("name.first=3", "name holds a value, not keys"),
        ("seed=[1", "the value is not YAML"),
    ],
)
def test_set_that_does_not_make_sense(tmp_path: Path, recipe_data: Make, change: str, says: str) -> None:
    with pytest.raises(RecipeError, match=f"--set .*{says}"):
        _read(tmp_path, recipe_data(), change)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[1, 2]", "holds list, expected keys and values"),
        (b"", "holds NoneType"),
        (b"name: [", "is not readable YAML"),
        (b"name: \xff\xfe", "is not readable YAML"),
        (b"name: !!python/object/apply:os.getcwd []", "is not readable YAML"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=says) as caught:
        read_recipe(tmp_path / "r.yaml")
    assert "\n" not in str(caught.value)


def test_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe at .*nowhere\.yaml; give a YAML file"):
        read_recipe(tmp_path / "nowhere.yaml")
