"""Hypothesis strategies: tables of every kind, and symbols that fit them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitcodec.wire.tables import TOTAL, Tables, quantise_mass


@st.composite
def rows(draw: st.DrawFn) -> list[int]:
    """Return one row of frequencies: even, skewed, or as lopsided as the format allows."""
    size = draw(st.integers(2, 12))
    if draw(st.booleans()):
        return [
            int(freq) for freq in quantise_mass(np.array(draw(st.lists(_mass, min_size=size, max_size=size))) + 1e-9)
        ]
    lopsided = [1] * size
    lopsided[draw(st.integers(0, size - 1))] = TOTAL - size + 1
    return lopsided


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    """Return valid tables with a few rows, levels, contexts and channels."""
    chosen = draw(st.lists(rows(), min_size=1, max_size=4))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 4)))
    freq = np.zeros((len(chosen), max(map(len, chosen)) + draw(st.integers(0, 2))), np.uint32)
    for k, row in enumerate(chosen):
        freq[k, : len(row)] = row
    random = np.random.default_rng(draw(_seed))
    return Tables(
        freq_ks=freq,
        size_k=np.array([len(row) for row in chosen], np.int32),
        offset_k=random.integers(-30, 30, len(chosen), dtype=np.int32),
        table_of_lxc=random.integers(0, len(chosen), shape, dtype=np.int32),
        gain_lc=random.uniform(0.1, 8, (shape[0], shape[2])).astype(np.float32),
    )


@st.composite
def coded(draw: st.DrawFn) -> tuple[Tables, int, NDArray[np.int32]]:
    """Return (tables, level, symbols_chw) with symbols in range: likely ones, unlikely ones, or any."""
    drawn = draw(tables())
    level = draw(st.integers(0, drawn.levels - 1))
    random = np.random.default_rng(draw(_seed))
    low_c, high_c = drawn.range_of(level)
    n = draw(st.integers(1, 9)) * draw(st.integers(1, 9))
    kind = draw(st.sampled_from(["likely", "rare", "any"]))
    freq_cs = drawn.freq_ks[drawn.rows_of(level)].astype(np.float64)
    channels: list[NDArray[Any]] = []
    for channel, freq_s in enumerate(freq_cs):
        size = int(high_c[channel] - low_c[channel]) + 1
        weight = {"likely": freq_s[:size], "rare": 1 / freq_s[:size], "any": np.ones(size)}[kind]
        channels.append(low_c[channel] + random.choice(size, size=n, p=weight / weight.sum()))
    return drawn, level, np.stack(channels).astype(np.int32)[:, None, :]


_mass = st.one_of(st.just(0.0), st.floats(1e-12, 1e6))
_seed = st.integers(0, 2**32 - 1)
