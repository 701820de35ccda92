"""How a task's stages learn: what is thawed, optimizer, learning rate, running means of the weights.

used by: task_train.py
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from splitcodec.training.losses import schedule, steps
from splitcodec.training.stages import AdamRecipe, StepsRecipe
from splitcodec.training.task_recipe import HeadStage


def thaw(learning: dict[str, nn.Module], *, frozen: dict[str, nn.Module]) -> None:
    """Let what learns learn (heads in training mode) and hold the rest."""
    for name, part in learning.items():
        part.requires_grad_(requires_grad=True).train(name in ("teacher", "head"))
    for part in frozen.values():
        part.requires_grad_(requires_grad=False).eval()


@torch.no_grad()
def average(averaged: dict[str, nn.Module], learning: dict[str, nn.Module], *, share: float) -> None:
    """Move running means towards the weights that learn: `share` of the old stays."""
    for name, part in averaged.items():
        new = learning[name].state_dict()
        for key, value in part.state_dict().items():
            if value.is_floating_point():
                value.lerp_(new[key], 1 - share)
            else:
                value.copy_(new[key])


def share_kept(average: float, step: int) -> float:
    """Return how much of the old mean stays: less at first, so that the beginning is forgotten."""
    return min(average, (1 + step) / (10 + step)) if average else 0.0


def optimizer_of(stage: HeadStage, learning: dict[str, nn.Module]) -> torch.optim.Optimizer:
    """Return the stage's optimizer; weight decay is for kernels alone."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in _parameters(learning):
        (decayed if parameter.ndim > 1 else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": stage.optimizer.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if isinstance(stage.optimizer, AdamRecipe):
        return torch.optim.AdamW(groups, lr=stage.learning_rate, betas=stage.optimizer.betas)
    return torch.optim.SGD(groups, lr=stage.learning_rate, momentum=stage.optimizer.momentum)


def _parameters(learning: dict[str, nn.Module]) -> Iterator[nn.Parameter]:
    for part in learning.values():
        yield from part.parameters()


def rate_at(stage: HeadStage, done: float) -> float:
    """Return the learning rate as a share of its peak when a share of the stage is done."""
    if isinstance(stage.schedule, StepsRecipe):
        return steps(done, stage.warmup, at=stage.schedule.at, factor=stage.schedule.factor)
    return schedule(done, stage.warmup)
