"""What a stage minimises, by its kind: errors of what is reproduced, and the rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, final

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from splitcodec.errors import RunError
from splitcodec.model.parts import Quantise
from splitcodec.model.student import Reproduced
from splitcodec.training.build import Halves
from splitcodec.training.disturb import disturbed
from splitcodec.training.earlier import begins_with_tail
from splitcodec.training.lead import Lead
from splitcodec.training.losses import answers, as_tuple, compare, ramp, squares
from splitcodec.training.recipe import Recipe
from splitcodec.training.stages import (
    AnswersStage,
    Distilling,
    DistillStage,
    LatentsStage,
    PixelsStage,
    SquaresStage,
    Stage,
)


class Distortion(NamedTuple):
    """What a batch loses: the weighted sum, and its parts by name before weights."""

    total: Tensor
    parts: dict[str, Tensor]


class Lost(NamedTuple):
    """What a batch loses: what is minimised, its parts before weights, and each level's code length (or none)."""

    loss: Tensor
    parts: dict[str, Tensor]
    kilobytes_l: Tensor


class Loss(Protocol):
    """Pixels uint8 (B, 3, H, W), labels (B,), share of the stage done -> what that loses.

    `rounded`: with symbols rounded as in use, whatever the stage trains with, hence without chance.
    """

    def __call__(self, image_u8: Tensor, label_b: Tensor, *, done: float, rounded: bool = False) -> Lost:
        """Return what a batch loses."""


def distortion(
    stage: Distilling,
    reproduced: Reproduced,
    feature: Tensor,
    *,
    tail: nn.Module,
    label_b: Tensor,
    weight_b: Tensor,
    done: float,
    step_c: Sequence[float] = (1.0, 1.0, 1.0),
) -> Distortion:
    """Hold a decoded feature (and its answer by the student's own tail, if any) against the teacher's.

    `tail` is the teacher's; `weight_b` what each picture counts (the weight of its level); `done` the share of the
    stage behind us; `step_c` what one 8-bit step of a colour is in what the teacher takes.
    """
    found, answer = reproduced.feature_bchw, reproduced.answer
    match stage:
        case DistillStage():
            errors = compare(tail, found, feature, behind=done >= stage.tail_from, answer=answer)
            lost_b = stage.feature * errors.feature_b + stage.later * errors.later_b + stage.logits * errors.logits_b
            parts = {"feature": errors.feature_b, "later": errors.later_b, "logits": errors.logits_b}
        case SquaresStage():
            lost_b = squares(tail, found, feature, answer=answer)
            parts = {"squares": lost_b}
        case AnswersStage():
            with torch.no_grad():
                logits_t = as_tuple(tail(feature))[0]
            logits = (as_tuple(tail(found)) if answer is None else answer)[0]
            hard, soft = answers(logits, logits_t, label_b, temperature=stage.temperature)
            lost_b = stage.hard * hard + stage.soft * soft
            parts = {"hard": hard, "soft": soft}
        case PixelsStage():
            steps = torch.tensor(step_c, device=found.device).view(1, -1, 1, 1)
            lost_b = ((found.float() - feature.float()) / steps).square().flatten(1).mean(1)
            parts = {"pixels": lost_b}
    return Distortion((weight_b * lost_b).mean(), {name: value_b.mean() for name, value_b in parts.items()})


def _windows(stage: Distilling, *, crop: int) -> float:
    """Return how many windows a crop's area is: prices are of whole pictures, and mean errors do not tell them apart.

    Sums over a window's places are as much smaller as its rate; a window that is classified is a picture of its own.
    """
    mean = isinstance(stage, DistillStage | PixelsStage)
    return (crop / stage.window) ** 2 if mean and stage.window is not None else 1.0


@final
class Objective:
    """What the stages of a recipe minimise."""

    def __init__(self, fabric: Fabric, recipe: Recipe, *, halves: Halves, lead: Lead | None) -> None:
        self._fabric, self._recipe, self._halves, self._lead = fabric, recipe, halves, lead
        self._prices = torch.tensor(recipe.levels.prices, device=fabric.device)

    def of(self, name: str, stage: Stage, model: nn.Module) -> Loss:
        """Return what `model`, the student (its encoder in a stage of kind latents), loses in a stage of that name."""
        return self._latents(model) if isinstance(stage, LatentsStage) else self._distil(name, stage, model)

    def _distil(self, name: str, stage: Distilling, model: nn.Module) -> Loss:
        """Return what a batch loses through bottleneck, decoder and tail."""
        fabric, halves, levels = self._fabric, self._halves, self._recipe.levels.count
        first = name == "stage1"
        tuned = any(one.tail for before, one in self._recipe.stages() if before <= name)
        own_tail = tuned or begins_with_tail(self._recipe)  # no longer the teacher's
        everything = stage.tune in ("all", "encoder") or (stage.tune is None and first)
        priced = everything and self._recipe.student.kind != "reduced"  # whose symbols cost 8 bits each, come what may
        step_c, _ = self._recipe.teacher.colours()
        windows = _windows(stage, crop=self._recipe.teacher.crop)
        weights = torch.tensor(self._recipe.levels.weights(stage.balance), device=fabric.device)
        trained_with: Quantise = stage.quantise or ("mixed" if everything else "round")

        def lose(image_u8: Tensor, label_b: Tensor, *, done: float, rounded: bool = False) -> Lost:
            seen_u8 = self._seen(image_u8, rounded=rounded)
            with torch.no_grad(), fabric.autocast():
                stem = halves.stem(halves.scale(image_u8))
                feature = halves.rest(stem)
                if seen_u8 is not image_u8:
                    stem = halves.stem(halves.scale(seen_u8))
            reproduced = model(stem, quantise="round" if rounded else trained_with, answer=own_tail)
            labels = label_b.to(fabric.device)
            weight_b = weights.repeat_interleave(len(image_u8) // levels)
            with fabric.autocast():
                lost = distortion(
                    stage,
                    reproduced,
                    feature,
                    tail=halves.tail,
                    label_b=labels,
                    weight_b=weight_b,
                    done=done,
                    step_c=step_c,
                )
            kilobytes_l = reproduced.bits_b.view(levels, -1).mean(1) / 8000
            share = ramp(done, stage.rate_ramp) if first else 1.0
            rate = share * windows * (weights * self._prices * kilobytes_l).mean()
            total = lost.total + rate if priced else lost.total
            if reproduced.answer is not None and fabric.world_size > 1:  # each waits for all gradients, if of nothing
                total = total + 0.0 * torch.stack([one.float().sum() for one in reproduced.answer]).sum()
            return Lost(total, lost.parts, kilobytes_l)

        return lose

    def _seen(self, image_u8: Tensor, *, rounded: bool) -> Tensor:
        """Return what the student sees of pictures: disturbed as the recipe says, but where it is judged."""
        share = self._recipe.data.disturbed
        return disturbed(image_u8, share) if share and not rounded else image_u8

    def _latents(self, model: nn.Module) -> Loss:
        """Return how far the latent is from that of the run that leads."""
        lead, fabric, halves = self._lead, self._fabric, self._halves
        if lead is None:
            raise RunError("a stage of kind latents needs a run to learn from; give `lead` in the recipe")

        def lose(image_u8: Tensor, label_b: Tensor, *, done: float, rounded: bool = False) -> Lost:
            seen_u8 = self._seen(image_u8, rounded=rounded)
            with torch.no_grad(), fabric.autocast():
                stem = halves.stem(halves.scale(seen_u8))
                wanted = lead.latent(image_u8)
            apart = lead.apart(model(stem), wanted)
            return Lost(apart, {"latent": apart.detach()}, torch.zeros(0))

        return lose
