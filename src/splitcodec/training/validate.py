"""How good the student is on photographs it has not seen, and which symbols it makes of those it has."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from splitcodec.model.parts import TableBottleneck
from splitcodec.model.student import Student
from splitcodec.training.build import Halves
from splitcodec.training.tabulate import count_symbols
from splitcodec.wire.packet import OVERHEAD
from splitcodec.wire.tabulate import Counts, empty_counts

_BATCH = 32
_LEAST_MASS = 1e-9


@torch.no_grad()
def validate(
    student: Student, halves: Halves, *, check: Tensor, autocast: Callable[[], AbstractContextManager[None]]
) -> list[dict[str, float]]:
    """Code held-out crops uint8 (N, 3, H, W) with rounding: agreement with the teacher, and size, per level.

    Agreement is in per cent. Sizes are estimates: code lengths under the prior, and what a packet puts around them.
    Empty where there are no crops.
    """
    if not len(check):
        return []
    student.eval()
    levels = student.bottleneck.levels
    own = halves.tail if student.tail is None else student.tail
    same, bits = torch.zeros(levels), torch.zeros(levels)
    for part in torch.split(check, _BATCH):
        with autocast():
            stem = halves.stem(halves.scale(part))
            wanted = _logits(halves.tail(halves.rest(stem))).argmax(1)
            for level in range(levels):
                feature, cost = _coded(student, stem, level=level)
                same[level] += (_logits(own(feature)).argmax(1) == wanted).sum().cpu()
                bits[level] += cost
    student.train()
    seen = len(check)
    return [
        {
            "level": level,
            "agreement": 100 * same[level].item() / seen,
            "bytes_estimate": OVERHEAD + bits[level].item() / seen / 8,
        }
        for level in range(levels)
    ]


@torch.no_grad()
def count(student: Student, halves: Halves, *, crops: Tensor) -> Counts:
    """Count the symbols of crops uint8 (N, 3, H, W), computed in float32 as the device computes them."""
    counts = empty_counts(student.tabled().levels, student.tabled().channels)
    student.eval()
    for part in torch.split(crops, _BATCH):
        stem = halves.stem(halves.scale(part))
        for level in range(len(counts)):
            count_symbols(counts, level, student.symbols(stem, level))
    return counts


def _coded(student: Student, stem_bchw: Tensor, *, level: int) -> tuple[Tensor, float]:
    """Return the feature decoded from rounded symbols, and their code length."""
    if isinstance(student.bottleneck, TableBottleneck):
        symbols = student.symbols(stem_bchw, level)
        return student.reproduce(symbols, level), bits_of(student.bottleneck, symbols, level=level)
    coded = student(stem_bchw, quantise="round")
    return coded.feature_bchw, float(coded.bits_b.sum())


def _logits(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def bits_of(bottleneck: TableBottleneck, symbols_bchw: Tensor, *, level: int) -> float:
    """Return the code length of rounded symbols (B, C, H, W) under one level's prior, bits."""
    low, high = int(symbols_bchw.min()), int(symbols_bchw.max())
    mass_cs = np.maximum(bottleneck.masses(low, high)[level], _LEAST_MASS)
    bits_cs = -torch.log2(torch.from_numpy(mass_cs))
    index = (symbols_bchw.long() - low).cpu()
    channel = torch.arange(bottleneck.channels)[None, :, None, None].expand_as(index)
    return float(bits_cs[channel, index].sum())
