from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from splitcodec.errors import RecipeError
from splitcodec.training.recipe import LevelsRecipe, Recipe, read_recipe
from splitcodec.wire.bundle import open_bundle, zoo_names
from tests.training.conftest import COMMITTED, RECIPES

Make = Callable[[], dict[str, Any]]


def _read(folder: Path, data: object, *changes: str) -> Recipe:
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return read_recipe(path, changes=changes)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_committed_recipes_are_valid(path: Path) -> None:
    assert read_recipe(path).name


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_led_by_what_ships_has_its_levels_and_channels(path: Path) -> None:
    """The shipped default's had eight levels still when the large one that leads it had got ten: it was refused."""
    recipe = read_recipe(path)
    known = {name for ident in zoo_names() for name in (ident, ident.rpartition("@")[0])}
    shipped = {str(recipe.lead), str(recipe.start if recipe.lead is None else None)} & known
    for name in shipped:
        manifest = open_bundle(name).manifest
        assert (recipe.levels.count, recipe.student.channels) == (manifest.levels, manifest.channels)


def test_make_trains_recipes_that_are_there() -> None:
    makefile = (COMMITTED.parent / "Makefile").read_text(encoding="utf-8")
    (sizes,) = re.findall(r"for size in (.*); do", makefile)
    stems = {path.stem for path in RECIPES}
    assert {f"efficientnet_lite0{size}" for size in shlex.split(sizes)} <= stems


def test_a_recipe_without_kinds_means_the_first_of_them(recipe: Recipe) -> None:
    assert (recipe.student.kind, recipe.stage1.kind) == ("squeeze", "distill")
    assert (recipe.stage1.optimizer.kind, recipe.stage1.schedule.kind) == ("adam", "cosine")
    assert not recipe.own_tail()
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


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
        ("stage1.optimizer={kind: muon, momentum: 1}", "stage1.optimizer.momentum: .*less than 1"),  # a mean of nothing
        ("stage1.window=40", "stage1.window: .*multiple of 16"),
        ("stage2.window=96", r"stage2\.window: at most teacher\.crop, 64 pixels"),
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
        (
            "student.kind=large",
            "student: expected keys, `kind` among them one of squeeze, patch, thinned, paper, reduced",
        ),
        ("student.kind=paper", "student.decoder: unknown key"),
        ("student=none", "student: expected keys"),
        ("teacher.mean=[0.5, 0.4]", "teacher.mean: "),
        ("teacher.std=[0.5, 0.4, no]", "teacher.std"),
        ("teacher.mean=[123.7, 116.3, 103.5]", "teacher.mean: .*123.7.*divide what is of pixels up to 255 by 255"),
        ("teacher.std=58.4", "teacher.std: .*58.4: pixels are from 0 to 1 here"),
        ("seed=-1", "seed: .*greater than or equal to 0"),
        ("seed=4294967296", "seed: .*less than or equal to"),
        ("stage1.kind=magic", "stage1: expected keys, `kind` among them one of distill, squares, answers"),
        ("stage1.kind=squares", "stage1.tail_from: unknown key"),
        ("stage1.hard=0.5", "stage1.hard: unknown key"),
        ("stage1.optimizer={kind: lion}", "stage1.optimizer: expected keys, `kind` among them one of adam, muon, sgd"),
        ("stage1.optimizer={momentum: 0.5}", "stage1.optimizer.momentum: unknown key"),
        ("stage1.optimizer={betas: [0.9, 1.0]}", "stage1.optimizer.betas.1: .*less than 1"),
        ("stage1.learning_rate=.inf", "stage1.learning_rate: .*finite"),
        ("stage1.schedule={kind: steps}", "stage1.schedule.at: Field required"),
        ("stage1.tune=decoder", r"stage1\.tune: the decoder alone cannot learn"),
        ("stage2.tune=tail", "stage2.tune: .*'decoder', 'encoder' or 'all'"),
        ("levels.betas=[0.5, 0.1]", "levels: .*give either lambdas .* or betas"),
        ("student={kind: reduced, channels: 3}", "student.kind reduced has one level, not 2"),
        (
            "student={kind: patch, patches: [{width: 8, kernel: 2, stride: 4}]}",
            "student.patches.0: .*kernel 2 with stride 4; expected at least the stride",
        ),
        ("student={stem: blocks.1.1, widths: [8], linear: false, metric: answer}", "student: .*no meaning with linear"),
        ("data={paste: 0.7, mix: 0.4}", "data: .*paste 0.7 and mix 0.4 are shares .* at most 1 in all"),
        *(
            (
                f"stage1={{kind: latents, images: 8, batch: 4, learning_rate: 1.0e-3, {key}: {value}}}",
                f"stage1: .*{key}: a",
            )
            for key, value in (("tune", "all"), ("tail", "true"), ("quantise", "round"))
        ),
        (
            "stage1={kind: pixels, images: 8, batch: 4, learning_rate: 1.0e-3, tail: true}",
            "stage1: .*tail: nothing is answered in a stage of kind pixels",
        ),
        ("student={kind: patch, patches: []}", "student.patches: .*at least 1 item"),
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


def test_a_misspelt_key_is_named_rather_than_the_one_it_should_have_been(tmp_path: Path, recipe_data: Make) -> None:
    data = recipe_data()
    data["student"]["wdths"] = data["student"].pop("widths")
    with pytest.raises(RecipeError, match=r"r\.yaml: student\.wdths: unknown key; .* \(and 1 more\)$"):
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


def _files(folder: Path, **contents: object) -> Path:
    for name, content in contents.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def test_a_base_gives_what_a_recipe_does_not_say(tmp_path: Path, recipe_data: Make) -> None:
    folder = _files(
        tmp_path,
        base=recipe_data(),
        middle={"base": "base.yaml", "name": "middle", "stage1": {"images": 8}, "stage2": None},
        below__top={"base": "../middle.yaml", "levels": {"lambdas": [3.0, 2.0]}},
    )
    base, top = read_recipe(folder / "base.yaml"), read_recipe(folder / "below" / "top.yaml", changes=("seed=3",))
    assert (top.name, top.stage1.images, top.stage2, top.seed) == ("middle", 8, None, 3)
    assert top.levels.prices == (3.0, 2.0)
    assert top.levels.first_gain == base.levels.first_gain
    assert top.student == base.student


def test_another_kind_begins_anew(tmp_path: Path, recipe_data: Make) -> None:
    top = {
        "base": "base.yaml",
        "student": {"kind": "paper", "channels": 8},
        "stage1": {"kind": "squares", "images": 8, "batch": 4, "learning_rate": 1e-3},
    }
    recipe = read_recipe(_files(tmp_path, base=recipe_data(), top=top) / "top.yaml")
    assert (recipe.student.kind, recipe.student.channels, recipe.stage1.kind) == ("paper", 8, "squares")


def test_the_kind_that_a_base_leaves_out_is_not_another(tmp_path: Path, recipe_data: Make) -> None:
    """What the base says of the stage went without a word: its window, its weights, its clip."""
    data = recipe_data()
    data["stage1"] |= {"clip": 1.5, "tail_from": 0.4, "optimizer": {"weight_decay": 0.1}}
    stage = {"kind": "distill", "images": 8, "optimizer": {"kind": "adam", "betas": [0.8, 0.9]}}
    top = {"base": "base.yaml", "student": {"kind": "squeeze", "channels": 3}, "stage1": stage}
    folder = _files(tmp_path, base=data, top=top)
    base, found = read_recipe(folder / "base.yaml"), read_recipe(folder / "top.yaml")
    optimizer = base.stage1.optimizer.model_copy(update={"betas": (0.8, 0.9)})
    assert found.stage1 == base.stage1.model_copy(update={"images": 8, "optimizer": optimizer})
    assert found.student == base.student.model_copy(update={"channels": 3})


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        ({"top": {"base": "top.yaml"}}, "top.yaml leads back here"),
        ({"top": {"base": "a.yaml"}, "a": {"base": "top.yaml"}}, "top.yaml leads back here"),
        ({"top": {"base": "nowhere.yaml"}}, "no recipe at .*nowhere.yaml"),
        ({"top": {"base": 3}}, "base: expected the name of another recipe, not 3"),
    ],
)
def test_bases_that_lead_nowhere(tmp_path: Path, contents: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        read_recipe(_files(tmp_path, **contents) / "top.yaml")


def test_betas_are_prices_of_bits(tmp_path: Path, recipe_data: Make) -> None:
    recipe = _read(tmp_path, recipe_data(), "levels.lambdas=null", "levels.betas=[0.5, 0.25]")
    assert recipe.levels.prices == (4000.0, 2000.0)
    assert recipe.levels.count == 2


def test_balance_weighs_high_levels_more() -> None:
    levels = LevelsRecipe(lambdas=(4.0, 1.0), default=0, balance=0.5)
    assert levels.weights() == pytest.approx((2 / 3, 4 / 3))
    assert levels.weights(0.0) == (1.0, 1.0)
    assert LevelsRecipe(lambdas=(4.0, 1.0), default=0).weights() == (1.0, 1.0)


@pytest.mark.parametrize("text", ["name: 2020-13-45", "name: " + "9" * 5000, "[" * 4000])
def test_what_yaml_cannot_hold_is_refused(tmp_path: Path, recipe_data: Make, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"r\.yaml is not readable YAML"):
        read_recipe(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match="the value is not YAML"):
        _read(tmp_path, recipe_data(), "name=" + text.removeprefix("name: "))


def test_a_base_with_a_nul_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text('base: "a\\0b"')
    with pytest.raises(RecipeError, match="cannot rest upon itself"):
        read_recipe(tmp_path / "r.yaml")


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path, recipe_data: Make) -> None:
    """The last one counted, and what the first said was gone without a word."""
    text = yaml.safe_dump(recipe_data())
    (tmp_path / "r.yaml").write_text(text + "stage1: {images: 8, batch: 4, learning_rate: 1.0e-3}\n")
    line = len(text.splitlines()) + 1
    with pytest.raises(RecipeError, match=rf"not readable YAML: line {line}: stage1 is there twice; keep one"):
        read_recipe(tmp_path / "r.yaml")


def test_a_recipe_without_an_end_is_not_read_whole(tmp_path: Path) -> None:
    """`train /dev/zero` read until the memory was full."""
    large = tmp_path / "recipe.yaml"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RecipeError, match="more than 1048576 letters"):
        read_recipe(large)
