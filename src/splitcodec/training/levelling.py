"""Whether a run has trained long enough to be judged by: the loss on held-out photographs, and when it is level.

A loss looks level at the end of every run whose learning rate falls to nothing, so its last stretch says nothing. What
counts is what a doubling of the pictures seen still brings. Of the last doubling within a stage, from its middle to its
end, the fall of the loss is an upper bound: in the middle the learning rate was still high, and a run that ended there,
with a schedule of its own, would have come lower. Returns diminish, so the next doubling brings less than the last. A
run that began from a finished one gives a second bound: the fall since its first step, for there the learning rate had
already come down once. The smaller of the two counts.

A rise is no bound. A loss that ends more than a per cent above the lowest reading of its stage is not level: the run
has harmed its student, or has not come back from a learning rate that was too high. And a bound below minus one per
cent is left out: that a run ends above where it began says nothing of what the next doubling would bring. Less than
that is noise, a few tenths of a per cent between neighbouring readings.

Where this fails: a learning rate too low to move anything looks level from the start, and a loss that stands still for
long may fall again later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from splitcodec.model.student import Student
from splitcodec.training.data import Crops
from splitcodec.training.objective import Loss

TIMES: Final = 16
"""How often a stage is measured, beside its beginning."""
MOST: Final = 256
"""Crops that are measured on."""
LIMIT: Final = 1.0
"""Per cent of the loss that a doubling of the pictures seen may still bring, and that it may end above its lowest."""

Reading = dict[str, Any]
"""Of one measurement: `stage`, `share` of it that was done, `images` seen by then, `loss` and its `parts`."""


class Held(NamedTuple):
    """What held-out crops lose: a stage's objective, and its parts before weights (see `objective.Lost`).

    The parts tell what a falling loss owes its fall to: features may come nearer while answers do not.
    """

    loss: float
    parts: dict[str, float]


@torch.no_grad()
def held_out_loss(student: Student, lose: Loss, held: Crops, *, batch: int, window: int | None = None) -> Held | None:
    """Return a stage's own objective, the whole of it at full price, on held-out crops; None where there are none.

    A stage that learns from windows is measured on windows, the middles of the crops.
    Symbols are rounded, as in use, so nothing is left to chance. The crops are dealt out to the levels in turn.
    """
    count, levels = min(MOST, len(held.image_u8)), student.bottleneck.levels
    if not count:
        return None
    images = _middle(held.image_u8, window)
    index = torch.arange(math.ceil(count / levels) * levels) % count
    modes = [(part, part.training) for part in student.modules()]
    student.eval()
    total, parts = 0.0, dict[str, float]()
    for some in torch.split(index, batch):
        lost = lose(images[some], held.label_b[some], done=1.0, rounded=True)
        total += len(some) * lost.loss.item()
        for name, value in lost.parts.items():
            parts[name] = parts.get(name, 0.0) + len(some) * value.item()
    for part, training in modes:
        part.training = training
    return Held(total / len(index), {name: value / len(index) for name, value in parts.items()})


def _middle(image_u8: Tensor, window: int | None) -> Tensor:
    """Return the middle square of crops (B, 3, H, W): the side `window`, or all of them."""
    if window is None:
        return image_u8
    top, left = ((side - window) // 2 for side in image_u8.shape[-2:])
    return image_u8[..., top : top + window, left : left + window]


def judged(readings: Sequence[Reading], *, stages: Sequence[str], before: int, photographs: int) -> dict[str, Any]:
    """Return `levelled`, true or false, and `levelling`, why: for each stage what the last doubling brought at most,
    and how far above its lowest reading it ended.

    `before` counts the pictures that earlier runs had seen from whose weights this one began. Who has seen fewer than
    the `photographs` that there are has not learned from all of them once, and is not level whatever the loss did.
    """
    of = {name: [one for one in readings if one["stage"] == name] for name in stages}
    falls = {name: _fall(some, before=before) for name, some in of.items()}
    rises = {name: _rise(some) for name, some in of.items()}
    passes = (before + (readings[-1]["images"] if readings else 0)) / max(photographs, 1)
    flat = all(found is not None and found <= LIMIT for found in (*falls.values(), *rises.values()))
    level = flat and passes >= 1
    told = {
        "passes": round(passes, 2),
        "percent_of_last_doubling": _shown(falls),
        "percent_above_lowest": _shown(rises),
    }
    return {"levelled": level, "levelling": {"limit_percent": LIMIT, **told}}


def _shown(found: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if percent is None else round(percent, 3) for name, percent in found.items()}


def _fall(readings: Sequence[Reading], *, before: int) -> float | None:
    """Return the smaller bound, in per cent of the last loss; None where too little was measured, or the loss rose."""
    if not readings or readings[-1]["share"] < 1:
        return None
    first, last = readings[0], readings[-1]
    seen = before + last["images"] - first["images"]
    middle = [one for one in readings if 0.4 < one["share"] < 0.6]
    bounds = []
    if middle:
        one = sorted(middle, key=lambda reading: float(reading["loss"]))[len(middle) // 2]
        bounds.append(_doubling(one["loss"], last["loss"], ratio=seen / (before + (seen - before) / 2)))
    if before and first["share"] == 0:
        bounds.append(_doubling(first["loss"], last["loss"], ratio=seen / before))
    return min((bound for bound in bounds if bound >= -LIMIT), default=None)


def _rise(readings: Sequence[Reading]) -> float | None:
    """Return how far the last loss lies above the lowest, in per cent of the last; None where none was measured."""
    if not readings:
        return None
    return abs(_percent(min(float(one["loss"]) for one in readings), readings[-1]["loss"]))


def _doubling(earlier: float, later: float, *, ratio: float) -> float:
    """Return the fall in per cent, for a doubling where the pictures seen grew by another ratio."""
    return _percent(earlier, later) * math.log(2) / math.log(ratio)


def _percent(earlier: float, later: float) -> float:
    return 100 * (earlier - later) / max(abs(later), 1e-12)
