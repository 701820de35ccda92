"""Tables + symbols counted on somebody's photographs -> tables that fit those.   used by: all that count symbols

Each row is the posterior mean of a Dirichlet distribution centred on the old row, as when the tables were first made
(training/tabulate.py): counts + strength * old. Symbols within a photograph resemble one another, so strength is
measured in photographs, not in symbols: how many of them the old tables weigh. Photographs like those of the training
teach little and deserve a large strength, others a small one; hence each half of them is priced by tables fitted on the
other half, and the strength with the fewest bits is taken. Ranges and gains stay, hence so do the symbols and every
answer; only the bytes change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import SettingsError
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.coder import BY_CHANNEL, BY_CONTEXT
from splitcodec.wire.contexts import Contexts
from splitcodec.wire.reading import Network, Reading, in_order, networks_of
from splitcodec.wire.tables import PRECISION_BITS, TOTAL, Tables, quantise_mass

STRENGTH: Final = 20.0
"""Taken where photographs are few: 4,000 symbols of a channel of 14 x 14, as in training."""
STRENGTHS: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
_FEW: Final = 10


@final
class Counts:
    """How often each symbol of each table row occurred, at all levels, as the coder would see it: after clipping.

    Raises SettingsError for a bundle with codings that this version does not know.
    """

    def __init__(self, bundle: Bundle) -> None:
        if not set(bundle.manifest.codings) <= {BY_CHANNEL, BY_CONTEXT}:
            raise SettingsError(
                f"{bundle.ident}: codings {list(bundle.manifest.codings)}; expected {BY_CHANNEL} and {BY_CONTEXT}, "
                "which this version can count"
            )
        self.tables = bundle.tables[0]
        self.photographs = 0
        self.half_ks = [np.zeros(self.tables.freq_ks.shape, np.int64) for _ in range(2)]
        self._clipped_l = np.zeros(self.tables.levels, np.int64)
        self._symbols = 0

    def add(self, latent_chw: NDArray[np.float32]) -> None:
        """Count one photograph's latent, float32 (C, H, W) before gain, at every level. Raises TablesError."""
        half_ks = self.half_ks[self.photographs % 2]
        for level in range(self.tables.levels):
            symbols_chw = self.tables.quantise(latent_chw, level)
            rounded_chw = np.rint(latent_chw * self.tables.gain_lc[level][:, None, None])
            self._clipped_l[level] += np.count_nonzero(rounded_chw != symbols_chw)
            row_c1 = self.tables.rows_of(level)[:, None]
            np.add.at(half_ks, (row_c1, self.tables.columns(symbols_chw, level)), 1)
        self._symbols += latent_chw.size
        self.photographs += 1

    @property
    def count_ks(self) -> NDArray[np.int64]:
        """Return the counts of all photographs: int64, shaped like the tables' `freq_ks`."""
        total_ks: NDArray[np.int64] = self.half_ks[0] + self.half_ks[1]
        return total_ks

    def clipped(self, level: int) -> float:
        """Return the share of symbols, in per cent, that lay outside their table's range and were moved to its end."""
        return 100.0 * float(self._clipped_l[level]) / max(self._symbols, 1)


@final
class ContextCounts:
    """The same of the rows that contexts choose from; `tables` are what quantises. See `Counts`."""

    def __init__(self, contexts: Contexts, tables: Tables) -> None:
        self.tables = contexts.rows()
        self.photographs = 0
        self.half_ks = [np.zeros(self.tables.freq_ks.shape, np.int64) for _ in range(2)]
        self.contexts, self._quantising = contexts, tables
        self._networks = [networks_of(contexts, level) for level in range(contexts.levels)]

    def add(self, latent_chw: NDArray[np.float32]) -> None:
        """Count one photograph's latent, float32 (C, H, W) before gain, at every level. Raises TablesError."""
        half_ks = self.half_ks[self.photographs % 2]
        for level, networks in enumerate(self._networks):
            symbols_chw = self._quantising.quantise(latent_chw, level)
            for row_nc, column_nc in _steps(symbols_chw, self.contexts, self.tables, networks):
                np.add.at(half_ks, (row_nc, column_nc), 1)
        self.photographs += 1

    @property
    def count_ks(self) -> NDArray[np.int64]:
        """Return the counts of all photographs: int64, shaped like the rows' `freq_ks`."""
        total_ks: NDArray[np.int64] = self.half_ks[0] + self.half_ks[1]
        return total_ks


@final
class ContextBits:
    """Ideal code lengths under coding id 2; safe to share between threads."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts, self._tables = contexts, contexts.rows()
        self._networks = [networks_of(contexts, level) for level in range(contexts.levels)]

    def of(self, symbols_chw: NDArray[np.int32], level: int) -> float:
        """Return the bits of (C, H, W) symbols, the sum of 24 - log2(frequency), as `Tables.bits` by channel."""
        steps = _steps(symbols_chw, self._contexts, self._tables, self._networks[level])
        freqs = (self._tables.freq_ks[row_nc, column_nc] for row_nc, column_nc in steps)
        return float(sum(np.sum(PRECISION_BITS - np.log2(freq_nc)) for freq_nc in freqs))


def refit_contexts(counts: ContextCounts, *, strength: float) -> Contexts:
    """Return the contexts with new frequencies of their rows; the networks are the old ones."""
    return replace(counts.contexts, freq_ks=refit(counts, strength=strength).freq_ks)


def refit(counts: Counts | ContextCounts, *, strength: float) -> Tables:
    """Return the tables with new frequencies; sizes, offsets and gains are the old ones.

    `strength` is the weight of the old tables in photographs. A row of which nothing was counted stays as it is.
    """
    tables, count_ks, freq_ks = counts.tables, counts.count_ks, counts.tables.freq_ks.copy()
    mass_ks = _posterior(count_ks, tables, photographs=counts.photographs, strength=strength)
    for k in np.flatnonzero(count_ks.any(axis=1)):
        freq_ks[k, : tables.size_k[k]] = quantise_mass(mass_ks[k, : tables.size_k[k]])
    return replace(tables, freq_ks=freq_ks)


def best_strength(counts: Counts | ContextCounts) -> float:
    """Return which of `STRENGTHS` costs the fewest bits when each half of the photographs gets the other's tables.

    With fewer than ten photographs that cannot be told, and `STRENGTH` is returned.
    """
    if counts.photographs < _FEW:
        return STRENGTH
    ours, theirs = counts.half_ks
    first = (counts.photographs + 1) // 2

    def bits(strength: float) -> float:
        return sum(
            _bits(priced_ks, _posterior(fitted_ks, counts.tables, photographs=number, strength=strength))
            for fitted_ks, priced_ks, number in ((ours, theirs, first), (theirs, ours, counts.photographs - first))
        )

    return min(STRENGTHS, key=bits)


def _steps(
    symbols_chw: NDArray[np.int32], contexts: Contexts, tables: Tables, networks: Sequence[Network]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Yield, step by step, the row and the column of each symbol; those outside of their row's range at its end."""
    low_k, high_k = tables.range_of(0)
    symbols_nc = in_order(symbols_chw, contexts)
    reading = Reading(list(networks), (symbols_chw.shape[1], symbols_chw.shape[2]))
    for _ in networks:
        (row_nc,), (whole_nc,) = reading.rows()
        step_nc = symbols_nc[reading.part]
        yield row_nc, np.clip(step_nc - whole_nc, low_k[row_nc], high_k[row_nc]) - low_k[row_nc]
        reading.put(step_nc[None])


def _posterior(
    count_ks: NDArray[np.int64], tables: Tables, *, photographs: int, strength: float
) -> NDArray[np.float64]:
    """Return the mean of each row's posterior: of rows without counts the old ones, zero after a row's size."""
    symbols_k1 = count_ks.sum(axis=1, keepdims=True)
    share_ks = count_ks / np.maximum(symbols_k1, 1)
    mean_ks = (photographs * share_ks + strength * (tables.freq_ks / TOTAL)) / (max(photographs, 1) + strength)
    return np.asarray(np.where(symbols_k1 > 0, mean_ks, tables.freq_ks / TOTAL))  # as `refit` leaves them


def _bits(count_ks: NDArray[np.int64], mass_ks: NDArray[np.float64]) -> float:
    seen_ks = count_ks > 0
    return -float(np.sum(count_ks[seen_ks] * np.log2(mass_ks[seen_ks])))
