"""Stage 3 of 7 under coding id 1: symbols -> payload bytes, and back.   inside: contexts.py, coder.py

Group by group, and within a group row by row, so that symbols of one row go through the coder in one run; within a row
in the order of channels and places. Both shores know the rows before a group's first symbol is coded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import TablesError
from splitcodec.wire.coder import Coder
from splitcodec.wire.contexts import Contexts, Network, Reading


@final
class ContextCoder:
    """The entropy coder of a bundle's contexts. Stateless between calls; `plain` is as for `Coder`."""

    def __init__(self, contexts: Contexts, *, plain: bool | None = None) -> None:
        self._contexts = contexts
        self._rows = contexts.rows()
        self._coder = Coder(self._rows, plain=plain)
        self._networks: dict[int, list[Network]] = {}

    def encode(self, symbols_chw: NDArray[Any], level: int) -> bytes:
        """Return the payload of integer symbols (C, H, W). Raises TablesError for symbols outside their row's range."""
        symbols_cn = self._checked(symbols_chw)
        reading = self._reading(level, (symbols_chw.shape[1], symbols_chw.shape[2]))
        low_k, high_k = self._rows.range_of(0)
        runs: list[tuple[int, NDArray[np.int32]]] = []
        for channel_c in reading.groups():
            row_cn, whole_cn = reading.rows()
            group_cn = symbols_cn[channel_c]
            left_cn = group_cn - whole_cn
            if bool(((left_cn < low_k[row_cn]) | (left_cn > high_k[row_cn])).any()):
                raise TablesError("a symbol lies outside its row's range; code it by channel")
            columns_n = (left_cn - low_k[row_cn]).ravel()
            runs += [(row, columns_n[places]) for row, places in _sorted(row_cn)]
            reading.put(group_cn)
        return self._coder.encode_runs(runs, 0)

    def decode(self, payload: bytes, shape_chw: tuple[int, int, int], *, level: int) -> NDArray[np.int32]:
        """Return the symbols of a payload: int32 (C, H, W).

        Raises PacketPayload where the coder is not empty after the last symbol, TablesError for another level or number
        of channels. The caller bounds `shape_chw`.
        """
        channels, rows, cols = shape_chw
        symbols_cn = np.zeros((channels, rows * cols), np.int32)
        self._checked(symbols_cn.reshape(shape_chw))
        reading = self._reading(level, (rows, cols))
        low_k, _ = self._rows.range_of(0)
        reader = self._coder.reader(payload, 0, symbols=symbols_cn.size)
        for channel_c in reading.groups():
            row_cn, whole_cn = reading.rows()
            group_n = np.zeros(row_cn.size, np.int32)
            for row, places in _sorted(row_cn):
                group_n[places] = reader.take(row, len(places)) + low_k[row]
            group_cn = group_n.reshape(row_cn.shape) + whole_cn
            symbols_cn[channel_c] = group_cn
            reading.put(group_cn)
        reader.finish(payload, symbols=symbols_cn.size)
        return symbols_cn.reshape(shape_chw)

    def _reading(self, level: int, grid: tuple[int, int]) -> Reading:
        if level not in self._networks:
            self._networks[level] = self._contexts.networks(level)
        return Reading(self._contexts, level, self._networks[level], grid)

    def _checked(self, symbols_chw: NDArray[Any]) -> NDArray[np.int32]:
        if symbols_chw.ndim != 3 or len(symbols_chw) != self._contexts.channels or symbols_chw.dtype.kind not in "iu":
            raise TablesError(
                f"symbols of {symbols_chw.dtype} {symbols_chw.shape}, expected integers "
                f"({self._contexts.channels}, rows, columns)"
            )
        return symbols_chw.reshape(len(symbols_chw), -1).astype(np.int32, copy=False)


def _sorted(row_cn: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each row that occurs, in rising order, and the places that have it, in theirs."""
    row_n = row_cn.ravel()
    order_n = np.argsort(row_n.astype(np.uint16), kind="stable")
    count_k = np.bincount(row_n)
    end = 0
    for row in np.flatnonzero(count_k).tolist():
        begin, end = end, end + int(count_k[row])
        yield row, order_n[begin:end]
