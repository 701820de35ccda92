"""Learned prior + symbols counted on the training photographs -> integer tables.   core: wire/tabulate.py"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from torch import Tensor

from splitcodec.model.parts import TableBottleneck
from splitcodec.wire.tables import Tables
from splitcodec.wire.tabulate import REACH, Counts, empty_counts, tables_of


def count_symbols(counts: Counts, level: int, symbols_bchw: Tensor) -> None:
    """Add a batch of rounded symbols, in place; symbols out of reach are counted at its edge."""
    symbols = symbols_bchw.clamp(-REACH, REACH).long().add_(REACH).cpu().numpy()
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


def build_tables(bottleneck: TableBottleneck, counts: Counts | None) -> Tables:
    """Return the integer tables of all levels; without counts, from the prior alone."""
    prior = bottleneck.masses(-REACH, REACH)
    prior /= prior.sum(axis=2, keepdims=True)
    seen = empty_counts(bottleneck.levels, bottleneck.channels) if counts is None else counts
    return tables_of(prior, seen, bottleneck.gains())
