"""Under coding id 2, step by step: which row each symbol has.   before: contexts.py   after: context_coder.py

Both shores go through the same steps: the rows of a step, then its symbols. Places stand in the order in which they are
coded, phase by phase, so that a step's are neighbours; one more stands for all that lie outside of the grid.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import TablesError
from splitcodec.wire.contexts import EIGHTHS, FARTHEST, HIGHEST, LARGEST, PHASES, SHIFTS, TAPS, Contexts, Step

Floats = NDArray[np.float32]

_GRIDS: Final = 16  # whose places are kept; strangers choose grids
_ALONE: Final = 1 << 18  # products up to which OpenBLAS multiplies in the calling thread
_ROWS: Final = 128  # of a piece, at most
_PIECE: Final = 4096  # places whose surroundings are laid side by side: nine times their hidden numbers
_ONE_THREAD: Final = "1" in (os.environ.get(f"{name}_NUM_THREADS") for name in ("OPENBLAS", "OMP"))
"""Whether OpenBLAS was told to start none."""


class Network(NamedTuple):
    """What a step is told by: integers, as the float32 that they are computed in; means first, then widths."""

    step: Step
    earlier_ah: Floats  # for the groups before: of each in turn all symbols, then all magnitudes
    own_ah: Floats  # for the group's own symbols of passes before; no rows in a first pass
    bias_h: Floats
    out_xy: Floats  # x: hidden numbers of 3 x 3 places, y: means and widths of its channels; over 2 to the shift
    bias_y: Floats  # so as well, with a half, half a symbol on means, and what makes means count from nought;
    # what that takes beyond 2^24 lies far above `high_y`, so its rounding does not count
    low_y: Floats
    high_y: Floats


class Places(NamedTuple):
    """A grid's places in the order in which they are coded."""

    raster_n: NDArray[np.intp]  # where they are in the grid, row by row
    around_nt: NDArray[np.intp]  # the 3 x 3 around each; len(raster_n) stands for outside
    ends: tuple[int, ...]  # of each phase


def networks_of(contexts: Contexts, level: int) -> list[Network]:
    """Return every step's network at a level; the first has no inputs. Raises TablesError for another level."""
    if not 0 <= level < contexts.levels:
        raise TablesError(f"level {level}: these contexts have levels 0 to {contexts.levels - 1}")
    found, begin, columns, hidden = list[Network](), 0, contexts.columns(), contexts.into_lha.shape[1]
    ends = np.cumsum(contexts.group_g)
    of_group = [2 * np.arange(end - count, end) for count, end in zip(contexts.group_g, ends, strict=True)]
    blocks = np.concatenate([one for even in of_group for one in (even, even + 1)])  # a column each for both, in a file
    for number, step in enumerate(contexts.steps()):
        count, (left, width) = step.last - step.first, columns[step.group]
        into_ah = contexts.into_lha[level][:, left + blocks[:width]].T.astype(np.float32)
        out_kcht, bias_kc = np.zeros((2, count, hidden, 0), np.int8), contexts.base_lkc[level]
        shifts, bias_h = (1, 1), np.zeros(hidden, np.int32)
        if number:
            out_kcht = contexts.out_lkcht[level, :, begin : begin + count]
            bias_kc = contexts.out_bias_lkc[level, :, begin : begin + count]
            shifts, bias_h = SHIFTS, contexts.into_bias_lsh[level, number - 1]
            begin += count
        scale_y: Floats = np.repeat(np.float32(1) / np.array(shifts, np.float32), count)
        out_xy: Floats = out_kcht.transpose(3, 2, 0, 1).reshape(-1, 2 * count).astype(np.float32)
        out_xy *= scale_y
        half_y = np.repeat(np.array((EIGHTHS // 2 + FARTHEST, 0), np.float32), count)
        bias_y = (bias_kc + np.array(shifts, np.int32)[:, None] // 2).ravel()
        found.append(
            Network(
                step=step,
                earlier_ah=np.ascontiguousarray(into_ah[: 2 * step.first]),
                own_ah=np.ascontiguousarray(into_ah[2 * step.first :][: 0 if step.opens else None]),
                bias_h=bias_h.astype(np.float32),
                out_xy=out_xy,
                bias_y=bias_y.astype(np.float32) * scale_y + half_y,
                low_y=np.repeat(np.array((EIGHTHS // 2, 0), np.float32), count),
                high_y=np.repeat(np.array((2 * FARTHEST + EIGHTHS // 2, contexts.widths - 1), np.float32), count),
            )
        )
    return found


@lru_cache(_GRIDS)
def places_of(grid: tuple[int, int]) -> Places:
    """Return the places of a grid of so many rows and columns."""
    rows, cols = grid
    raster_ij = np.arange(rows * cols).reshape(grid)
    phases = [raster_ij[down::2, right::2].ravel() for down, right in PHASES]
    raster_n = np.concatenate(phases)
    number_ij = np.full((rows + 2, cols + 2), rows * cols)
    number_ij[1:-1, 1:-1].flat[raster_n] = np.arange(rows * cols)
    i_n, j_n = raster_n // cols, raster_n % cols
    around = [number_ij[i_n + tap // 3, j_n + tap % 3] for tap in range(TAPS)]
    ends = np.cumsum([len(phase) for phase in phases]).tolist()
    return Places(raster_n, np.ascontiguousarray(np.stack(around, axis=1)), tuple(ends))


def in_order(symbols_chw: NDArray[np.int32], contexts: Contexts) -> NDArray[np.int32]:
    """Return symbols (C, H, W) as they are coded: (places, channels)."""
    symbols_cn = symbols_chw.reshape(len(symbols_chw), -1)
    grid = symbols_chw.shape[1], symbols_chw.shape[2]
    return np.ascontiguousarray(symbols_cn[contexts.order_c].T)[places_of(grid).raster_n]


@final
class Reading:
    """The symbols of one packet, or of some of one level and grid side by side.

    For every step ask for its `rows`, or what they come of, then `put` its symbols: (packets, places, channels) each.
    Who has them all, the device, may `see` them beforehand, and goes `on` instead. `networks` are those of the level,
    `grid` its rows and columns.
    """

    def __init__(self, networks: list[Network], grid: tuple[int, int], *, packets: int = 1) -> None:
        self._networks, self._places = networks, places_of(grid)
        count, hidden = len(self._places.raster_n) + 1, len(networks[0].bias_h)
        self._seen_bna = np.zeros((packets, count, 2 * networks[-1].step.last), np.float32)
        self._seen_na = self._seen_bna.reshape(packets * count, -1)
        self._earlier_nh = np.zeros((packets * count, hidden), np.float32)
        self._hidden_nh = np.empty((packets * count, hidden), np.float32)
        self._hidden_bnh = self._hidden_nh.reshape(packets, count, hidden)
        self._own_nh = np.empty((count, hidden), np.float32)  # of one packet at a time
        self._number = 0
        self.part = self._part()
        """Which places, in their order, and which channels, in theirs, are the step's."""

    def rows(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the step's rows, and what is taken off its symbols first: int32 (packets, places, channels) each."""
        return rows_of(*self.told())

    def told(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the step's means, in eighths from -`FARTHEST` on, and widths: int32 (packets, places, channels)."""
        network, (places, channels) = self._networks[self._number], self.part
        count, packets = channels.stop - channels.start, len(self._seen_bna)
        if self._number:
            self._hide(network, places)
            around_nt = self._places.around_nt[places]
            out_ny = np.empty((packets * len(around_nt), 2 * count), np.float32)
            piece = len(around_nt) if packets > 1 else _PIECE  # few where there are several, see context_coder.py
            for begin in range(0, len(around_nt), max(1, piece)):
                around_bnh = self._hidden_bnh.take(around_nt[begin : begin + piece].ravel(), axis=1)
                around_nx = around_bnh.reshape(-1, len(network.out_xy))
                _multiply(around_nx, network.out_xy, out_ny[begin : begin + len(around_nx)])
            out_ny += network.bias_y
        else:
            out_ny = np.repeat(network.bias_y[None], packets * places.stop, axis=0)
        np.maximum(out_ny, network.low_y, out=out_ny)
        told_ny = np.minimum(out_ny, network.high_y, out=out_ny).astype(np.int32)  # not below 0, so as by floor
        shape = (packets, places.stop - places.start, count)
        return told_ny[:, :count].reshape(shape), told_ny[:, count:].reshape(shape)

    def put(self, symbols_bnc: NDArray[np.int32]) -> None:
        """Take the step's symbols into account, and go on to the next."""
        self._write(*self.part, symbols_bnc)
        self.on()

    def see(self, symbols_bnc: NDArray[np.int32]) -> None:
        """Take all symbols, (packets, places, channels), into account before the first step."""
        everywhere = slice(symbols_bnc.shape[1])
        for network in self._networks:
            if network.step.opens:
                channels = slice(network.step.first, network.step.last)
                self._write(everywhere, channels, symbols_bnc[:, :, channels])

    def on(self) -> None:
        """Go on to the next step."""
        self._number += 1
        if self._number < len(self._networks):
            self.part = self._part()

    def _write(self, places: slice, channels: slice, symbols_bnc: NDArray[np.int32]) -> None:
        middle = channels.start + channels.stop
        signed_bnc = self._seen_bna[:, places, 2 * channels.start : middle]
        np.clip(symbols_bnc, -LARGEST, LARGEST, out=signed_bnc, casting="unsafe")
        np.abs(signed_bnc, out=self._seen_bna[:, places, middle : 2 * channels.stop])

    def _part(self) -> tuple[slice, slice]:
        step, ends = self._networks[self._number].step, (0, *self._places.ends)
        begin = PHASES.index(step.phases[0])
        return slice(ends[begin], ends[begin + len(step.phases)]), slice(step.first, step.last)

    def _hide(self, network: Network, places: slice) -> None:
        """Compute the hidden numbers that the step's places are told by."""
        step, hidden_nh = network.step, self._hidden_nh
        if step.opens:
            _multiply(self._seen_na[:, : 2 * step.first], network.earlier_ah, self._earlier_nh)
            np.add(self._earlier_nh, network.bias_h, out=hidden_nh)
        else:
            np.add(self._earlier_nh, network.bias_h, out=hidden_nh)
            for seen_na, hidden_bh in zip(self._seen_bna, self._hidden_bnh, strict=True):
                own_nh = self._own_nh[: places.start]  # of places of passes before alone
                _multiply(seen_na[: places.start, 2 * step.first : 2 * step.last], network.own_ah, own_nh)
                hidden_bh[: places.start] += own_nh
        np.clip(hidden_nh, 0, HIGHEST, out=hidden_nh)


def rows_of(mean_n: NDArray[np.int32], width_n: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the rows of symbols told so, and what is taken off them first."""
    row_n, whole_n = width_n * EIGHTHS, mean_n >> 3
    row_n += mean_n & EIGHTHS - 1
    whole_n -= FARTHEST // EIGHTHS
    return row_n, whole_n


def _multiply(left_nk: Floats, right_km: Floats, out_nm: Floats) -> None:
    """Multiply matrices, piece by piece where the library would start threads for the whole.

    They would spin beside those of ONNX Runtime and of other requests, and took half of a server's answers. Sums of
    pieces are exact, as all sums here are.
    """
    (count, inner), columns = left_nk.shape, right_km.shape[1]
    if _ONE_THREAD or count * inner * columns <= _ALONE:
        np.matmul(left_nk, right_km, out=out_nm)
        return
    rows = -(-count // -(-count // _ROWS))
    depth = max(1, _ALONE // (rows * columns))
    for top in range(0, count, rows):
        left_rk, out_rm = left_nk[top : top + rows], out_nm[top : top + rows]
        np.matmul(left_rk[:, :depth], right_km[:depth], out=out_rm)
        for begin in range(depth, inner, depth):
            out_rm += np.matmul(left_rk[:, begin : begin + depth], right_km[begin : begin + depth])
