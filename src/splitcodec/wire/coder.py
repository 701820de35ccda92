"""Stage 3 of 7: symbols -> payload bytes, and back.   before: tables.py   after: packet.py

An ANS coder with 24-bit frequencies, a 64-bit state and 32-bit words: that of the library `constriction`, which is used
where it can be imported. It has no wheel for Linux on aarch64, so the same coder stands below in plain Python, bit for
bit; a test holds the two together. docs/wire-format.md is the norm for both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from importlib import import_module
from itertools import accumulate
from types import ModuleType
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import MissingExtra, PacketPayload
from splitcodec.wire.quantiser import Quantiser
from splitcodec.wire.tables import PRECISION_BITS, TOTAL, Tables

BY_CHANNEL = 0  # coding id: the row of a symbol depends on level and channel, context 0
BY_CONTEXT = 2  # coding id: and on the symbols before it, wire/contexts.py
RETIRED = 1  # coding id: an earlier draft of that
SCANNED = 24  # a row of at most so many columns, one of which has this frequency, is scanned when decoding
COMMON = 9 * TOTAL // 10
EMPTY = b"\0"  # the payload of an empty stream: a packet always holds at least one byte of payload


def _constriction() -> ModuleType | None:
    try:
        return import_module("constriction")
    except ImportError:
        return None


@final
class Coder:
    """The entropy coder of one table set under coding id 0, by channel.

    Stateless between calls. `plain=None` takes constriction where it can be imported and the plain twin elsewhere;
    `plain=True` insists on the twin, `plain=False` on constriction (MissingExtra if it is not there).
    """

    def __init__(self, tables: Tables, *, plain: bool | None = None) -> None:
        self._tables = tables
        self._constriction = None if plain else _constriction()
        if plain is False and self._constriction is None:
            raise MissingExtra("constriction cannot be imported; install it, or leave the choice of the coder open")
        self.plain = self._constriction is None
        self._models: dict[tuple[int, bool], list[Any]] = {}
        self._quantisers: dict[int, Quantiser] = {}
        self._plain: dict[int, _Row] = {}

    def encode(self, symbols_chw: NDArray[Any], level: int) -> bytes:
        """Return the payload of integer symbols (C, H, W): at least one byte, trailing zero bytes trimmed.

        Raises TablesError for symbols outside their table's range: the device clips first.
        """
        return self._payload(self._tables.columns(symbols_chw, level), level)

    def encode_latent(self, latent_chw: NDArray[np.float32], level: int) -> bytes:
        """Return the payload of a latent, float32 (C, H, W): that of its symbols (`Tables.quantise`), in less time.

        Raises TablesError for another shape or level, and for a latent that holds NaN.
        """
        if level not in self._quantisers:
            self._quantisers[level] = Quantiser(self._tables, level)
        return self._payload(self._quantisers[level].columns(latent_chw), level)

    def encode_runs(self, runs: Sequence[tuple[int, NDArray[np.int32]]], level: int) -> bytes:
        """Return the payload of runs of columns, int32 (N,) each, in the row of that channel at a level.

        The columns must lie within their rows: nothing is checked here.
        """
        if self._constriction is None:
            row_c = self._tables.rows_of(level)
            return _dumped(_encode([run.tolist() for _, run in runs], [self._row(int(row_c[c])) for c, _ in runs]))
        coder, models = self._constriction.stream.stack.AnsCoder(), self._models_of(level, decode=False)
        for channel, run in reversed(runs):
            coder.encode_reverse(run, models[channel])
        return _dumped(coder.get_compressed())

    def reader(self, payload: bytes, level: int, *, symbols: int) -> Reader:
        """Return what takes runs of columns out of a payload that holds `symbols`. Raises PacketPayload."""
        words = _words(payload, symbols=symbols)
        if self._constriction is None:
            rows = [self._row(k) for k in self._tables.rows_of(level).tolist()]
            return Reader(plain=_Stack(words.tolist()), models=rows)
        fast = self._constriction.stream.stack.AnsCoder(words)
        return Reader(fast=fast, models=self._models_of(level, decode=True))

    def _payload(self, columns_cn: NDArray[np.int32], level: int) -> bytes:
        return self.encode_runs(list(enumerate(columns_cn)), level)

    def decode(self, payload: bytes, shape_chw: tuple[int, int, int], *, level: int) -> NDArray[np.int32]:
        """Return the symbols of a payload: int32 (C, H, W).

        Raises PacketPayload unless `payload` is exactly what `encode` writes for these symbols, TablesError for a
        level or a channel count that the tables do not have. The caller bounds `shape_chw` (packet.admit).
        """
        channels, rows, cols = shape_chw
        low_c, _ = self._tables.range_of(level)
        symbols_cn = np.zeros((channels, rows * cols), dtype=np.int32)
        self._tables.check_shape(symbols_cn.reshape(shape_chw))
        reader = self.reader(payload, level, symbols=symbols_cn.size)
        for channel in range(channels):
            symbols_cn[channel] = reader.take(channel, rows * cols)
        reader.finish(payload, symbols=symbols_cn.size)
        return (symbols_cn + low_c[:, None]).reshape(shape_chw)

    def _models_of(self, level: int, *, decode: bool) -> list[Any]:
        """Return constriction's model of every channel at a level, made at its first use."""
        key = level, decode
        if key not in self._models:
            self._models[key] = [self._model(k, decode=decode) for k in self._tables.rows_of(level).tolist()]
        return self._models[key]

    def _model(self, k: int, *, decode: bool) -> Any:
        if self._constriction is None:
            return None
        # constriction adds 1 to every weight and scales the rest to fill 2^24: with freq - 1 its scale is exactly 1
        freq_s = self._tables.freq_ks[k, : self._tables.size_k[k]]
        weights = np.ascontiguousarray(freq_s.astype(np.float64) - 1.0)
        # a lazy model looks for a symbol from the first column on, others by halves: the same symbols either way
        scan = decode and len(freq_s) <= SCANNED and int(freq_s.max()) >= COMMON
        return self._constriction.stream.model.Categorical(weights, perfect=False, lazy=scan)

    def _row(self, k: int) -> _Row:
        if k not in self._plain:
            self._plain[k] = _Row.of(self._tables.freq_ks[k, : self._tables.size_k[k]].tolist())
        return self._plain[k]


@final
class Reader:
    """A payload that is taken apart run by run; what it takes is bounded by who asks."""

    def __init__(self, *, models: list[Any], fast: Any = None, plain: _Stack | None = None) -> None:
        self._models, self._fast, self._plain = models, fast, plain

    def take(self, channel: int, count: int) -> NDArray[np.int32]:
        """Return the next `count` columns of the row of that channel: int32 (count,)."""
        model = self._models[channel]
        columns_n: Any = self._fast.decode(model, count) if self._plain is None else self._plain.take(model, count)
        return np.asarray(columns_n, dtype=np.int32)

    def take_runs(self, runs: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
        """Return the columns of runs (channel, count), one after the other: int32 (sum of counts,)."""
        if self._plain is None:
            decode, models = self._fast.decode, self._models
            parts = [decode(models[channel], count) for channel, count in runs]
        else:
            parts = [self.take(channel, count) for channel, count in runs]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def finish(self, payload: bytes, *, symbols: int) -> None:
        """Raise PacketPayload unless nothing is left."""
        empty = bool(self._fast.is_empty()) if self._plain is None else self._plain.empty
        if not empty:
            raise PacketPayload(
                f"payload of {len(payload)} bytes: the coder is not empty after {symbols} symbols; "
                "was it made with this bundle's tables?"
            )


class _Row(NamedTuple):
    """One table, laid out for the loops below."""

    steps: list[tuple[int, int, int, int]]  # per column: frequency, 2^40 * frequency, 2^24 - frequency, cumulative
    left: list[int]  # cumulative frequency before each column
    freq: list[int]
    common: int  # the most frequent column

    @staticmethod
    def of(freq: list[int]) -> _Row:
        left = [0, *accumulate(freq)][:-1]
        steps = [(f, f << 40, (1 << PRECISION_BITS) - f, c) for f, c in zip(freq, left, strict=True)]
        return _Row(steps, left, freq, freq.index(max(freq)))


def _encode(columns_cn: list[list[int]], row_c: list[_Row]) -> list[int]:
    words: list[int] = []
    x = 0
    for columns, row in zip(reversed(columns_cn), reversed(row_c), strict=True):
        for freq, limit, rest, left in map(row.steps.__getitem__, reversed(columns)):
            if x >= limit:
                words.append(x & 0xFFFFFFFF)
                x >>= 32
            x += x // freq * rest + left  # = (x // freq << 24) + x % freq + left
    while x:
        words.append(x & 0xFFFFFFFF)
        x >>= 32
    return words


@final
class _Stack:
    """The same coder when it decodes, in plain Python."""

    def __init__(self, words: list[int]) -> None:
        self._words = words
        self._x = 0
        for _ in range(2):
            if words:
                self._x = self._x << 32 | words.pop()

    @property
    def empty(self) -> bool:
        """Say whether nothing is left."""
        return self._x == 0 and not self._words

    def take(self, row: _Row, count: int) -> list[int]:
        """Return the next `count` columns."""
        _, left, freq, common = row
        x, words = self._x, self._words
        low, span = left[common], freq[common]
        high = low + span
        columns = [common] * count
        for n in range(count):
            q = x & 0xFFFFFF
            if low <= q < high:
                x = (x >> 24) * span + q - low
            else:
                s = bisect_right(left, q) - 1
                columns[n] = s
                x = (x >> 24) * freq[s] + q - left[s]
            if x < 0x100000000 and words:
                x = x << 32 | words.pop()
        self._x = x
        return columns


def _dumped(words: Any) -> bytes:
    return np.asarray(words, dtype="<u4").tobytes().rstrip(b"\0") or EMPTY


def _words(payload: bytes, *, symbols: int) -> NDArray[np.uint32]:
    longest = max(1, symbols * PRECISION_BITS // 8)  # no symbol costs more than 24 bits
    if not 1 <= len(payload) <= longest:
        raise PacketPayload(f"payload of {len(payload)} bytes for {symbols} symbols, expected 1 to {longest}")
    if payload == EMPTY:
        return np.zeros(0, dtype=np.uint32)
    if payload[-1] == 0:
        raise PacketPayload("payload ends in a zero byte; trailing zero bytes must be trimmed")
    padded = payload + bytes(-len(payload) % 4)
    return np.frombuffer(padded, dtype="<u4").astype(np.uint32)
