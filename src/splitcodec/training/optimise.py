"""How a stage learns: which parameters, by which optimiser, at which rate; and the random state that a resume needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from splitcodec.errors import RunError
from splitcodec.model.student import Student
from splitcodec.training.losses import schedule, steps
from splitcodec.training.muon import Muon
from splitcodec.training.stages import AdamRecipe, CosineRecipe, LatentsStage, MuonRecipe, SgdRecipe, Stage, StepsRecipe


def prepare(student: Student, stage: Stage, *, everything: bool) -> torch.optim.Optimizer:
    """Freeze and thaw the student's parts for a stage and return its optimiser."""
    encoder_alone = isinstance(stage, LatentsStage)
    learning = {
        student.squeeze: everything or encoder_alone,
        student.bottleneck: everything and not encoder_alone,
        student.decoder: not encoder_alone and stage.tune != "encoder",
    }
    for part, learns in learning.items():
        part.requires_grad_(learns).train(learns)
    if student.tail is not None:
        student.tail.requires_grad_(stage.tail).train(stage.tail)
    groups = _groups(student, stage, everything=everything)
    match stage.optimizer:
        case AdamRecipe() as adam:
            return torch.optim.Adam(groups, lr=stage.learning_rate, betas=adam.betas, weight_decay=adam.weight_decay)
        case MuonRecipe() as muon:
            return Muon(groups, lr=stage.learning_rate, momentum=muon.momentum, betas=muon.betas)
        case SgdRecipe() as sgd:
            return torch.optim.SGD(groups, lr=stage.learning_rate, momentum=sgd.momentum, weight_decay=sgd.weight_decay)


def learning_rate(stage: Stage, done: float) -> float:
    """Return the share of the learning rate that holds after a share `done` of the stage."""
    match stage.schedule:
        case CosineRecipe():
            return schedule(done, stage.warmup)
        case StepsRecipe() as falling:
            return steps(done, stage.warmup, at=falling.at, factor=falling.factor)


def _groups(student: Student, stage: Stage, *, everything: bool) -> list[dict[str, Any]]:
    if isinstance(stage, LatentsStage):
        return [_group(student.squeeze.parameters(), 1.0)]
    groups = [] if stage.tune == "encoder" else [_group(student.decoder.parameters(), 1.0)]
    if everything:
        groups += [
            _group([*student.squeeze.parameters(), *student.bottleneck.layer_parameters()], 1.0),
            _group(student.bottleneck.prior_parameters(), stage.prior_rate),
            _group(student.bottleneck.gain_parameters(), stage.gain_rate),
        ]
    if student.tail is not None and stage.tail:
        groups.append(_group(student.tail.parameters(), 1.0))
    return [group for group in groups if group["params"]]


def _group(parameters: Any, times: float) -> dict[str, Any]:
    return {"params": list[nn.Parameter](parameters), "times": times}


def check_finite(student: Student, *, stage: str, step: int) -> None:
    """Raise RunError where weights are no numbers any more: nothing brings them back, no checkpoint may hold them."""
    if not all(bool(one.isfinite().all()) for one in student.state_dict().values() if one.is_floating_point()):
        raise RunError(
            f"{stage}: the student's weights are no numbers any more at step {step}; lower {stage}.learning_rate, or "
            "look for a key that makes the loss infinite, and begin again in another --out"
        )


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of the random number generators that training draws from."""
    on_gpu = {"device_random": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"random": torch.get_rng_state(), **on_gpu}


def set_random_state(kept: dict[str, Any], device: torch.device) -> None:
    """Go on where `random_state` was taken."""
    torch.set_rng_state(kept["random"])
    if device.type == "cuda" and "device_random" in kept:
        torch.cuda.set_rng_state(kept["device_random"], device)
