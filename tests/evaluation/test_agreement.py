"""What an INT8 encoder loses, against cases that can be done by hand. Through real packets: tests/training."""

from __future__ import annotations

import numpy as np
import pytest

from splitcodec.evaluation import agreement
from splitcodec.evaluation.refit import STRENGTH, Counts
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.tables import TOTAL


def test_points_are_lost_against_fp32_at_int8_s_own_bytes() -> None:
    """Levels in any order: 60 % at 100 bytes, 80 % at 10,000, on a line over log bytes; beyond, the nearest level's."""
    bytes_kl = np.array([[10_000.0, 100.0, 1000.0], [50.0, 100_000.0, 1000.0]])
    right_kl = np.array([[0.8, 0.6, 0.7], [0.55, 0.9, 0.66]])
    assert agreement._losses(bytes_kl, right_kl) == pytest.approx([5.0, -10.0, 4.0])
    between = np.array([[100.0, 10_000.0], [1000.0, 1000.0]])
    assert agreement._losses(between, np.array([[0.6, 0.8], [0.65, 0.7]])) == pytest.approx([5.0, 0.0])


def test_the_interval_of_the_loss_is_that_of_the_mean_over_photographs() -> None:
    """One level of equal bytes, where one photograph in ten is lost and one in fifty won."""
    right_nkl = np.ones((400, 2, 1), bool)
    right_nkl[:40, 1], right_nkl[392:, 0] = False, False
    low, high = agreement._interval(np.full((400, 2, 1), 500), right_nkl)
    lost_n = 100.0 * (right_nkl[:, 0, 0].astype(float) - right_nkl[:, 1, 0])
    spread = lost_n.std() / np.sqrt(400)
    assert lost_n.mean() == 8.0
    assert low == pytest.approx(8.0 - 1.96 * spread, abs=0.2 * spread)
    assert high == pytest.approx(8.0 + 1.96 * spread, abs=0.2 * spread)


def test_own_tables_are_learned_on_one_half_and_priced_on_the_other(tiny: Bundle) -> None:
    """One row alone has symbols: five photographs of which the first, third and fifth are learned from."""
    tables, counts = tiny.tables[0], Counts(tiny)
    row = int(tables.rows_of(1)[2])
    size = int(tables.size_k[row])
    random = np.random.default_rng(3)
    learned = random.integers(1, 40, size)
    priced = learned + random.integers(0, 6, size)
    counts.half_ks[0][row, :size], counts.half_ks[1][row, :size] = learned, priced
    counts.photographs = 5
    old = tables.freq_ks[row, :size] / TOTAL
    new = (3 * learned / learned.sum() + STRENGTH * old) / (3 + STRENGTH)
    bits = [-(priced * np.log2(share)).sum() for share in (old, new)]
    assert agreement._saved(tiny, counts) == pytest.approx(100 * (bits[1] / bits[0] - 1), abs=1e-3)
    assert agreement._saved(tiny, counts) < -1
    counts.half_ks[1][:] = 0
    assert agreement._saved(tiny, counts) == 0.0  # a single photograph
