from __future__ import annotations

import numpy as np
import pytest
import torch

from splitcodec.model.bottleneck import Bottleneck
from splitcodec.training.tabulate import build_tables, count_symbols, dump_counts, load_counts
from splitcodec.wire.coder import Coder
from splitcodec.wire.tables import TOTAL
from splitcodec.wire.tabulate import REACH, empty_counts


@pytest.fixture
def neck() -> Bottleneck:
    torch.manual_seed(0)
    return Bottleneck(2, 3, first_gain=1.0, last_gain=2.0)


def test_symbols_are_counted() -> None:
    counts = empty_counts(2, 3)
    symbols = torch.zeros(4, 3, 2, 2)
    symbols[0, 1, 0, 0], symbols[0, 1, 0, 1], symbols[1, 2, 1, 1] = -3, 1e9, -1e9
    count_symbols(counts, 1, symbols)
    count_symbols(counts, 1, symbols)
    assert counts[0].sum() == 0
    assert (counts[1].sum(axis=1) == 32).all()
    assert counts[1, 0, REACH] == 32
    assert counts[1, 1, REACH - 3] == 2
    assert counts[1, 1, -1] == 2
    assert counts[1, 2, 0] == 2


def test_counts_are_kept_in_a_file() -> None:
    counts = empty_counts(1, 2)
    counts[0, 1, 5] = 7
    assert np.array_equal(load_counts(dump_counts(counts)), counts)


def test_tables_of_the_prior_alone_are_valid_and_narrow(neck: Bottleneck) -> None:
    tables = build_tables(neck, None)
    assert (tables.levels, tables.contexts, tables.channels) == (2, 1, 3)
    assert (tables.freq_ks.sum(axis=1) == TOTAL).all()
    assert np.array_equal(tables.gain_lc, neck.gains())
    mass = neck.masses(-REACH, REACH)
    for level in range(2):
        low_c, high_c = tables.range_of(level)
        for channel, (low, high) in enumerate(zip(low_c, high_c, strict=True)):
            assert low <= -1
            assert high >= 1
            assert mass[level, channel, low + REACH : high + REACH + 1].sum() >= 1 - 1e-6
            assert high - low < 400  # and not a column for every symbol within reach


def test_the_range_covers_every_counted_symbol(neck: Bottleneck) -> None:
    counts = empty_counts(2, 3)
    counts[0, 0, [REACH - 900, REACH + 1200]] = 1
    counts[1, 2, [0, 2 * REACH]] = 1
    tables = build_tables(neck, counts)
    low_c, high_c = tables.range_of(0)
    assert low_c[0] <= -900
    assert high_c[0] >= 1200
    low_c, high_c = tables.range_of(1)
    assert (low_c[2], high_c[2]) == (-REACH, REACH)


def test_code_length_comes_close_to_the_entropy_of_the_counts(neck: Bottleneck) -> None:
    random = np.random.default_rng(0)
    symbols = np.rint(random.laplace([0.0, 4.0, -1.0], [0.2, 3.0, 30.0], (60, 50, 50, 3))).transpose(0, 3, 1, 2)
    counts = empty_counts(2, 3)
    count_symbols(counts, 1, torch.from_numpy(symbols))
    tables = build_tables(neck, counts)
    share = counts[1] / counts[1].sum(axis=1, keepdims=True)
    entropy = -(share * np.log2(np.where(share > 0, share, 1.0))).sum(axis=1).mean()  # bits per symbol
    chosen = symbols[:10].astype(np.int32)
    bits = np.mean([tables.bits(one, 1) / one.size for one in chosen])
    assert bits == pytest.approx(entropy, rel=0.02)
    packets = [len(Coder(tables).encode(one, 1)) * 8 / one.size for one in chosen]
    assert np.mean(packets) == pytest.approx(bits, rel=0.01)


def test_symbols_never_seen_keep_the_prior_s_mass(neck: Bottleneck) -> None:
    counts = empty_counts(2, 3)
    counts[:, :, REACH] = 4000  # as many as the prior weighs
    tables, prior = build_tables(neck, counts), neck.masses(-REACH, REACH)
    column = 1 - int(tables.range_of(0)[0][0])
    found = tables.freq_ks[tables.table_of_lxc[0, 0, 0], column] / TOTAL
    assert found == pytest.approx(prior[0, 0, REACH + 1] / 2, rel=1e-2)
