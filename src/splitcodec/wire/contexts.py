"""Coding id 2: a symbol's row is chosen by what was coded before it.   before: tables.py   used by: reading.py

Channels are coded in groups, the strongest first, and a group's places in up to four passes, each between those before.
From the symbols of earlier steps a small network says, for every symbol of a step, where its distribution lies and how
wide it is. Such a network may stand on both sides of the coder because all its numbers are integers below 2^24: float32
holds them exactly, and sums come out the same in any order and on every processor. docs/wire-format.md is the norm.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import TablesError
from splitcodec.wire.npz import read_arrays
from splitcodec.wire.tables import EXACT, MAX_LEVELS, Tables, canonical_bytes, expected_arrays, little_endian, settle

FILE: Final = "contexts.npz"
MAX_BYTES: Final = 32 << 20
LARGEST: Final = 7  # a symbol's magnitude, as the network sees it
HIGHEST: Final = 255  # a hidden number
EIGHTHS: Final = 8  # of a symbol, in which means are counted
FARTHEST: Final = 64 * EIGHTHS  # a mean
SHIFTS: Final = (256, 512)  # behind the sums of a mean and of a width
TAPS: Final = 9
PHASES: Final = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Row and column, modulo 2, of the places in the order in which they are coded."""
_ADDED: Final = max(SHIFTS) + SHIFTS[0] * EIGHTHS // 2  # at most, to a sum and its bias: a half, half a symbol
_MOST_HIDDEN: Final = 256
_MOST_ROWS: Final = 4096
_MOST_ENTRIES: Final = 2 << 20  # of all rows; ours have 396,288
_MOST_WEIGHTS: Final = 8 << 20  # of a level, which take four bytes each once a packet needs them; ours have 172,512

DTYPES: Final = {
    "order_c": "<i4",
    "group_g": "<i4",
    "passes_g": "<i4",
    "base_lkc": "<i4",
    "into_lha": "|i1",
    "into_bias_lsh": "<i4",
    "out_lkcht": "|i1",
    "out_bias_lkc": "<i4",
    "freq_ks": "<u4",
    "size_k": "<i4",
    "offset_k": "<i4",
}


class Step(NamedTuple):
    """Channels `first` to `last` of the order, at the places of some phases, which come one after another."""

    group: int
    first: int
    last: int
    phases: tuple[tuple[int, int], ...]
    opens: bool  # its group


def steps_of(group_g: Sequence[int], passes_g: Sequence[int]) -> list[Step]:
    """Return the steps of groups of so many channels, and so many passes (1, 2 or 4)."""
    found, first = list[Step](), 0
    for group, (count, passes) in enumerate(zip(group_g, passes_g, strict=True)):
        each = len(PHASES) // passes
        for begin in range(0, len(PHASES), each):
            found.append(Step(group, first, first + count, PHASES[begin : begin + each], begin == 0))
        first += count
    return found


@final
@dataclass(frozen=True, slots=True, eq=False)
class Contexts:
    """The networks, one a level, and the rows they choose from; every array is checked.

    `order_c` (C,): the channels, strongest first. `group_g`, `passes_g` (G,): how many of them each group has, and in
    how many passes its places are coded. `base_lkc` (L, 2, channels of group 0): means in eighths of a symbol and
    widths of the first step, before which nothing is known. `into_lha` int8 (L, H, A): first layer of all groups side
    by side, each with a column for the symbol and one for its magnitude of every channel before it, and of its own
    channels where it has more than one pass. `into_bias_lsh` (L, S - 1, H): of each step but the first. `out_lkcht`
    int8 (L, 2, channels of these steps, H, 9): means, widths, from 3 x 3 places; `out_bias_lkc` its biases, int32.
    `freq_ks`, `size_k`, `offset_k`: rows as in `Tables`, all of one size and
    offset, row 8 * width + fraction. Raises TablesError.
    """

    order_c: NDArray[np.int32]
    group_g: NDArray[np.int32]
    passes_g: NDArray[np.int32]
    base_lkc: NDArray[np.int32]
    into_lha: NDArray[np.int8]
    into_bias_lsh: NDArray[np.int32]
    out_lkcht: NDArray[np.int8]
    out_bias_lkc: NDArray[np.int32]
    freq_ks: NDArray[np.uint32]
    size_k: NDArray[np.int32]
    offset_k: NDArray[np.int32]

    def __post_init__(self) -> None:
        settle(self, DTYPES)
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

    def steps(self) -> list[Step]:
        """Return the steps in which symbols are coded."""
        return steps_of(self.group_g.tolist(), self.passes_g.tolist())

    def columns(self) -> list[tuple[int, int]]:
        """Return where each group's columns of the first layer begin, and how many it has."""
        found, begin, before = list[tuple[int, int]](), 0, 0
        for count, passes in zip(self.group_g.tolist(), self.passes_g.tolist(), strict=True):
            width = 2 * (before + count if passes > 1 else before)
            found.append((begin, width))
            begin, before = begin + width, before + count
        return found

    def shared_bytes(self) -> bytes:
        """Return the canonical bytes of all arrays, for the fingerprint; see `Tables.shared_bytes`."""
        return canonical_bytes(self, DTYPES)

    def dump(self) -> bytes:
        """Return the file: a compressed .npz without pickles."""
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **little_endian(self, DTYPES))
        return file.getvalue()

    @staticmethod
    def load(data: bytes, *, what: str = FILE) -> Contexts:
        """Return the contexts in the .npz file `data`. Raises BundleFormat if it is no such file, TablesError."""
        return Contexts(**read_arrays(data, expected=expected_arrays(DTYPES), max_bytes=MAX_BYTES, what=what))

    def _check_shapes(self) -> None:
        channels, groups = len(self.order_c), len(self.group_g)
        if not np.array_equal(np.sort(self.order_c), np.arange(channels)) or not channels:
            raise TablesError(f"order_c: no order of {channels} channels")
        if not groups or self.group_g.min() < 1 or int(self.group_g.astype(np.int64).sum()) != channels:
            raise TablesError(f"group_g: {self.group_g.tolist()[:20]}; expected at least 1 of {channels} channels each")
        if len(self.passes_g) != groups or not np.isin(self.passes_g, (1, 2, 4)).all():
            raise TablesError(f"passes_g: {self.passes_g.tolist()[:20]}; expected {groups} of 1, 2 or 4")
        levels, hidden = self.into_lha.shape[:2]
        if not (1 <= levels <= MAX_LEVELS and 1 <= hidden <= _MOST_HIDDEN):
            raise TablesError(
                f"{levels} levels, {hidden} hidden numbers; expected 1 to {MAX_LEVELS}, 1 to {_MOST_HIDDEN}"
            )
        steps = self.steps()
        later = sum(step.last - step.first for step in steps[1:])
        expected = {
            "base_lkc": (levels, 2, int(self.group_g[0])),
            "into_lha": (levels, hidden, sum(width for _, width in self.columns())),
            "into_bias_lsh": (levels, len(steps) - 1, hidden),
            "out_lkcht": (levels, 2, later, hidden, TAPS),
            "out_bias_lkc": (levels, 2, later),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise TablesError(f"{name}: shape {getattr(self, name).shape}, expected {shape}")
        weights = (self.into_lha.size + self.out_lkcht.size) // levels
        if weights > _MOST_WEIGHTS:
            raise TablesError(f"{weights} weights for each level; expected at most {_MOST_WEIGHTS}")
        count = len(self.size_k)
        if count % EIGHTHS or not 0 < count <= _MOST_ROWS:
            raise TablesError(f"{count} rows; expected {EIGHTHS} for every width, at most {_MOST_ROWS}")
        if self.freq_ks.size > _MOST_ENTRIES:  # each is a Python integer where constriction is missing
            raise TablesError(f"freq_ks: {self.freq_ks.size} frequencies; expected at most {_MOST_ENTRIES}")
        if len(set(self.size_k.tolist())) > 1 or len(set(self.offset_k.tolist())) > 1:
            raise TablesError("size_k, offset_k: rows of several sizes or offsets; expected them all alike")
        self.rows()

    def _check_sums(self) -> None:
        """Refuse weights whose sums may leave the integers that float32 holds."""
        first = 0  # of a group's steps
        for (begin, width), passes in zip(self.columns(), self.passes_g.tolist(), strict=True):
            bias_lsh = self.into_bias_lsh[:, max(first - 1, 0) : first + passes - 1]  # the very first step has none
            largest_lh = LARGEST * _sum(self.into_lha[:, :, begin : begin + width])
            _exact("into_lha", largest_lh[:, None], bias_lsh)
            first += passes
        _exact("out_lkcht", HIGHEST * _sum(self.out_lkcht).sum(axis=-1), self.out_bias_lkc)
        if np.abs(self.base_lkc.astype(np.int64)).max() + _ADDED >= EXACT:
            raise TablesError(f"base_lkc: numbers of {EXACT - _ADDED} and more")


def _sum(weights: NDArray[np.int8]) -> NDArray[np.int64]:
    """Return the sum of magnitudes over the last axis, level by level: a file of strangers may unpack to much."""
    parts = [np.abs(part.astype(np.int16)).sum(axis=-1, dtype=np.int64) for part in weights]
    return np.stack(parts)


def _exact(name: str, largest: NDArray[np.int64], bias: NDArray[np.int32]) -> None:
    total = largest + np.abs(bias.astype(np.int64)) + _ADDED
    if total.size and total.max() >= EXACT:
        raise TablesError(f"{name}: sums may reach {int(total.max())}, expected less than {EXACT}")
