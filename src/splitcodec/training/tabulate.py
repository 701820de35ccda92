"""Learned prior + symbols counted on the training photographs -> integer tables.

Each row is the posterior mean of a Dirichlet distribution centred on the learned prior: (counts + strength * prior), so
that symbols never seen keep the prior's mass and those often seen get their true frequency. The range of a row holds
every symbol counted, and all but 1e-6 of the prior's mass.
"""

from __future__ import annotations

from io import BytesIO
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitcodec.model.parts import TableNeck
from splitcodec.wire.tables import Tables, quantise_mass

REACH: Final = 2047
"""Largest symbol that is ever given a table column."""
_STRENGTH: Final = 4000.0
_TAIL_MASS: Final = 1e-6

Counts = NDArray[np.int64]
"""How often each symbol occurred: (levels, channels, 2 * REACH + 1); column `REACH` counts zeros."""


def empty_counts(levels: int, channels: int) -> Counts:
    """Return counts of nothing."""
    return np.zeros((levels, channels, 2 * REACH + 1), np.int64)


def count_symbols(counts: Counts, level: int, symbols_bchw: Tensor) -> None:
    """Add a batch of rounded symbols, in place; symbols out of reach are counted at its edge."""
    symbols = symbols_bchw.clamp(-REACH, REACH).to(torch.int64).add_(REACH).cpu().numpy()
    for channel in range(counts.shape[1]):
        counts[level, channel] += np.bincount(symbols[:, channel].ravel(), minlength=counts.shape[2])


def dump_counts(counts: Counts) -> bytes:
    """Return counts as a compressed .npz."""
    file = BytesIO()
    np.savez_compressed(file, counts_lcs=counts)
    return file.getvalue()


def load_counts(data: bytes) -> Counts:
    """Return what `dump_counts` wrote."""
    with np.load(BytesIO(data), allow_pickle=False) as file:
        return np.asarray(file["counts_lcs"], np.int64)


def build_tables(bottleneck: TableNeck, counts: Counts | None) -> Tables:
    """Return the integer tables of all levels; without counts, from the prior alone."""
    levels, channels = bottleneck.levels, bottleneck.channels
    prior = bottleneck.masses(-REACH, REACH)
    prior /= prior.sum(axis=2, keepdims=True)
    seen = empty_counts(levels, channels) if counts is None else counts
    mass = (seen + _STRENGTH * prior) / (seen.sum(axis=2, keepdims=True) + _STRENGTH)
    rows, offsets = [], []
    for level in range(levels):
        for channel in range(channels):
            low, high = _range(prior[level, channel], seen[level, channel])
            rows.append(quantise_mass(mass[level, channel, low : high + 1]))
            offsets.append(low - REACH)
    freq_ks = np.zeros((len(rows), max(map(len, rows))), np.uint32)
    for k, row in enumerate(rows):
        freq_ks[k, : len(row)] = row
    return Tables(
        freq_ks=freq_ks,
        size_k=np.array([len(row) for row in rows], np.int32),
        offset_k=np.array(offsets, np.int32),
        table_of_lxc=np.arange(levels * channels, dtype=np.int32).reshape(levels, 1, channels),
        gain_lc=bottleneck.gains(),
    )


def _range(prior: NDArray[np.float64], seen: NDArray[np.int64]) -> tuple[int, int]:
    """Return the first and last column of a row; at least -1, 0 and 1."""
    cumulative = np.cumsum(prior)
    low = min(int(np.searchsorted(cumulative, _TAIL_MASS / 2)), REACH - 1)
    high = max(int(np.searchsorted(cumulative, 1 - _TAIL_MASS / 2)), REACH + 1)
    if seen.any():
        found = np.flatnonzero(seen)
        low, high = min(int(found[0]), low), max(int(found[-1]), high)
    return max(low, 0), min(high, 2 * REACH)
