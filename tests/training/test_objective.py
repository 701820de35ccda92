"""What a stage minimises: what bytes are worth beside errors."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from splitcodec.model.student import Reproduced
from splitcodec.training.objective import Objective
from splitcodec.training.recipe import Recipe

Make = Callable[[], dict[str, Any]]
_LEVELS = 2


class _Costly(nn.Module):
    """Reproduces everything, at a bit a pixel."""

    def forward(self, image_bchw: Tensor, *, quantise: str, answer: bool) -> Reproduced:
        del quantise, answer
        return Reproduced(image_bchw, torch.full((len(image_bchw),), float(image_bchw[0, 0].numel())))


@pytest.mark.parametrize(("kind", "share"), [("distill", 1.0), ("pixels", 1.0), ("squares", 0.25)])
def test_a_window_s_bytes_count_as_its_errors_do(recipe_data: Make, kind: str, share: float) -> None:
    """A mean error does not tell how many places there were: a quarter of a picture's bytes was cheaper by that."""
    data = recipe_data()
    data["teacher"]["later"] = []
    data["stage2"] = None
    if kind == "pixels":
        data["student"] = {"kind": "image", "width": 8, "channels": 6}
    stage = {"kind": kind, "images": 8, "batch": 4, "learning_rate": 1e-3}
    whole, window = (
        Recipe.model_validate({**data, "stage1": {**stage, "window": side}})
        for side in (None, data["teacher"]["crop"] // 2)
    )
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    same: Any = SimpleNamespace(scale=Tensor.float, stem=nn.Identity(), rest=nn.Identity(), tail=pooled)
    prices = []
    for recipe in (whole, window):
        side = recipe.stage1.window or recipe.teacher.crop
        image_u8 = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
        objective = Objective(Fabric(accelerator="cpu", devices=1), recipe, halves=same, lead=None)
        lose = objective.of("stage1", recipe.stage1, _Costly())
        prices.append(lose(image_u8, torch.zeros(4, dtype=torch.int64), done=1.0).loss.item())
    assert prices[0] == pytest.approx(sum(whole.levels.prices) / _LEVELS * whole.teacher.crop**2 / 8000, rel=1e-5)
    assert prices[1] == pytest.approx(share * prices[0], rel=1e-5)


class _WrongAtLevel(nn.Module):
    """Reproduces the pictures of one level with an error of 2 everywhere, the others rightly, all for no bits."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def forward(self, image_bchw: Tensor, *, quantise: str, answer: bool) -> Reproduced:
        del quantise, answer
        wrong_b = torch.arange(len(image_bchw)) // (len(image_bchw) // _LEVELS) == self.level
        return Reproduced(image_bchw + 2.0 * wrong_b[:, None, None, None], torch.zeros(len(image_bchw)))


@pytest.mark.parametrize("level", range(_LEVELS))
def test_a_picture_counts_by_its_own_level_s_weight(recipe_data: Make, level: int) -> None:
    data = recipe_data()
    data["teacher"]["later"] = []
    stage = {"kind": "squares", "images": 8, "batch": 4, "learning_rate": 1e-3, "balance": 0.5}
    recipe = Recipe.model_validate({**data, "stage1": stage, "stage2": None})
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    same: Any = SimpleNamespace(scale=Tensor.float, stem=nn.Identity(), rest=nn.Identity(), tail=pooled)
    objective = Objective(Fabric(accelerator="cpu", devices=1), recipe, halves=same, lead=None)
    lose = objective.of("stage1", recipe.stage1, _WrongAtLevel(level))
    weights = recipe.levels.weights(recipe.stage1.balance)
    assert weights[0] != weights[1]
    lost = lose(torch.zeros(4, 3, 5, 5, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), done=1.0).loss.item()
    assert lost == pytest.approx(weights[level] * 4 * 75 / _LEVELS, rel=1e-5)
