"""A tiny run that the tests of this room share: generated photographs, a teacher of random weights, ten classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
import torch.nn.functional as nnf
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file

from splitcodec.training import distill
from splitcodec.training.export import export
from splitcodec.training.recipe import Recipe, read_recipe
from splitcodec.wire.bundle import Bundle, open_bundle

COMMITTED = Path(__file__).parents[2] / "recipes"
TASK_RECIPES = tuple(
    path for path in sorted(COMMITTED.rglob("*.yaml")) if path.stem.partition("_")[0] in ("detect", "segment")
)
RECIPES = tuple(path for path in sorted(COMMITTED.rglob("*.yaml")) if path not in TASK_RECIPES)


def encoder_of(weights: dict[str, NDArray[Any]], nodes: list[onnx.NodeProto]) -> bytes:
    """Return an encoder of 4 channels: colours scaled to `bchw`, then these nodes, up to `latent_bchw`."""
    scaling = [
        helper.make_node("Cast", ["image_bhwc"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "half"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "one"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["bchw"], perm=[0, 3, 1, 2]),
    ]
    values = {**weights, "half": np.array(127.5), "one": np.array(1.0)}
    body = helper.make_graph(
        [*scaling, *nodes],
        "encoder",
        [helper.make_tensor_value_info("image_bhwc", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info("latent_bchw", TensorProto.FLOAT, ["batch", 4, "rows", "cols"])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in values.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def draw(size: tuple[int, int], seed: int) -> Image.Image:
    """Return something like a photograph: smooth colours, an edge, a little noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    array = np.asarray(coarse, np.int16) + random.integers(-12, 13, (size[1], size[0], 3))
    array[:, : size[0] // 3] += 40
    return Image.fromarray(array.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 24 photographs of several sizes, two of them in a folder below."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for n in range(24):
        picture = draw((90 + 7 * (n % 5), 110 - 9 * (n % 4)), n)
        name = folder / ("more" if n > 21 else ".") / f"{n:02}.{'png' if n % 3 else 'jpg'}"
        (picture.convert("L") if n == 5 else picture).save(name)
    return folder


@pytest.fixture(scope="session")
def recipe_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, Any]]:
    """Return a maker of the tiny recipe's keys and values; its teacher's weights and classes lie in files."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(9)
    network = timm.create_model("test_efficientnet", num_classes=10)
    with torch.no_grad():  # batch norm settles, so that features and answers are of ordinary size
        for _ in range(30):
            network.train()(nnf.interpolate(torch.randn(16, 3, 8, 8), size=64, mode="bilinear"))
    save_file(network.state_dict(), folder / "own.safetensors")
    (folder / "names.txt").write_text("".join(f"kind {n}\n" for n in range(10)), encoding="utf-8")

    def make() -> dict[str, Any]:
        return {
            "name": "tiny-run",
            "teacher": {
                "model": "test_efficientnet",
                "weights": str(folder / "own.safetensors"),
                "cut": "blocks.1",
                "later": ["blocks.3"],
                "classes": str(folder / "names.txt"),
                "resize": 72,
                "crop": 64,
            },
            "student": {
                "stem": "bn1",
                "widths": [12, 12],
                "halvings": 2,
                "channels": 6,
                "decoder": {"width": 16, "blocks": 1, "up_width": 8, "up_blocks": 1},
            },
            "levels": {"lambdas": [0.5, 0.1], "default": 1, "first_gain": 1.0, "last_gain": 4.0},
            "data": {"holdout": 2},
            "stage1": {"images": 24, "batch": 4, "learning_rate": 2e-3, "tail_from": 0.4},
            "stage2": {"images": 12, "batch": 4, "learning_rate": 1e-3},
        }

    return make


@pytest.fixture(scope="session")
def recipe(recipe_data: Callable[[], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Return the tiny recipe: two levels, 6 channels, stride 8, 6 + 3 steps."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe_data()), encoding="utf-8")
    return read_recipe(path)


@pytest.fixture(scope="session")
def finished(recipe: Recipe, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that went through without a break; leave it as it is."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    final = distill.train(recipe, photos=[photos], out=out, report=lambda _: None)
    assert final["finished"]
    return out


@pytest.fixture(scope="module")
def bundle(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the bundle of the finished run, its golden vectors left out."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny-run"
    export(finished, folder, golden=lambda _: b"none")
    return open_bundle(folder)
