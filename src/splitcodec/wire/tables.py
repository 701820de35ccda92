"""Beside stages 2, 3 and 6 of 7: the integer tables, the only numbers that both shores must agree on to the last bit.

A float network on both sides of an entropy coder does not decode reliably across processors, so everything that the
coder sees is an integer: frequencies that sum to 2^24, and the symbol value of each row's first column. The gains are
float32; the device multiplies by them and rounds, the edge divides, and no coder ever sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitcodec.errors import OutputError, TablesError
from splitcodec.wire.npz import read_arrays

PRECISION_BITS = 24
TOTAL = 1 << PRECISION_BITS
MAX_LEVELS = 16  # four bits in the packet
MAX_SIZE = 65_536  # symbols of one table
EXACT = 1 << 24  # the largest integer up to which float32 has them all
MAX_BYTES = 64 << 20  # all arrays of a table file, unpacked
SYMBOL_LOW, SYMBOL_HIGH = -32_768, 32_767  # golden vectors keep symbols as int16; float32 has them all
GAIN_LOW, GAIN_HIGH = 1e-6, 1e6

_DTYPES = {"freq_ks": "<u4", "size_k": "<i4", "offset_k": "<i4", "table_of_lxc": "<i4", "gain_lc": "<f4"}


@final
@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """The tables of one bundle; every array is checked, C-contiguous and read-only.

    `freq_ks` uint32 (K, S): row k holds size_k[k] frequencies, each at least 1, summing to 2^24, then zeros.
    `size_k` int32 (K,): 2 to 65536.  `offset_k` int32 (K,): the symbol value of column 0.
    `table_of_lxc` int32 (levels, contexts, channels): the row of a symbol.  `gain_lc` float32 (levels, channels).
    Raises TablesError.
    """

    freq_ks: NDArray[np.uint32]
    size_k: NDArray[np.int32]
    offset_k: NDArray[np.int32]
    table_of_lxc: NDArray[np.int32]
    gain_lc: NDArray[np.float32]

    def __post_init__(self) -> None:
        settle(self, _DTYPES)
        _check_rows(self.freq_ks, self.size_k, self.offset_k)
        rows = len(self.size_k)
        levels, contexts, channels = self.table_of_lxc.shape
        if not (1 <= levels <= MAX_LEVELS and contexts >= 1 and channels >= 1):
            raise TablesError(
                f"table_of_lxc: shape {self.table_of_lxc.shape}, expected 1 to {MAX_LEVELS} levels and at least one "
                "context and channel"
            )
        if self.table_of_lxc.min() < 0 or self.table_of_lxc.max() >= rows:
            raise TablesError(f"table_of_lxc: names a row outside 0 to {rows - 1}")
        if self.gain_lc.shape != (levels, channels):
            raise TablesError(f"gain_lc: shape {self.gain_lc.shape}, expected {(levels, channels)}")
        if not bool(np.all((self.gain_lc >= GAIN_LOW) & (self.gain_lc <= GAIN_HIGH))):
            raise TablesError(f"gain_lc: a gain outside {GAIN_LOW:g} to {GAIN_HIGH:g}")

    @property
    def levels(self) -> int:
        """Number of rate levels."""
        return int(self.table_of_lxc.shape[0])

    @property
    def contexts(self) -> int:
        """Number of contexts; one under coding id 0."""
        return int(self.table_of_lxc.shape[1])

    @property
    def channels(self) -> int:
        """Number of latent channels."""
        return int(self.table_of_lxc.shape[2])

    def rows_of(self, level: int) -> NDArray[np.int32]:
        """Return the table row of every channel at `level`, context 0: int32 (channels,). Raises TablesError."""
        if not 0 <= level < self.levels:
            raise TablesError(f"level {level}: these tables have levels 0 to {self.levels - 1}")
        row_c: NDArray[np.int32] = self.table_of_lxc[level, 0]
        return row_c

    def range_of(self, level: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the lowest and highest symbol value of every channel at `level`, both int32 (channels,), inclusive."""
        row_c = self.rows_of(level)
        low_c = self.offset_k[row_c]
        return low_c, (low_c + self.size_k[row_c] - 1).astype(np.int32)

    def clip(self, symbols_chw: NDArray[Any], level: int) -> NDArray[np.int32]:
        """Move symbols outside their table's range to its nearest end: (C, H, W) -> int32 (C, H, W)."""
        low_c, high_c = self.range_of(level)
        self.check_shape(symbols_chw)
        inside_chw = np.minimum(np.maximum(symbols_chw, low_c[:, None, None]), high_c[:, None, None])
        clipped_chw: NDArray[np.int32] = inside_chw.astype(np.int32, copy=False)
        return clipped_chw

    def quantise(self, latent_chw: NDArray[np.float32], level: int) -> NDArray[np.int32]:
        """Multiply by the gain, round half to even and clip: float32 (C, H, W) -> int32 (C, H, W). The device's side.

        Raises TablesError if the latent holds NaN.
        """
        self.rows_of(level)
        self.check_shape(latent_chw)
        scaled_chw = latent_chw.astype(np.float32, copy=False) * self.gain_lc[level][:, None, None]
        np.rint(scaled_chw, out=scaled_chw)
        if scaled_chw.size and bool(np.isnan(scaled_chw.max())):  # which a single NaN makes NaN
            raise TablesError("the latent holds NaN; the encoder graph or its input is damaged")
        low_c, high_c = self.range_of(level)
        np.maximum(scaled_chw, low_c[:, None, None].astype(np.float32), out=scaled_chw)  # in place: a third of the time
        np.minimum(scaled_chw, high_c[:, None, None].astype(np.float32), out=scaled_chw)
        symbols_chw: NDArray[np.int32] = scaled_chw.astype(np.int32)
        return symbols_chw

    def dequantise(self, symbols_chw: NDArray[np.int32], level: int) -> NDArray[np.float32]:
        """Divide by the gain: int32 (C, H, W) -> float32 (C, H, W). The edge's side."""
        self.rows_of(level)
        self.check_shape(symbols_chw)
        latent_chw: NDArray[np.float32] = symbols_chw.astype(np.float32) / self.gain_lc[level][:, None, None]
        return latent_chw

    def bits(self, symbols_chw: NDArray[np.int32], level: int) -> float:
        """Return the ideal code length of (C, H, W) symbols in bits, the sum of 24 - log2(frequency).

        Raises TablesError as `columns` does.
        """
        freq_cn = np.take_along_axis(self.freq_ks[self.rows_of(level)], self.columns(symbols_chw, level), axis=1)
        return float(np.sum(PRECISION_BITS - np.log2(freq_cn)))

    def columns(self, symbols_chw: NDArray[Any], level: int) -> NDArray[np.int32]:
        """Return each symbol's column in its row: integers (C, H, W) -> int32 (C, H * W), C-contiguous.

        Raises TablesError for another shape or dtype, and for symbols outside their table's range.
        """
        self.check_shape(symbols_chw)
        if symbols_chw.dtype.kind not in "iu":
            raise TablesError(f"symbols of dtype {symbols_chw.dtype}, expected integers; quantise the latent first")
        low_c, high_c = self.range_of(level)
        symbols_cn = symbols_chw.reshape(self.channels, -1)
        if symbols_cn.size:
            outside_c = (symbols_cn.min(axis=1) < low_c) | (symbols_cn.max(axis=1) > high_c)
            if bool(outside_c.any()):
                channel = int(np.argmax(outside_c))
                raise TablesError(
                    f"channel {channel} holds symbols {symbols_cn[channel].min()} to {symbols_cn[channel].max()}, "
                    f"its table at level {level} has {low_c[channel]} to {high_c[channel]}; clip first"
                )
        return np.ascontiguousarray(symbols_cn - low_c[:, None], dtype=np.int32)

    def check_shape(self, array_chw: NDArray[Any]) -> None:
        """Raise TablesError unless the array is (channels, H, W)."""
        if not isinstance(array_chw, np.ndarray):
            raise TablesError(f"a {type(array_chw).__name__}, expected an array ({self.channels}, rows, columns)")
        if array_chw.ndim != 3 or array_chw.shape[0] != self.channels:
            raise TablesError(f"array of shape {array_chw.shape}, expected ({self.channels}, rows, columns)")

    def shared_bytes(self) -> bytes:
        """Return the canonical bytes of all arrays, for the fingerprint: name, dtype, shape, little-endian data."""
        return canonical_bytes(self, _DTYPES)

    def save(self, file: str | Path | BinaryIO) -> None:
        """Write a compressed .npz file without pickles; the same tables give the same bytes. Raises OutputError."""
        try:
            np.savez_compressed(file, allow_pickle=False, **little_endian(self, _DTYPES))
        except OSError as error:
            raise OutputError(f"cannot write the tables: {error}") from error

    @staticmethod
    def load(data: bytes, *, what: str = "tables.npz") -> Tables:
        """Return the tables in the .npz file `data`. Raises BundleFormat if it is no such file, TablesError."""
        return Tables(**read_arrays(data, expected=expected_arrays(_DTYPES), max_bytes=MAX_BYTES, what=what))


def expected_arrays(dtypes: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return dtype and dimensions of arrays by name; the letters behind the last underscore are its dimensions."""
    return {name: (dtype, len(name.rpartition("_")[2])) for name, dtype in dtypes.items()}


def settle(owner: object, dtypes: Mapping[str, str]) -> None:
    """Put read-only copies in the place of an owner's arrays. Raises TablesError for one of another kind."""
    for name, (dtype, dimensions) in expected_arrays(dtypes).items():
        value, wanted = getattr(owner, name), np.dtype(dtype).newbyteorder("=")
        if not isinstance(value, np.ndarray):
            raise TablesError(f"{name}: a {type(value).__name__}, expected an array of {wanted.name}")
        if value.dtype.newbyteorder("=") != wanted:
            raise TablesError(f"{name}: dtype {value.dtype}, expected {wanted.name}")
        if value.ndim != dimensions:
            raise TablesError(f"{name}: {value.ndim} dimensions, expected {dimensions}")
        array = np.array(value, dtype=wanted, order="C", copy=True)
        array.flags.writeable = False
        object.__setattr__(owner, name, array)


def little_endian(owner: object, dtypes: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Return arrays by name as files hold them, whatever the machine's own order of bytes."""
    return {name: getattr(owner, name).astype(dtype) for name, dtype in dtypes.items()}


def canonical_bytes(owner: object, dtypes: Mapping[str, str]) -> bytes:
    """Return arrays as the fingerprint takes them, one after the other: name, dtype, shape, little-endian data."""
    parts = []
    for name, array in little_endian(owner, dtypes).items():
        shape = ",".join(str(side) for side in array.shape)
        parts.append(f"{name} {dtypes[name]} {shape}\n".encode() + array.tobytes())
    return b"".join(parts)


def quantise_mass(mass: ArrayLike) -> NDArray[np.uint32]:
    """Turn probability mass (n,), n from 2 to 65536, into frequencies: each at least 1, summing to 2^24.

    Largest remainder: every entry gets 1, the other 2^24 - n are shared out in proportion, and what rounding down
    leaves goes to the largest remainders (the first of equal ones). `mass` need not sum to one. Raises TablesError.
    """
    mass_n = np.asarray(mass, dtype=np.float64)
    if mass_n.ndim != 1 or not 2 <= len(mass_n) <= MAX_SIZE:
        raise TablesError(f"mass of shape {mass_n.shape}, expected (n,) with n from 2 to {MAX_SIZE}")
    with np.errstate(over="ignore"):
        total = mass_n.sum()
    if not np.isfinite(total) or mass_n.min() < 0 or total < np.finfo(np.float64).tiny:
        raise TablesError("mass must be finite, not negative, and not all zero")
    free = TOTAL - len(mass_n)
    share_n = mass_n / total * free
    whole_n = np.floor(share_n).astype(np.int64)
    left = free - int(whole_n.sum())
    order_n = np.argsort(whole_n - share_n, kind="stable")
    if left > 0:
        whole_n += left // len(mass_n)
        whole_n[order_n[: left % len(mass_n)]] += 1
    elif left < 0:  # rounding of the division may overshoot by an ulp's worth
        whole_n[int(np.argmax(whole_n))] += left
    freq_n: NDArray[np.uint32] = (whole_n + 1).astype(np.uint32)
    return freq_n


def _check_rows(freq_ks: NDArray[np.uint32], size_k: NDArray[np.int32], offset_k: NDArray[np.int32]) -> None:
    rows, widest = freq_ks.shape
    if rows < 1 or size_k.shape != (rows,) or offset_k.shape != (rows,):
        raise TablesError(f"{rows} rows in freq_ks, {len(size_k)} in size_k, {len(offset_k)} in offset_k: must agree")
    if size_k.min() < 2 or size_k.max() > min(widest, MAX_SIZE):
        raise TablesError(f"size_k: {size_k.min()} to {size_k.max()}, expected 2 to {min(widest, MAX_SIZE)}")
    high_k = offset_k.astype(np.int64) + size_k - 1
    if offset_k.min() < SYMBOL_LOW or high_k.max() > SYMBOL_HIGH:
        raise TablesError(f"offset_k: symbols outside {SYMBOL_LOW} to {SYMBOL_HIGH}")
    used_ks = np.arange(widest) < size_k[:, None]
    if not bool(np.array_equal(freq_ks > 0, used_ks)):
        raise TablesError("freq_ks: every frequency must be at least 1, and zero after the row's size")
    total_k = freq_ks.sum(axis=1, dtype=np.uint64)
    wrong_k = total_k != TOTAL
    if bool(wrong_k.any()):
        row = int(np.argmax(wrong_k))
        raise TablesError(f"freq_ks: row {row} sums to {total_k[row]}, expected 2^{PRECISION_BITS} = {TOTAL}")
