"""What light, lens and sensor do to pictures: the student learns to undo it, held against the teacher on clean ones."""

from __future__ import annotations

from math import ceil
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

MOST_NOISE: Final = 0.25
"""Largest standard deviation, as a share of full scale."""
MOST_BLUR: Final = 5.0
"""Largest standard deviation of a Gaussian, in pixels."""
LEAST_CONTRAST: Final = 0.1
DARKER: Final = -0.4
BRIGHTER: Final = 0.5
"""Least and most that is added to the value (of hue, saturation and value)."""


def disturbed(image_u8: Tensor, share: float) -> Tensor:
    """Return pictures, uint8 (B, 3, H, W), a share of them disturbed, each in one way and by a strength of its own.

    Two in five of those get noise, of the sensor or of the light's photons or both; the others, in equal parts, are
    blurred, lose contrast, or are lit too much or too little.
    """
    seen_u8 = image_u8.clone()
    ways = (_noisy, _noisy, _blurred, _flat, _lit)
    for index in torch.nonzero(torch.rand(len(image_u8)) < share).flatten().tolist():
        way = ways[int(torch.randint(len(ways), ()))]
        unit_chw = way(image_u8[index] / 255, float(torch.rand(())))
        seen_u8[index] = (255 * unit_chw).round_().clamp_(0, 255).to(torch.uint8)
    return seen_u8


def _noisy(unit_chw: Tensor, strength: float) -> Tensor:
    """Add noise whose variance is even, or in proportion to the light, or something between."""
    by_light = torch.rand(())
    spread = (1 - by_light + by_light * 2 * unit_chw).sqrt_()
    return unit_chw + MOST_NOISE * strength * spread * torch.randn_like(unit_chw)


def _blurred(unit_chw: Tensor, strength: float) -> Tensor:
    sigma = max(MOST_BLUR * strength, 0.1)
    reach = min(ceil(3 * sigma), min(unit_chw.shape[1:]) - 1)  # of the mirrored margin
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=unit_chw.device) / sigma) ** 2)
    kernel = (weights / weights.sum()).view(1, 1, -1, 1)
    wide = functional.pad(unit_chw[:, None], [reach] * 4, mode="reflect")
    return functional.conv2d(functional.conv2d(wide, kernel), kernel.transpose(2, 3))[:, 0]


def _flat(unit_chw: Tensor, strength: float) -> Tensor:
    mean_c11 = unit_chw.mean((1, 2), keepdim=True)
    return mean_c11 + (1 - (1 - LEAST_CONTRAST) * strength) * (unit_chw - mean_c11)


def _lit(unit_chw: Tensor, strength: float) -> Tensor:
    value_1hw = unit_chw.amax(0, keepdim=True)
    more = DARKER + (BRIGHTER - DARKER) * strength
    return unit_chw * ((value_1hw + more).clamp_(0, 1) / value_1hw.clamp_min(1 / 255))
