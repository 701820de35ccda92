"""Gains and counted symbols -> the tables of some rate levels.   used by: training/tabulate.py, evaluation/levels.py

Each row is the posterior mean of a Dirichlet prior: (counts + strength * prior), so that symbols never seen keep the
prior's mass and those often seen get their true frequency. The range of a row holds every symbol counted, and all but
1e-6 of the prior's mass. Gains between two levels give the rates between them: Cui, Wang, Gao, Guo, Feng, Bai,
"Asymmetric gained deep image compression with continuous rate adaptation" (CVPR 2021), interpolated in the exponent.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splitcodec.wire.tables import Tables, quantise_mass

REACH: Final = 2047
"""Largest symbol that is ever given a table column."""
STRENGTH: Final = 4000.0
"""Symbols that a prior weighs."""
_TAIL_MASS: Final = 1e-6
_BEYOND: Final = 2  # levels that a line is drawn through beyond the last one, which may lie close together
_ALONE: Final = 0.3  # a step of a single level's gains, in the exponent

Counts = NDArray[np.int64]
"""How often each symbol occurred: (levels, channels, 2 * REACH + 1); column `REACH` counts zeros."""


def empty_counts(levels: int, channels: int) -> Counts:
    """Return counts of nothing."""
    return np.zeros((levels, channels, 2 * REACH + 1), np.int64)


def tables_of(prior_lcs: NDArray[np.float64], seen_lcs: Counts, gain_lc: NDArray[np.float32]) -> Tables:
    """Return the integer tables of levels with these gains; `prior_lcs` is shaped like counts and sums to 1 by row."""
    levels, channels = gain_lc.shape
    mass_lcs = (seen_lcs + STRENGTH * prior_lcs) / (seen_lcs.sum(axis=2, keepdims=True) + STRENGTH)
    rows, offsets = [], []
    for level in range(levels):
        for channel in range(channels):
            low, high = _range(prior_lcs[level, channel], seen_lcs[level, channel])
            rows.append(quantise_mass(mass_lcs[level, channel, low : high + 1]))
            offsets.append(low - REACH)
    freq_ks = np.zeros((len(rows), max(map(len, rows))), np.uint32)
    for k, row in enumerate(rows):
        freq_ks[k, : len(row)] = row
    return Tables(
        freq_ks=freq_ks,
        size_k=np.array([len(row) for row in rows], np.int32),
        offset_k=np.array(offsets, np.int32),
        table_of_lxc=np.arange(levels * channels, dtype=np.int32).reshape(levels, 1, channels),
        gain_lc=gain_lc,
    )


def geometric_prior(seen_lcs: Counts) -> NDArray[np.float64]:
    """Return a two-sided geometric distribution for each row of counts, of the same mean magnitude."""
    size_s = np.abs(np.arange(-REACH, REACH + 1, dtype=np.float64))
    mean_lc1 = ((seen_lcs * size_s).sum(axis=2, keepdims=True) + 1) / (seen_lcs.sum(axis=2, keepdims=True) + 1)
    ratio_lc1 = (np.sqrt(1 + mean_lc1**2) - 1) / mean_lc1
    mass_lcs: NDArray[np.float64] = ratio_lc1**size_s
    mass_lcs /= mass_lcs.sum(axis=2, keepdims=True)
    return mass_lcs


def gains_at(log_gain_lc: NDArray[np.float64], place: float) -> NDArray[np.float64]:
    """Return the logarithms of the gains (C,) at a place among levels (L, C): 2.5 is half-way between 2 and 3.

    Before the first and behind the last, they go on along the line through that one and the second next to it; of a
    single level all gains change by one factor.
    """
    last = len(log_gain_lc) - 1
    far = min(_BEYOND, last)
    at_c: NDArray[np.float64]
    if last == 0:
        at_c = log_gain_lc[0] + place * _ALONE
        return at_c
    if place < 0:
        at_c = log_gain_lc[0] + place / far * (log_gain_lc[far] - log_gain_lc[0])
        return at_c
    if place > last:
        at_c = log_gain_lc[last] + (place - last) / far * (log_gain_lc[last] - log_gain_lc[last - far])
        return at_c
    below = min(int(place), last - 1)
    at_c = log_gain_lc[below] + (place - below) * (log_gain_lc[below + 1] - log_gain_lc[below])
    return at_c


def mean_bytes(latent_bcn: NDArray[np.floating[Any]], log_gain_c: NDArray[np.float64]) -> float:
    """Return the mean code length of latents (B, C, N) under gains, each channel by its symbols' own frequencies."""
    gain_c1 = np.exp(log_gain_c).astype(np.float32)[:, None]
    symbols_bcn = np.rint(latent_bcn * gain_c1).astype(np.int64)
    bits = 0.0
    for channel in range(symbols_bcn.shape[1]):
        found = symbols_bcn[:, channel].ravel()
        counts = np.bincount(found - found.min())
        counts = counts[counts > 0]
        bits -= float(np.sum(counts * np.log2(counts / found.size)))
    return bits / len(symbols_bcn) / 8


def _range(prior_s: NDArray[np.float64], seen_s: NDArray[np.int64]) -> tuple[int, int]:
    """Return the first and last column of a row; at least -1, 0 and 1."""
    cumulative = np.cumsum(prior_s)
    low = min(int(np.searchsorted(cumulative, _TAIL_MASS / 2)), REACH - 1)
    high = max(int(np.searchsorted(cumulative, 1 - _TAIL_MASS / 2)), REACH + 1)
    if seen_s.any():
        found = np.flatnonzero(seen_s)
        low, high = min(int(found[0]), low), max(int(found[-1]), high)
    return max(low, 0), min(high, 2 * REACH)
