"""Every committed recipe: it is valid, it builds, and in small it trains, exports and answers packets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import RecipeError
from splitcodec.evaluation.golden import make_golden
from splitcodec.evaluation.replay import replay
from splitcodec.model.teacher import load_teacher
from splitcodec.session import Graph
from splitcodec.training.build import build_student, build_teacher, latent_side, latent_stride
from splitcodec.training.distill import Progress, train
from splitcodec.training.export import export
from splitcodec.training.labels import labels_for
from splitcodec.training.recipe import Recipe, read_recipe
from splitcodec.training.run import Run
from splitcodec.training.students import PatchRecipe, SqueezeRecipe
from splitcodec.wire.bundle import Bundle, open_bundle
from tests.training.conftest import COMMITTED, RECIPES, draw

Make = Callable[[], dict[str, Any]]
SMALL_DECODER = {"width": 16, "blocks": 1, "up_width": 8, "up_blocks": 1}
SMALL: dict[str, dict[str, Any]] = {
    "squeeze": {"stem": "bn1", "widths": [12, 12], "halvings": 2, "channels": 6, "decoder": SMALL_DECODER},
    "patch": {"widths": [12], "channels": 6, "decoder": SMALL_DECODER},
    "thinned": {
        "share": [1, 2],
        "until": None,
        "between": None,
        "hidden": None,
        "widths": [12],
        "halvings": 1,
        "channels": 6,
        "decoder": SMALL_DECODER,
    },
    "paper": {"widths": [8, 6], "channels": 5, "decoder_widths": [16, 12]},
    "reduced": {"width": 8, "decoder_width": 16},
    "image": {"width": 8, "channels": 6},
    "hyperprior": {"width": 8, "channels": 6},
}
LARGE, DEFAULT, TINY = "efficientnet_lite0_large", "efficientnet_lite0", "efficientnet_lite0_tiny"
FIRST_SMALL = "efficientnet_lite0_small_v1"
ALL = {str(path.relative_to(COMMITTED).with_suffix("")): path for path in RECIPES}
PATCHES = "[{width: 8, kernel: 5, stride: 4}, {width: 12, kernel: 3, stride: 2}]"


def _small(recipe: Recipe, make: Make) -> Recipe:
    """Return a recipe with the tiny teacher, few channels and two steps of each stage; its ways stay."""
    data = recipe.model_dump(mode="json")
    data["teacher"] = make()["teacher"]
    if recipe.student.kind == "reduced":
        data["teacher"].update(cut="blocks.2", later=["blocks.4"])
    data["student"].update(SMALL[recipe.student.kind])
    data["data"].update(holdout=2)
    data.update(start=None)
    for name, _ in recipe.stages():
        data[name].update(batch=recipe.levels.count * (1 if recipe.levels.count > 1 else 4))
        data[name].update(images=2 * data[name]["batch"], minutes=None)
        data[name].update(window=data[name]["window"] and 32)
    return Recipe.model_validate(data)


def _bundle(recipe: Recipe, photos: Path, folder: Path) -> Bundle:
    final = train(recipe, photos=[photos], out=folder / "run", report=lambda _: None)
    assert final["finished"]
    assert len(final["holdout"]) == recipe.levels.count

    def golden(bundle: Bundle) -> bytes:
        return make_golden(Device(bundle, threads=1), Edge(bundle, threads=1), [draw((90, 80), n) for n in range(2)])

    export(folder / "run", folder / "bundle", golden=golden)
    return open_bundle(folder / "bundle")


def _answers(bundle: Bundle, picture: Image.Image) -> list[int]:
    """Return the bytes of each level's packet, each of which got an answer."""
    device, edge = Device(bundle, threads=1), Edge(bundle, threads=1)
    packets = [device.encode(picture, level=level) for level in range(bundle.manifest.levels)]
    for packet in packets:
        assert edge.answer(packet)["answers"]["classify"][0]["label"].startswith("kind ")
    return [len(packet) for packet in packets]


def _bases() -> list[str]:
    """Return the recipes that say more than a name, a price and a count of channels."""
    few = {"base", "name", "levels", "student"}
    own = {name: yaml.safe_load(path.read_text()) for name, path in ALL.items()}
    full = {name for name, keys in own.items() if not set(keys) <= few or "kind" in keys.get("student", {})}
    return [name for name in own if name in full and "start" not in own[name]]


def _first(recipe: Recipe) -> Recipe:
    """Return the recipe at the beginning of the chain of leads: it is led by none."""
    while recipe.lead is not None:
        recipe = read_recipe(ALL[recipe.lead.name.replace("-", "_")])  # a run, or the bundle that came of it
    return recipe


@pytest.mark.parametrize("name", _bases())
def test_committed_recipes_train_export_and_answer_in_small(
    name: str, recipe_data: Make, photos: Path, tmp_path: Path
) -> None:
    whole = read_recipe(ALL[name])
    recipe = _small(whole, recipe_data)
    if name.startswith("ablations/"):  # trained otherwise, but the same graphs as the recipe that it rests upon
        base = read_recipe(ALL[f"{LARGE}_v2"])
        assert (whole.student, whole.teacher, whole.levels) == (base.student, base.teacher, base.levels)
        assert train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None)["finished"]
        assert not recipe.own_tail()
        return
    if recipe.student.kind == "hyperprior":
        assert train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None)["finished"]
        with pytest.raises(RecipeError, match=r"no packet carries .* benchmarks/learned_codecs\.py"):
            export(tmp_path / "run", tmp_path / "bundle", golden=lambda _: b"")
        return
    if whole.lead is not None:
        first = _first(whole).model_copy(update={"levels": whole.levels})  # `splitcodec levels` gave it those since
        lead = _small(first, recipe_data)
        train(lead, photos=[photos], out=tmp_path / "lead", report=lambda _: None)
        recipe = recipe.model_copy(update={"lead": tmp_path / "lead"})
    bundle = _bundle(recipe, photos, tmp_path)
    assert replay(bundle, threads=1).answers
    teacher = build_teacher(recipe)
    stride = latent_stride(recipe, teacher)
    side = latent_side(recipe, 64, stride=stride)
    assert bundle.manifest.stride == stride
    assert Device(bundle, threads=1).symbols(draw((90, 80), 1)).shape == (recipe.student.channels, side, side)
    _answers(bundle, draw((90, 80), 1))
    tail = [key for key in Run(tmp_path / "run").weights() if key.startswith("tail.")]
    assert bool(tail) == recipe.own_tail()


@pytest.mark.parametrize("name", sorted(set(ALL) - set(_bases())))
def test_variants_differ_from_their_base_in_little(name: str) -> None:
    own = yaml.safe_load(ALL[name].read_text())
    recipe, base = read_recipe(ALL[name]), read_recipe(ALL[name].parent / own["base"])
    changed = {key for key in Recipe.model_fields if getattr(recipe, key) != getattr(base, key)}
    assert changed <= set(own) - {"base"}
    assert recipe.student.kind == base.student.kind


def test_names_of_committed_recipes_are_apart() -> None:
    bases = {str(yaml.safe_load(p.read_text()).get("base")) for p in ALL.values()}
    recipes = [read_recipe(path) for name, path in ALL.items() if f"{Path(name).name}.yaml" not in bases]
    names = [f"{recipe.name}@{recipe.version}" for recipe in recipes]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "name",
    ["paper/resnet50", "rivals/paper", "rivals/reduced", "rivals/factorized", LARGE, DEFAULT, FIRST_SMALL, TINY],
)
def test_committed_recipes_meet_their_teacher_in_full_size(name: str) -> None:
    recipe = read_recipe(ALL[name])
    teacher = build_teacher(
        recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"weights": "random"})})
    )
    assert (teacher.width, teacher.stride) == {
        "paper/resnet50": (256, 4),
        "rivals/paper": (24, 4),
        "rivals/reduced": (40, 8),
        "rivals/factorized": (3, 1),
        LARGE: (80, 16),
        DEFAULT: (80, 16),
        FIRST_SMALL: (40, 8),
        TINY: (80, 16),
    }[name]
    student = build_student(recipe, teacher)
    side = latent_side(recipe, 224, stride=latent_stride(recipe, teacher))
    assert side == {"paper": 55, "reduced": 29, "image": 14, "squeeze": 14, "thinned": 14}[recipe.student.kind]
    with torch.no_grad():
        feature = student.eval().reproduce(torch.zeros(1, recipe.student.channels, side, side), 0)
    assert feature.shape == (1, teacher.width, 224 // teacher.stride, 224 // teacher.stride)


def _lite(recipe_data: Make, hidden: list[int]) -> Recipe:
    data = recipe_data()
    data["teacher"].update(model="tf_efficientnet_lite0", weights="random", cut="blocks.1.0", later=["blocks.2.0"])
    data["teacher"]["classes"] = None
    data["student"] = {"kind": "thinned", **SMALL["thinned"], "share": [1, 1], "hidden": hidden}
    return Recipe.model_validate(data)


def test_teacher_s_layers_with_fewer_hidden_channels(recipe_data: Make, photos: Path, tmp_path: Path) -> None:
    recipe = _lite(recipe_data, [20, 30])
    assert train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None)["finished"]
    weights = Run(tmp_path / "run").weights()
    assert weights["squeeze.stem.blocks.0.0.conv_dw.weight"].shape == (20, 1, 3, 3)
    assert weights["squeeze.stem.blocks.1.0.conv_pwl.weight"].shape == (24, 30, 1, 1)
    export(tmp_path / "run", tmp_path / "bundle", golden=lambda _: b"")
    facts = open_bundle(tmp_path / "bundle").manifest.encoder
    whole = build_student(_lite(recipe_data, [32, 96]), build_teacher(recipe)).squeeze
    assert facts["parameters"] < sum(one.numel() for one in whole.parameters())
    with pytest.raises(RecipeError, match=r"student\.hidden: 33 hidden channels at blocks\.0\.0\.conv_dw; it has 32"):
        build_student(_lite(recipe_data, [33, 96]), build_teacher(recipe))


def test_teacher_s_layers_with_fewer_channels_between_blocks(recipe_data: Make, photos: Path, tmp_path: Path) -> None:
    data = _lite(recipe_data, [20]).model_dump(mode="json")
    data["student"].update(until="blocks.1.0.bn2", between=[10], widths=[], halvings=0)
    recipe = Recipe.model_validate(data)
    assert train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None)["finished"]
    weights = Run(tmp_path / "run").weights()
    assert weights["squeeze.stem.blocks.0.0.conv_pw.weight"].shape == (10, 20, 1, 1)
    assert weights["squeeze.stem.blocks.1.0.conv_pw.weight"].shape == (96, 10, 1, 1)
    assert sorted(name for name in weights if name.startswith("squeeze.squeeze")) == [
        "squeeze.squeeze.layers.0.bias",
        "squeeze.squeeze.layers.0.weight",
    ]
    export(tmp_path / "run", tmp_path / "bundle", golden=lambda _: b"")
    bundle = open_bundle(tmp_path / "bundle")
    assert "20 hidden channels and 10 between blocks" in bundle.read("MODEL_CARD.md").decode()
    data["student"]["between"] = [10, 10]
    with pytest.raises(RecipeError, match=r"student\.between: 2 counts of channels between blocks; these .* have 1"):
        build_student(Recipe.model_validate(data), build_teacher(recipe))


def test_an_encoder_of_its_own(recipe_data: Make, photos: Path, tmp_path: Path) -> None:
    data = recipe_data()
    data["student"] = {"kind": "patch", "patches": yaml.safe_load(PATCHES), **SMALL["patch"]}
    recipe = Recipe.model_validate(data)
    bundle = _bundle(recipe, photos, tmp_path)
    assert bundle.manifest.stride == 8
    assert replay(bundle, threads=1).answers
    _answers(bundle, draw((64, 64), 2))
    assert "convolutions of its own" in bundle.read("MODEL_CARD.md").decode()
    assert bundle.manifest.encoder["macs"] == 256 * 8 * 75 + 64 * (8 * 12 * 9 + 2 * 12 * 12 * 9 + 12 * 12 * 9 + 12 * 6)


@pytest.mark.parametrize(
    ("changes", "stride", "says"),
    [
        ({}, 8, None),
        ({"halvings": 1, "blocks": 0}, 16, None),
        ({"halvings": 1, "patches": [{"width": 8, "kernel": 6, "stride": 6}]}, 0, "student.patches: .* be 12, .* is 4"),
        ({"patches": [{"width": 8, "kernel": 2, "stride": 2}]}, 0, "student.patches: .* be 2, the cut's is 4"),
    ],
)
def test_strides_of_an_encoder_of_its_own(
    changes: dict[str, Any], stride: int, says: str | None, recipe_data: Make
) -> None:
    data = recipe_data()
    data["student"] = {"kind": "patch", "patches": yaml.safe_load(PATCHES), **SMALL["patch"], **changes}
    recipe = Recipe.model_validate(data)
    assert isinstance(recipe.student, PatchRecipe)
    teacher = build_teacher(recipe)
    if says is not None:
        with pytest.raises(RecipeError, match=says):
            build_student(recipe, teacher)
        return
    assert latent_stride(recipe, teacher) == recipe.student.stride == stride
    image = torch.zeros(2, 3, 64, 64)
    out = build_student(recipe, teacher)(teacher.stem(image))
    assert out.feature_bchw.shape == teacher.head(image).shape


def test_an_image_codec_goes_through_packets_into_the_whole_network(
    recipe_data: Make, photos: Path, tmp_path: Path
) -> None:
    """Of two rates, the second begun from the first: pictures of 8 bits come back, and the teacher reads them."""
    data = recipe_data()
    data["teacher"].update(mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25])
    data.update(student={"kind": "image", **SMALL["image"]}, stage2=None)
    stage = {"kind": "pixels", "images": 160, "batch": 4, "learning_rate": 3e-3, "quantise": "noise", "gain_rate": 0.0}
    errors, sizes, start = [], [], None
    for beta in (1e-5, 300.0):
        levels = {"betas": [beta], "default": 0, "first_gain": 1.0, "last_gain": 1.0}
        changes = {"name": f"image-{beta:g}", "levels": levels, "stage1": {**stage, "rate_ramp": 0.0}, "start": start}
        recipe = Recipe.model_validate({**data, **changes})
        bundle = _bundle(recipe, photos, tmp_path / f"{beta:g}")
        start = str(tmp_path / f"{beta:g}" / "run")
        assert replay(bundle, threads=1).answers
        picture = draw((64, 64), 3)
        (size,) = _answers(bundle, picture)
        device, edge = Device(bundle, threads=1), Edge(bundle, threads=1)
        seen = Graph(bundle.graph("head"), name="head", threads=1)(device.crop(picture))
        coded = device.symbols(picture)
        decoder = Graph(bundle.graph("decoder"), name="decoder", threads=1)
        found = decoder(bundle.tables[0].dequantise(coded, 0)[None])
        assert found.shape == seen.shape == (1, 3, 64, 64)
        step, offset = (np.array(one).reshape(1, 3, 1, 1) for one in recipe.teacher.colours())
        pixels = (found - offset) / step
        np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-2)
        assert pixels.min() >= -0.01
        assert pixels.max() <= 255.01
        np.testing.assert_allclose(
            (seen - offset)[0].transpose(1, 2, 0) / step[0].T[0], device.crop(picture)[0], atol=1e-2
        )
        errors.append(float(np.square(pixels - (seen - offset) / step).mean()))
        sizes.append(size)
        assert edge.picture_answer(device.crop(picture))["level"] == -1
    report = bundle.manifest.provenance["report"]
    assert (report["images"], report["images_cumulative"]) == (160, 320)
    assert errors[0] < 4000  # random colours would be some 10,000 off
    assert sizes[1] < sizes[0]


def test_pixels_need_a_student_that_reproduces_them(recipe_data: Make) -> None:
    data = recipe_data()
    data["stage1"] = {"kind": "pixels", "images": 8, "batch": 4, "learning_rate": 1e-3}
    with pytest.raises(ValueError, match="needs one that reproduces the picture"):
        Recipe.model_validate(data)
    data["student"] = {"kind": "hyperprior"}
    with pytest.raises(ValueError, match="hyperprior has one level"):
        Recipe.model_validate(data)


def test_colours_of_their_own_reach_an_encoder_of_its_own(recipe_data: Make) -> None:
    data = recipe_data()
    plain = build_teacher(Recipe.model_validate(data))
    data["student"] = {"kind": "paper"}
    data["levels"] = {"betas": [1.0], "default": 0}
    data["teacher"].update(mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.1])
    teacher = build_teacher(Recipe.model_validate(data))
    image = torch.rand(1, 3, 64, 64)
    scaled = (image - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.1]).view(3, 1, 1)
    torch.testing.assert_close(teacher.stem(image), scaled)
    torch.testing.assert_close(teacher.head(image), plain.head(scaled))
    assert (teacher.stem_width, teacher.stem_stride) == (3, 1)


def test_published_strides_must_be_the_cut_s(recipe_data: Make) -> None:
    data = recipe_data()
    data["student"], data["levels"] = {"kind": "reduced", "channels": 2}, {"betas": [1.0], "default": 0}
    recipe = Recipe.model_validate(data)
    with pytest.raises(RecipeError, match="the latent's stride would be 8, the cut's is 4; expected that very stride"):
        build_student(recipe, build_teacher(recipe))


def test_flat_tables_cost_8_bits_a_symbol(recipe_data: Make, photos: Path, tmp_path: Path) -> None:
    recipe = _small(read_recipe(ALL["rivals/reduced"], changes=("student.flat=true",)), recipe_data)
    bundle = _bundle(recipe, photos, tmp_path)
    (size,) = _answers(bundle, draw((64, 64), 2))
    symbols = recipe.student.channels * 9 * 9
    assert size == pytest.approx(symbols + 12, abs=8)


@pytest.mark.parametrize("name", ["rivals/end_to_end", "rivals/reduced"])
def test_a_rival_s_run_resumes_exactly(name: str, recipe_data: Make, photos: Path, tmp_path: Path) -> None:
    recipe = _small(read_recipe(ALL[name]), recipe_data)
    train(recipe, photos=[photos], out=tmp_path / "whole", report=lambda _: None)
    for _ in range(2 * len(recipe.stages())):
        train(recipe, photos=[photos], out=tmp_path / "parts", report=lambda _: None, stop_after_s=0.0)
    whole, parts = Run(tmp_path / "whole").weights(), Run(tmp_path / "parts").weights()
    assert Run(tmp_path / "parts").report()["finished"]
    assert whole.keys() == parts.keys()
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []


def _trained(recipe: Recipe, photos: Path, out: Path) -> set[str]:
    """Return which parts of the student stage 2 changed."""
    train(recipe.model_copy(update={"stage2": None}), photos=[photos], out=out / "one", report=lambda _: None)
    train(recipe, photos=[photos], out=out / "two", report=lambda _: None)
    one, two = Run(out / "one").weights(), Run(out / "two").weights()
    return {name.split(".")[0] for name in two if name not in one or not torch.equal(one[name], two[name])}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, {"decoder"}),
        ({"tune": "all"}, {"decoder", "squeeze", "bottleneck"}),
        ({"tune": "encoder"}, {"squeeze", "bottleneck"}),
        ({"tail": True}, {"decoder", "tail"}),
        ({"kind": "answers", "tail": True, "quantise": "round"}, {"decoder", "tail"}),
    ],
    ids=["decoder", "all", "encoder", "tail", "answers"],
)
def test_stage_2_tunes_what_it_is_told(
    changes: dict[str, Any], parts: set[str], recipe_data: Make, photos: Path, tmp_path: Path
) -> None:
    data = recipe_data()
    data["stage2"].update(changes)
    assert _trained(Recipe.model_validate(data), photos, tmp_path) == parts


def test_gains_that_do_not_learn_stay(recipe_data: Make, photos: Path, tmp_path: Path) -> None:
    recipe = _small(read_recipe(ALL["paper/resnet50"]), recipe_data)
    train(recipe, photos=[photos], out=tmp_path, report=lambda _: None)
    weights = Run(tmp_path).weights()
    assert (weights["bottleneck.log_gain_lc"] == 0).all()
    fresh = build_student(recipe, build_teacher(recipe)).state_dict()
    assert not torch.equal(weights["tail." + _first_tail(fresh)], fresh["tail." + _first_tail(fresh)])


def _first_tail(state: dict[str, torch.Tensor]) -> str:
    return next(name.removeprefix("tail.") for name in state if name.startswith("tail."))


def test_the_tail_in_the_bundle_is_the_tuned_one(recipe_data: Make, photos: Path, tmp_path: Path) -> None:
    data = recipe_data()
    data["stage2"] = {"kind": "answers", "images": 8, "batch": 4, "learning_rate": 0.05, "tail": True}
    recipe = Recipe.model_validate(data)
    bundle = _bundle(recipe, photos, tmp_path)
    teacher = build_teacher(recipe)
    student = build_student(recipe, teacher)
    student.load_state_dict(Run(tmp_path / "run").weights())
    edge = Edge(bundle, threads=1)
    device = Device(bundle, threads=1)
    picture = draw((70, 70), 5)
    symbols = torch.from_numpy(device.symbols(picture)).float()[None]
    level = bundle.manifest.default_level
    assert student.tail is not None
    with torch.no_grad():
        feature = student.eval().reproduce(symbols, level)
        own, theirs = (tail(feature)[0].softmax(1)[0].numpy() for tail in (student.tail, teacher.tail))
    top = edge.answer(device.encode(picture), top=10)["answers"]["classify"]
    found = np.zeros(10)
    found[[guess["index"] for guess in top]] = [guess["p"] for guess in top]
    np.testing.assert_allclose(found, own, atol=2e-3)
    assert np.abs(found - theirs).max() > 1e-2
    assert "The tail was tuned as well" in bundle.read("MODEL_CARD.md").decode()


def test_labelled_photographs_are_counted(recipe_data: Make, photos: Path, tmp_path: Path) -> None:
    labelled = tmp_path / "photos"
    for number, path in enumerate(sorted(photos.glob("*.png"))):
        folder = labelled / ("kind 3" if number % 2 else "unsorted")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    data = recipe_data()
    data["stage1"].update(kind="answers")
    del data["stage1"]["tail_from"]
    data["data"]["holdout"] = 0
    told: list[Progress] = []
    final = train(Recipe.model_validate(data), photos=[labelled], out=tmp_path / "run", report=told.append)
    assert final["labelled"] == final["photographs"] // 2
    assert not [one for one in told if one.stage == "photographs"]
    train(Recipe.model_validate(data), photos=[photos], out=tmp_path / "none", report=told.append)
    (said,) = (one.message for one in told if one.stage == "photographs")
    assert said.startswith("none lies in a folder named like a class")
    assert "labelled" not in train(
        Recipe.model_validate(recipe_data()), photos=[labelled], out=tmp_path / "other", report=lambda _: None
    )


def test_a_folder_whose_name_two_classes_have_is_no_label(recipe_data: Make, tmp_path: Path) -> None:
    """All its pictures were of the second one, without a word."""
    names = tmp_path / "names.txt"
    names.write_text("crane\nhouse\ncrane\n", encoding="utf-8")
    data = recipe_data()
    data["teacher"]["classes"] = str(names)
    data["stage1"] = {"kind": "answers", "images": 4, "batch": 4, "learning_rate": 1e-3}
    recipe = Recipe.model_validate(data)
    with pytest.raises(RecipeError, match=r"teacher\.classes: two classes are called crane"):
        labels_for(recipe, [Path("crane/1.jpg")])
    assert labels_for(recipe, [Path("house/1.jpg"), Path("other/2.jpg")]) == [1, -1]


def test_imagenet_s_folders_are_labels(tmp_path: Path) -> None:
    """As `recipes/paper` needs it: no file of classes, one folder for each wnid."""
    paths = [tmp_path / folder / "a.jpg" for folder in ("n01440764", "n15075141", "photos")]
    assert labels_for(read_recipe(ALL["paper/resnet50"]), paths) == [0, 999, -1]
    assert labels_for(read_recipe(ALL[LARGE]), paths) is None


def test_stems_of_the_teacher_stay_the_default(recipe: Recipe) -> None:
    assert isinstance(recipe.student, SqueezeRecipe)
    teacher = load_teacher("test_efficientnet", weights="random", cut="blocks.1", stem="bn1", classes=10, crop=64)
    assert build_student(recipe, teacher).tail is None
