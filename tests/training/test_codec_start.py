"""Learned image codecs that begin as block transforms, and from one another at other quantiser's steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from splitcodec.errors import RecipeError
from splitcodec.training.distill import train
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run

Make = Callable[[], dict[str, Any]]
STILL = {"kind": "pixels", "images": 4, "batch": 4, "learning_rate": 1e-12, "quantise": "noise", "gain_rate": 0.0}


def _recipe(data: dict[str, Any], *, kind: str, step: float | None, start: Path | None = None) -> Recipe:
    gains = {"first_gain": 1.0, "last_gain": 1.0} if kind == "image" else {}
    return Recipe.model_validate(
        {
            **data,
            "name": f"{kind}-{step or 0:g}",
            "student": {"kind": kind, "width": 16, "channels": 12, "step": step},
            "levels": {"betas": [1e-3], "default": 0, **gains},
            "stage1": STILL,
            "stage2": None,
            "start": None if start is None else str(start),
        }
    )


@pytest.mark.parametrize("kind", ["image", "hyperprior"])
def test_a_codec_begins_as_block_transforms_and_passes_them_on(
    kind: str, recipe_data: Make, photos: Path, tmp_path: Path
) -> None:
    """Colours with scales of their own; half the symbols at twice the step, the same picture from them."""
    data = recipe_data()
    data["teacher"].update(mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25])
    lost, weights = [], []
    for name, step, start in (("first", 8.0, None), ("coarse", 16.0, "first"), ("same", None, "first")):
        recipe = _recipe(data, kind=kind, step=step, start=None if start is None else tmp_path / start)
        report = train(recipe, photos=[photos], out=tmp_path / name, report=lambda _: None)
        lost.append(report["validation"][0]["parts"]["pixels"])
        weights.append(Run(tmp_path / name).weights())
    assert lost[0] < 400, "block transforms lose little"
    assert lost[1] == pytest.approx(lost[0], rel=0.2)
    first, coarse, same = weights
    torch.testing.assert_close(coarse["squeeze.layers.6.weight"] * 2, first["squeeze.layers.6.weight"])
    torch.testing.assert_close(same["squeeze.layers.6.weight"], first["squeeze.layers.6.weight"])


def test_a_step_that_nothing_can_be_brought_to_is_refused(recipe_data: Make, photos: Path, tmp_path: Path) -> None:
    """The codec kept its start's quantiser and said nothing of the step that its recipe asked for."""
    train(_recipe(recipe_data(), kind="image", step=None), photos=[photos], out=tmp_path / "first", report=print)
    coarse = _recipe(recipe_data(), kind="image", step=16.0, start=tmp_path / "first")
    with pytest.raises(RecipeError, match=r"student\.step: .*first says none that could be brought to another"):
        train(coarse, photos=[photos], out=tmp_path / "coarse", report=print)
