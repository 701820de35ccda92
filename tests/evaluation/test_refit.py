from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from splitcodec.errors import SettingsError, TablesError
from splitcodec.evaluation.refit import STRENGTH, STRENGTHS, Counts, best_strength, refit
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.tables import TOTAL


def latents(count: int, *, spread: float = 0.7) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    random = np.random.default_rng(5)
    return [random.laplace(0.4, spread, (4, 4, 4)).astype(np.float32) for _ in range(count)]


def test_every_symbol_is_counted_in_its_row(tiny: Bundle) -> None:
    tables, counts = tiny.tables[0], Counts(tiny)
    for latent_chw in latents(3):
        counts.add(latent_chw)
    assert counts.photographs == 3
    assert counts.count_ks.sum() == 3 * 3 * 4 * 16  # photographs, levels, channels, places
    expected_ks = np.zeros_like(counts.count_ks)
    for latent_chw in latents(3):
        for level in range(3):
            for channel, plane in enumerate(tables.quantise(latent_chw, level)):
                row = tables.table_of_lxc[level, 0, channel]
                for symbol in plane.ravel():
                    expected_ks[row, symbol - tables.offset_k[row]] += 1
    assert np.array_equal(counts.count_ks, expected_ks)


def test_symbols_beyond_the_range_count_at_its_end(tiny: Bundle) -> None:
    counts = Counts(tiny)
    counts.add(np.full((4, 2, 2), 1e9, np.float32))
    for k, size in enumerate(tiny.tables[0].size_k):
        assert counts.count_ks[k, size - 1] == counts.count_ks[k].sum() > 0
    assert [counts.clipped(level) for level in range(3)] == [100.0] * 3
    counts.add(np.zeros((4, 2, 2), np.float32))
    assert counts.clipped(2) == 50.0
    inside = Counts(tiny)
    inside.add(np.zeros((4, 2, 2), np.float32))
    assert inside.clipped(2) == 0.0
    with pytest.raises(TablesError, match="NaN"):
        inside.add(np.full((4, 2, 2), np.nan, np.float32))


def test_new_rows_are_the_posterior_mean(tiny: Bundle) -> None:
    counts, tables = Counts(tiny), tiny.tables[0]
    for latent_chw in latents(7):
        counts.add(latent_chw)
    new = refit(counts, strength=20.0)
    for k, size in enumerate(tables.size_k):
        seen, old = counts.count_ks[k, :size], tables.freq_ks[k, :size] / TOTAL
        expected = (seen + 20 * seen.sum() / 7 * old) / (seen.sum() * (1 + 20 / 7))
        assert new.freq_ks[k, :size] / TOTAL == pytest.approx(expected, abs=2 * size / TOTAL)
    for name in ("size_k", "offset_k", "table_of_lxc", "gain_lc"):
        assert np.array_equal(getattr(new, name), getattr(tables, name))


def test_many_photographs_outweigh_the_old_tables_and_a_strong_prior_them(tiny: Bundle) -> None:
    counts, tables = Counts(tiny), tiny.tables[0]
    for latent_chw in latents(40):
        counts.add(latent_chw)
    (fresh,) = latents(41)[40:]
    symbols_chw = tables.quantise(fresh, 2)
    assert refit(counts, strength=20.0).bits(symbols_chw, 2) < tables.bits(symbols_chw, 2)
    held = refit(counts, strength=1e9)
    assert np.abs(held.freq_ks.astype(np.int64) - tables.freq_ks).max() < 100  # of 2^24


def test_the_strength_follows_what_the_photographs_say(tiny: Bundle) -> None:
    tables, strange, alike = tiny.tables[0], Counts(tiny), Counts(tiny)
    for latent_chw in latents(30, spread=2.0):
        strange.add(latent_chw)
    random = np.random.default_rng(6)
    for place in range(30):  # symbols drawn from the tables themselves
        for level in range(3):
            for row in tables.rows_of(level):
                size = tables.size_k[row]
                drawn = random.multinomial(16, tables.freq_ks[row, :size] / TOTAL)
                alike.half_ks[place % 2][row, :size] += drawn
        alike.photographs += 1
    assert best_strength(strange) == STRENGTHS[0]
    assert best_strength(alike) > 5 * STRENGTH
    few = Counts(tiny)
    for latent_chw in latents(9):
        few.add(latent_chw)
    assert best_strength(few) == STRENGTH


def test_rows_without_counts_stay(tiny: Bundle) -> None:
    assert np.array_equal(refit(Counts(tiny), strength=20.0).freq_ks, tiny.tables[0].freq_ks)


def test_other_codings_are_refused(tiny: Bundle) -> None:
    with pytest.raises(SettingsError, match=r"codings \[0, 3\]; expected 0 and 2"):
        Counts(replace(tiny, manifest=replace(tiny.manifest, codings=(0, 3))))


def test_a_row_that_one_half_never_saw_is_priced_by_the_old_tables(tiny: Bundle) -> None:
    """It cost infinitely much at every strength, so the first of them was taken, with a warning of NumPy's."""
    counts = Counts(tiny)
    for latent_chw in latents(40):
        counts.add(latent_chw)
    row = int(np.flatnonzero(counts.half_ks[1].any(axis=1))[0])
    counts.half_ks[0][row] = 0
    found = best_strength(counts)
    counts.half_ks[1][row] = 0  # nor does the other half see it: what it cost did not depend on the strength
    assert found == best_strength(counts)
