"""Stage 3 of 7 under coding id 2: symbols -> payload bytes, and back.   inside: reading.py, coder.py

Step by step, and within a step row by row, so that symbols of one row go through the coder in one run; within a row in
the order of places and channels. Both shores know the rows before a step's first symbol is coded.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import PacketPayload, TablesError
from splitcodec.wire.coder import Coder, Reader
from splitcodec.wire.contexts import Contexts
from splitcodec.wire.reading import Network, Reading, in_order, networks_of, places_of, rows_of
from splitcodec.wire.tables import SYMBOL_HIGH, SYMBOL_LOW

_TOGETHER: Final = 2048  # places of packets that are decoded side by side


@final
class ContextCoder:
    """The entropy coder of a bundle's contexts. Stateless between calls; `plain` is as for `Coder`."""

    def __init__(self, contexts: Contexts, *, plain: bool | None = None) -> None:
        self._contexts = contexts
        self._low, self._columns = int(contexts.offset_k[0]), int(contexts.size_k[0])  # of every row
        self._coder = Coder(contexts.rows(), plain=plain)
        self._networks: dict[int, list[Network]] = {}

    def encode(self, symbols_chw: NDArray[Any], level: int) -> bytes:
        """Return the payload of integer symbols (C, H, W). Raises TablesError for symbols outside their row's range."""
        symbols_nc = in_order(self._checked(symbols_chw), self._contexts)
        networks, grid = self._networks_of(level), (symbols_chw.shape[1], symbols_chw.shape[2])
        reading = Reading(networks, grid)
        mean_n, width_n, column_n = (np.empty(symbols_nc.size, np.int32) for _ in range(3))
        reading.see(symbols_nc[None])
        begin, sizes = 0, list[int]()
        for _ in networks:
            step_nc = symbols_nc[reading.part]
            end = begin + step_nc.size
            parts = (*reading.told(), step_nc)
            for all_n, part_nc in zip((mean_n, width_n, column_n), parts, strict=True):
                all_n[begin:end].reshape(step_nc.shape)[:] = part_nc
            sizes.append(step_nc.size)
            begin = end
            reading.on()
        key_n, whole_n = rows_of(mean_n, width_n)
        low, rows = _span(key_n)  # of this level's, often few of all
        key_n += np.repeat(np.arange(len(networks), dtype=np.int32) * rows - low, sizes)
        column_n -= whole_n
        column_n -= self._low
        if column_n.size and (int(column_n.min()) < 0 or int(column_n.max()) >= self._columns):
            raise TablesError("a symbol lies outside its row's range; code it by channel")
        at_n, counts = _sorted(key_n)
        ends = accumulate(count for _, count in counts)
        column_n = column_n[at_n]
        runs = [(low + key % rows, column_n[end - count : end]) for (key, count), end in zip(counts, ends, strict=True)]
        return self._coder.encode_runs(runs, 0)

    def decode(self, payload: bytes, shape_chw: tuple[int, int, int], *, level: int) -> NDArray[np.int32]:
        """Return the symbols of a payload: int32 (C, H, W).

        Raises PacketPayload where the coder is not empty after the last symbol, TablesError for another level or number
        of channels. The caller bounds `shape_chw`.
        """
        found = self.decode_many([payload], shape_chw, level=level)[0]
        if isinstance(found, PacketPayload):
            raise found
        return found

    def decode_many(
        self, payloads: Sequence[bytes], shape_chw: tuple[int, int, int], *, level: int
    ) -> list[NDArray[np.int32] | PacketPayload]:
        """Do as `decode` for payloads of one shape and level, in less time than one by one; a wrong one fails alone."""
        self._checked(np.zeros((shape_chw[0], 1, 1), np.int32))
        together = max(1, _TOGETHER // (shape_chw[1] * shape_chw[2]))
        found = list[NDArray[np.int32] | PacketPayload]()
        for begin in range(0, len(payloads), together):
            found += self._decoded(payloads[begin : begin + together], shape_chw, level=level)
        return found

    def _decoded(
        self, payloads: Sequence[bytes], shape_chw: tuple[int, int, int], *, level: int
    ) -> list[NDArray[np.int32] | PacketPayload]:
        outcomes: list[NDArray[np.int32] | PacketPayload | None] = [None] * len(payloads)
        readers = dict[int, Reader]()
        channels, (rows, cols) = shape_chw[0], shape_chw[1:]
        for number, payload in enumerate(payloads):
            try:
                readers[number] = self._coder.reader(payload, 0, symbols=channels * rows * cols)
            except PacketPayload as error:
                outcomes[number] = error
        if not readers:
            return [outcome for outcome in outcomes if outcome is not None]
        symbols_bnc = np.zeros((len(readers), rows * cols, channels), np.int32)
        networks = self._networks_of(level)
        reading = Reading(networks, (rows, cols), packets=len(readers))
        for _ in networks:
            row_bnc, whole_bnc = reading.rows()
            column_bnc = np.empty_like(whole_bnc)
            for reader, row_nc, column_nc in zip(readers.values(), row_bnc, column_bnc, strict=True):
                low, _ = _span(row_nc)
                at_n, runs = _sorted((row_nc - low).ravel())
                column_nc.ravel()[at_n] = reader.take_runs([(low + row, count) for row, count in runs])
            whole_bnc += self._low
            whole_bnc += column_bnc
            symbols_bnc[:, *reading.part] = whole_bnc
            reading.put(whole_bnc)
        raster_n, order_c = places_of((rows, cols)).raster_n, self._contexts.order_c
        for (number, reader), symbols_nc in zip(readers.items(), symbols_bnc, strict=True):
            try:
                reader.finish(payloads[number], symbols=symbols_nc.size)
            except PacketPayload as error:
                outcomes[number] = error
                continue
            symbols_cn = np.empty((channels, rows * cols), np.int32)
            symbols_cn[order_c[:, None], raster_n] = symbols_nc.T
            outcomes[number] = symbols_cn.reshape(shape_chw)
        return [outcome for outcome in outcomes if outcome is not None]

    def _networks_of(self, level: int) -> list[Network]:
        if level not in self._networks:
            self._networks[level] = networks_of(self._contexts, level)
        return self._networks[level]

    def _checked(self, symbols_chw: NDArray[Any]) -> NDArray[np.int32]:
        if symbols_chw.ndim != 3 or len(symbols_chw) != self._contexts.channels or symbols_chw.dtype.kind not in "iu":
            raise TablesError(
                f"symbols of {symbols_chw.dtype} {symbols_chw.shape}, expected integers "
                f"({self._contexts.channels}, rows, columns)"
            )
        wide = symbols_chw.dtype != np.int32 and symbols_chw.size  # what it holds may not fit
        if wide and not SYMBOL_LOW <= symbols_chw.min() <= symbols_chw.max() <= SYMBOL_HIGH:
            raise TablesError("a symbol that no table has; clip first")
        return symbols_chw.astype(np.int32, copy=False)


def _span(row_n: NDArray[np.int32]) -> tuple[int, int]:
    """Return the lowest row, and how many there are up to the highest."""
    if not row_n.size:
        return 0, 1
    low = int(row_n.min())
    return low, int(row_n.max()) - low + 1


def _sorted(key_n: NDArray[np.int32]) -> tuple[NDArray[np.intp], list[tuple[int, int]]]:
    """Return the places of keys by rising key, in their order within one, and how many each key has."""
    count_k = np.bincount(key_n)
    found_r = np.flatnonzero(count_k)
    # NumPy sorts sixteen bits by digits, more by comparison
    at_n = np.argsort(key_n.astype(np.uint16) if len(count_k) <= 1 << 16 else key_n, kind="stable")
    return at_n, list(zip(found_r.tolist(), count_k[found_r].tolist(), strict=True))
