"""Coding id 1: a symbol's row is chosen by what was coded before it.   before: tables.py   used by: context_coder.py

Channels are coded in groups, the strongest first. From the symbols of earlier groups a small network says, for every
symbol of a group, where its distribution lies and how wide it is. Such a network may stand on both sides of the coder
because all its numbers are integers below 2^24: float32 holds them exactly, and sums come out the same in any order and
on every processor. docs/wire-format.md is the norm.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import TablesError
from splitcodec.wire.npz import read_arrays
from splitcodec.wire.tables import MAX_LEVELS, Tables, canonical_bytes

Floats = NDArray[np.float32]

FILE: Final = "contexts.npz"
MAX_BYTES: Final = 64 << 20
LARGEST: Final = 7  # a symbol's magnitude, as the network sees it
HIGHEST: Final = 255  # a number between its layers
EIGHTHS: Final = 8  # of a symbol, in which means are counted
FARTHEST: Final = 64 * EIGHTHS  # a mean
SHIFTS: Final = (2.0, 64.0, 128.0, 256.0)  # behind the first and second layer, a mean, a width
TAPS: Final = 9
_EXACT: Final = 1 << 24
_MOST_HIDDEN: Final = 256
_MOST_ROWS: Final = 4096

DTYPES: Final = {
    "order_c": "<i4",
    "group_g": "<i4",
    "base_lkc": "<i4",
    "into_lha": "|i1",
    "into_bias_lgh": "<i4",
    "taps_lght": "|i1",
    "taps_bias_lgh": "<i4",
    "out_lkch": "|i1",
    "out_bias_lkc": "<i4",
    "freq_ks": "<u4",
    "size_k": "<i4",
    "offset_k": "<i4",
}
_DIMENSIONS: Final = {name: len(name.rpartition("_")[2]) for name in DTYPES}


@final
@dataclass(frozen=True, slots=True, eq=False)
class Contexts:
    """The networks, one a level, and the rows they choose from; every array is checked.

    `order_c` (C,): the channels, strongest first. `group_g` (G,): how many of them each group has. `base_lkc`
    (L, 2, C): mean in eighths of a symbol and width of each of them before anything is known. `into_lha` int8
    (L, H, A): first layer of all groups but the first, side by side, each with 2 columns for every channel before it:
    symbols, then magnitudes. `taps_lght` int8 (L, G - 1, H, 9): 3 x 3, each hidden number by itself. `out_lkch` int8
    (L, 2, C - group_g[0], H): means, widths. `*_bias_*`: int32. `freq_ks`, `size_k`, `offset_k`: rows as in `Tables`,
    row 8 * width + fraction. Raises TablesError.
    """

    order_c: NDArray[np.int32]
    group_g: NDArray[np.int32]
    base_lkc: NDArray[np.int32]
    into_lha: NDArray[np.int8]
    into_bias_lgh: NDArray[np.int32]
    taps_lght: NDArray[np.int8]
    taps_bias_lgh: NDArray[np.int32]
    out_lkch: NDArray[np.int8]
    out_bias_lkc: NDArray[np.int32]
    freq_ks: NDArray[np.uint32]
    size_k: NDArray[np.int32]
    offset_k: NDArray[np.int32]

    def __post_init__(self) -> None:
        for name, dtype in DTYPES.items():
            object.__setattr__(self, name, _settled(name, getattr(self, name), np.dtype(dtype)))
        self._check_shapes()
        self._check_sums()

    @property
    def levels(self) -> int:
        """Number of rate levels."""
        return int(self.base_lkc.shape[0])

    @property
    def channels(self) -> int:
        """Number of latent channels."""
        return len(self.order_c)

    @property
    def widths(self) -> int:
        """Number of widths."""
        return len(self.size_k) // EIGHTHS

    def rows(self) -> Tables:
        """Return the rows as tables of one level, in which channel k has row k. Raises TablesError."""
        count = len(self.size_k)
        return Tables(
            freq_ks=self.freq_ks,
            size_k=self.size_k,
            offset_k=self.offset_k,
            table_of_lxc=np.arange(count, dtype=np.int32).reshape(1, 1, count),
            gain_lc=np.ones((1, count), np.float32),
        )

    def networks(self, level: int) -> list[Network]:
        """Return what each group but the first is told by, in the floats that it is computed in. Raises TablesError."""
        if not 0 <= level < self.levels:
            raise TablesError(f"level {level}: these contexts have levels 0 to {self.levels - 1}")
        starts, found, begin = self.starts(), list[Network](), 0
        for group, (first, last) in enumerate(pairwise(starts[1:])):
            end = begin + 2 * first
            out = slice(first - starts[1], last - starts[1])
            bias_h = self.into_bias_lgh[level, group] + int(SHIFTS[0]) // 2
            taps_bias_h = self.taps_bias_lgh[level, group] + int(SHIFTS[1]) // 2
            out_bias_kc = self.out_bias_lkc[level, :, out] + np.array(SHIFTS[2:], np.int32)[:, None] // 2
            found.append(
                Network(
                    into_ha=self.into_lha[level, :, begin:end].astype(np.float32),
                    into_bias_h1=bias_h[:, None].astype(np.float32),
                    taps_th11=self.taps_lght[level, group].T[:, :, None, None].astype(np.float32),
                    taps_bias_h11=taps_bias_h[:, None, None].astype(np.float32),
                    out_kch=self.out_lkch[level, :, out].astype(np.float32),
                    out_bias_kc1=out_bias_kc[:, :, None].astype(np.float32),
                )
            )
            begin = end
        return found

    def shared_bytes(self) -> bytes:
        """Return the canonical bytes of all arrays, for the fingerprint; see `Tables.shared_bytes`."""
        return canonical_bytes(self, DTYPES)

    def dump(self) -> bytes:
        """Return the file: a compressed .npz without pickles."""
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **{name: getattr(self, name) for name in DTYPES})
        return file.getvalue()

    @staticmethod
    def load(data: bytes, *, what: str = FILE) -> Contexts:
        """Return the contexts in the .npz file `data`. Raises BundleFormat if it is no such file, TablesError."""
        expected = {name: (dtype, _DIMENSIONS[name]) for name, dtype in DTYPES.items()}
        return Contexts(**read_arrays(data, expected=expected, max_bytes=MAX_BYTES, what=what))

    def starts(self) -> list[int]:
        """Return the first channel, in their order, of every group, and the number of all."""
        return [0, *np.cumsum(self.group_g).tolist()]

    def _check_shapes(self) -> None:
        channels, groups = len(self.order_c), len(self.group_g)
        if not np.array_equal(np.sort(self.order_c), np.arange(channels)) or not channels:
            raise TablesError(f"order_c: no order of {channels} channels")
        if not groups or self.group_g.min() < 1 or int(self.group_g.sum()) != channels:
            raise TablesError(f"group_g: {self.group_g.tolist()[:20]}; expected at least 1 of {channels} channels each")
        levels, hidden = self.base_lkc.shape[0], self.taps_lght.shape[2]
        if not (1 <= levels <= MAX_LEVELS and 1 <= hidden <= _MOST_HIDDEN):
            raise TablesError(
                f"{levels} levels, {hidden} hidden numbers; expected 1 to {MAX_LEVELS}, 1 to {_MOST_HIDDEN}"
            )
        starts = self.starts()
        later = channels - starts[1]
        expected = {
            "base_lkc": (levels, 2, channels),
            "into_lha": (levels, hidden, 2 * sum(starts[1:-1])),
            "into_bias_lgh": (levels, groups - 1, hidden),
            "taps_lght": (levels, groups - 1, hidden, TAPS),
            "taps_bias_lgh": (levels, groups - 1, hidden),
            "out_lkch": (levels, 2, later, hidden),
            "out_bias_lkc": (levels, 2, later),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise TablesError(f"{name}: shape {getattr(self, name).shape}, expected {shape}")
        count = len(self.size_k)
        if count % EIGHTHS or not 0 < count <= _MOST_ROWS:
            raise TablesError(f"{count} rows; expected {EIGHTHS} for every width, at most {_MOST_ROWS}")
        self.rows()

    def _check_sums(self) -> None:
        """Refuse weights whose sums may leave the integers that float32 holds."""
        starts = self.starts()
        ends = np.cumsum([0, *(2 * start for start in starts[1:-1])])
        for first, last, group in zip(ends[:-1], ends[1:], range(len(starts) - 2), strict=True):
            weight_lha = self.into_lha[:, :, first:last]
            _exact("into_lha", LARGEST * _sum(weight_lha), self.into_bias_lgh[:, group])
        _exact("taps_lght", HIGHEST * _sum(self.taps_lght), self.taps_bias_lgh)
        _exact("out_lkch", HIGHEST * _sum(self.out_lkch), self.out_bias_lkc)
        if self.base_lkc.size and np.abs(self.base_lkc.astype(np.int64)).max() >= _EXACT:
            raise TablesError(f"base_lkc: numbers of {_EXACT} and more")


class Network(NamedTuple):
    """One group's network: integers, as float32; each bias holds half of its shift as well."""

    into_ha: Floats
    into_bias_h1: Floats
    taps_th11: Floats
    taps_bias_h11: Floats
    out_kch: Floats
    out_bias_kc1: Floats

    def __call__(self, seen_an: Floats, grid: tuple[int, int]) -> Floats:
        """Return what symbols and magnitudes (A, places) add to means and widths: integers (2, channels, places)."""
        sums_hn = self.into_ha @ seen_an
        sums_hn += self.into_bias_h1
        hidden_hn = _settled_sums(sums_hn, SHIFTS[0])
        padded_hij = np.zeros((len(hidden_hn), grid[0] + 2, grid[1] + 2), np.float32)
        padded_hij[:, 1:-1, 1:-1] = hidden_hn.reshape(-1, *grid)
        sums_hij = np.empty((len(hidden_hn), *grid), np.float32)
        sums_hij[:] = self.taps_bias_h11
        part_hij = np.empty_like(sums_hij)
        for tap, weight_h11 in enumerate(self.taps_th11):
            down, right = divmod(tap, 3)
            np.multiply(padded_hij[:, down : down + grid[0], right : right + grid[1]], weight_h11, out=part_hij)
            sums_hij += part_hij
        hidden_hn = _settled_sums(sums_hij.reshape(len(hidden_hn), -1), SHIFTS[1])
        out_kcn = self.out_kch @ hidden_hn
        out_kcn += self.out_bias_kc1
        for sums_cn, shift in zip(out_kcn, SHIFTS[2:], strict=True):
            np.floor(np.multiply(sums_cn, np.float32(1 / shift), out=sums_cn), out=sums_cn)
        return out_kcn


@final
class Reading:
    """One packet's symbols, group by group: ask for `rows`, then `put` the group's symbols, and so on.

    `networks` are those of its level, `grid` its rows and columns.
    """

    def __init__(self, contexts: Contexts, level: int, networks: Sequence[Network], grid: tuple[int, int]) -> None:
        self._contexts, self._level, self._networks, self._grid = contexts, level, networks, grid
        self._places = grid[0] * grid[1]
        self._seen_2cn = np.zeros((2, contexts.channels, self._places), np.float32)
        self._starts = contexts.starts()
        self._group = 0

    def groups(self) -> Iterator[NDArray[np.int32]]:
        """Yield the channels of each group."""
        for first, last in pairwise(self._starts):
            yield self._contexts.order_c[first:last]

    def rows(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the next group's rows, and what is taken off its symbols first: int32 (channels, places) each."""
        first, last = self._starts[self._group : self._group + 2]
        mean_width_kcn = np.empty((2, last - first, self._places), np.float32)
        mean_width_kcn[:] = self._contexts.base_lkc[self._level, :, first:last, None]
        if self._group:
            seen_an = self._seen_2cn[:, :first].reshape(2 * first, -1)
            mean_width_kcn += self._networks[self._group - 1](seen_an, self._grid)
        mean_cn = np.clip(mean_width_kcn[0], -FARTHEST, FARTHEST).astype(np.int32)
        width_cn = np.clip(mean_width_kcn[1], 0, self._contexts.widths - 1).astype(np.int32)
        mean_cn += EIGHTHS // 2
        return EIGHTHS * width_cn + (mean_cn & EIGHTHS - 1), mean_cn >> 3

    def put(self, symbols_cn: NDArray[np.int32]) -> None:
        """Take a group's symbols into account."""
        first, last = self._starts[self._group : self._group + 2]
        self._seen_2cn[0, first:last] = np.clip(symbols_cn, -LARGEST, LARGEST)
        np.abs(self._seen_2cn[0, first:last], out=self._seen_2cn[1, first:last])
        self._group += 1


def _settled_sums(sums: Floats, shift: float) -> Floats:
    """Divide by a power of two, round down, and keep 0 to 255; in place."""
    sums *= np.float32(1 / shift)
    np.floor(sums, out=sums)
    np.maximum(sums, 0, out=sums)
    return np.minimum(sums, HIGHEST, out=sums)


def _sum(weights: NDArray[np.int8]) -> NDArray[np.int64]:
    magnitudes: NDArray[np.int64] = np.abs(weights.astype(np.int64)).sum(axis=-1)
    return magnitudes


def _exact(name: str, largest: NDArray[np.int64], bias: NDArray[np.int32]) -> None:
    total = largest + np.abs(bias.astype(np.int64)) + int(max(SHIFTS))
    if total.size and total.max() >= _EXACT:
        raise TablesError(f"{name}: sums may reach {int(total.max())}, expected less than {_EXACT}")


def _settled(name: str, value: object, dtype: np.dtype[Any]) -> NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise TablesError(f"{name}: {getattr(value, 'dtype', type(value).__name__)}, expected an array of {dtype.name}")
    if value.ndim != _DIMENSIONS[name]:
        raise TablesError(f"{name}: {value.ndim} dimensions, expected {_DIMENSIONS[name]}")
    array = np.array(value, dtype=dtype.newbyteorder("="), order="C", copy=True)
    array.flags.writeable = False
    return array
