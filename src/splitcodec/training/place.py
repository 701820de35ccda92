"""After training: levels moved between those that were trained, to the sizes that a recipe asks for.

Gains between two levels give the rates between them (Cui et al. 2021, interpolated in the exponent), so a level's size
can be chosen once its price has done its work. Sizes are code lengths under the symbols' own frequencies, level by
level and channel by channel, on some training photographs; a packet has 12 bytes more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.student import Student
from splitcodec.training.build import Halves
from splitcodec.wire.tabulate import gains_at, mean_bytes

PLACED_ON = 320
"""Photographs that sizes are measured on."""
_STEPS = 12  # of bisection: a 4096th of the way between the first level and the last
NEAREST = 2.0**-_STEPS
"""Share of the way within which a level that is sought ends beside the first or the last, if it lies beyond."""
_BATCH = 32


@torch.no_grad()
def place_levels(student: Student, halves: Halves, *, crops: Tensor, kilobytes: Sequence[float]) -> list[float]:
    """Move the student's levels so that crops uint8 (N, 3, H, W) cost these sizes on average, in kB.

    Returns where each level lies among the trained ones: 2.5 is half-way between 2 and 3. Sizes beyond the trained ones
    are met as well as the first or last of them does.
    """
    bottleneck = student.bottleneck
    if not isinstance(bottleneck, Bottleneck):
        raise TypeError(f"{type(bottleneck).__name__} has no gains to place")
    student.eval()
    parts = [student.latent(halves.stem(halves.scale(part))).float().cpu() for part in torch.split(crops, _BATCH)]
    latent_bcn = torch.cat(parts).flatten(2).numpy()
    log_gain_lc = bottleneck.log_gain_lc.detach().cpu().double().numpy()
    places = [_find(latent_bcn, log_gain_lc, wanted=size) for size in kilobytes]
    bottleneck.move(places)
    return places


def _find(latent_bcn: NDArray[np.float32], log_gain_lc: NDArray[np.float64], *, wanted: float) -> float:
    low, high = 0.0, float(len(log_gain_lc) - 1)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        below = mean_bytes(latent_bcn, gains_at(log_gain_lc, middle)) < 1000 * wanted
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2
