"""Beside stages 3 and 4 of 7: how many bytes a packet may have, and which level and symbols fit.   used by: client.py

A latent is priced at every level out of the integer tables, after one run of the encoder; the packet that is sent is
made and measured, so it never exceeds its limit. Where even the lowest level does not fit, symbols may be moved to
cheaper values of their tables, and the picture be taken smaller (client.py). Any edge decodes the result, for it
is a packet like any other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.device.fitting import MOST_SAVED, Offer, highest_fitting, may_fit
from splitcodec.errors import BudgetTooSmall, SettingsError
from splitcodec.wire.given import whole
from splitcodec.wire.packet import SMALLEST
from splitcodec.wire.tables import PRECISION_BITS, Tables

_MOST_LEFT = 1e15  # bytes: a product of large numbers may be none
_TURNS = 14  # of bisection; the multiplier is then known to 1 in 16,000

Pack = Callable[[NDArray[np.int32], int], bytes]


@final
@dataclass(frozen=True, slots=True)
class Deadline:
    """An answer within `ms` milliseconds of the picture's arrival, over a link of `kbit_per_s` (1000 bits a second).

    `rtt_ms` is the link's round trip and `edge_ms` what the edge needs; both, and the time that encoding took, are
    taken off before bytes are counted. `around` are the bytes that the link carries beside the packet: the answer, and
    what a protocol puts around both. Raises SettingsError.
    """

    ms: float
    kbit_per_s: float
    rtt_ms: float = 0.0
    edge_ms: float = 0.0
    around: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (("deadline", self.ms, 0), ("rate in kbit/s", self.kbit_per_s, 0)):
            if not (math.isfinite(value) and value > least):
                raise SettingsError(f"a {name} of {value}; expected more than {least}")
        for name, value in (("round trip", self.rtt_ms), ("time at the edge", self.edge_ms)):
            if not (math.isfinite(value) and value >= 0):
                raise SettingsError(f"a {name} of {value} ms; expected 0 or more")
        if self.around < 0:
            raise SettingsError(f"{self.around} bytes around a packet; expected 0 or more")

    def bytes_left(self, spent_ms: float) -> int:
        """Return how many bytes a packet may have to arrive in time when `spent_ms` are gone; 0 where none does."""
        left = (self.ms - spent_ms - self.rtt_ms - self.edge_ms) * self.kbit_per_s / 8
        return max(0, int(min(left, _MOST_LEFT)) - self.around)


class Fitted(NamedTuple):
    """A packet within its limit, its level, and how many symbols were moved to make it fit."""

    packet: bytes
    level: int
    dropped: int


@final
class Prices:
    """What symbols cost by one bundle's tables, and what fits; safe to share between threads.

    `saving` is the share of their price that packets are taken to save until one was made.
    """

    def __init__(self, tables: Tables, *, saving: float = 0.0) -> None:
        self._tables = tables
        self._saving = saving
        used_ks = tables.freq_ks > 0
        price_ks: NDArray[np.float32] = np.full(tables.freq_ks.shape, np.inf, np.float32)
        price_ks[used_ks] = PRECISION_BITS - np.log2(tables.freq_ks[used_ks])
        self._price_ks = price_ks

    def bits(self, symbols_chw: NDArray[np.int32], level: int) -> float:
        """Return the ideal code length of (C, H, W) symbols within the tables' range, in bits."""
        row_c = self._tables.rows_of(level)
        widest = self._price_ks.shape[1]
        first_c = row_c * widest - self._tables.offset_k[row_c]
        return float(self._price_ks.ravel()[symbols_chw + first_c[:, None, None]].sum(dtype=np.float64))

    def cheapest(self, level: int) -> NDArray[np.int32]:
        """Return each channel's symbol of the fewest bits at `level`: int32 (C,)."""
        row_c = self._tables.rows_of(level)
        cheapest_c: NDArray[np.int32] = (self._tables.offset_k[row_c] + self._price_ks[row_c].argmin(axis=1)).astype(
            np.int32
        )
        return cheapest_c

    def floor(self, grid: tuple[int, int], *, pack: Pack) -> int:
        """Return the bytes of the packet whose symbols are all the cheapest ones, for a grid of (rows, columns)."""
        cheapest_c = self.cheapest(0)
        flat_chw = np.repeat(cheapest_c, grid[0] * grid[1]).reshape(len(cheapest_c), *grid)
        return len(pack(flat_chw, 0))

    def fit(
        self,
        latent_chw: NDArray[np.float32],
        max_bytes: int,
        *,
        pack: Pack,
        highest: int,
        force: bool = False,
        what: str | None = None,
        least_grid: tuple[int, int] | None = None,
    ) -> Fitted:
        """Return the packet of the highest level, at most `highest`, that has at most `max_bytes` bytes.

        With `force`, where none has, symbols of level 0 are moved to cheaper values, those first that save the most
        bits per squared error. `pack` makes a packet of symbols and a level; `what` says which deadline sets
        the limit, `least_grid` the rows and columns that the picture can be brought down to (none: this latent's).

        Raises BudgetTooSmall with the smallest size that is possible.
        """

        def offer(level: int) -> Offer:
            symbols_chw = self._tables.quantise(latent_chw, level)
            return Offer(self.bits(symbols_chw, level) / 8, lambda: pack(symbols_chw, level))

        packet, level, smallest = highest_fitting(offer, max_bytes, highest=highest, saving=self._saving)
        if packet is not None:
            return Fitted(packet, level, 0)
        if force:
            found = self._forced(latent_chw, max_bytes, pack=pack)
            if found is not None:
                return found
        raise self._too_small(
            latent_chw, max_bytes, pack=pack, smallest=smallest, force=force, what=what, grid=least_grid
        )

    def trimmed(self, latent_chw: NDArray[np.float32], level: int, *, multiplier: float) -> NDArray[np.int32]:
        """Return the symbols that minimise squared error + `multiplier` x bits, each by itself: int32 (C, H, W).

        The error is that of the latent after its gain, so that a step weighs the same in every channel. Symbols only
        move towards their table's cheapest value, and only to values that cost fewer bits.
        """
        tables = self._tables
        symbols_chw = tables.quantise(latent_chw, level)
        row_c = tables.rows_of(level)
        symbols_cn = symbols_chw.reshape(len(row_c), -1)
        cheapest_c = self.cheapest(level)
        channel_m, place_m = np.nonzero(symbols_cn != cheapest_c[:, None])  # the others cannot get cheaper
        symbol_m, goal_m = symbols_cn[channel_m, place_m], cheapest_c[channel_m]
        row_m = row_c[channel_m]
        scaled_m = latent_chw.reshape(len(row_c), -1)[channel_m, place_m] * tables.gain_lc[level][channel_m]
        low_m, high_m = np.minimum(symbol_m, goal_m), np.maximum(symbol_m, goal_m)
        widest = int(tables.size_k[row_c].max())
        value_ms = np.arange(widest)[None, :] + tables.offset_k[row_m][:, None]
        within_ms = (value_ms >= low_m[:, None]) & (value_ms <= high_m[:, None])
        cost_ms = np.square(value_ms - scaled_m[:, None], dtype=np.float64)
        cost_ms += multiplier * np.where(within_ms, self._price_ks[row_m, :widest], 0.0)
        cost_ms[~within_ms] = np.inf
        moved_cn = symbols_cn.copy()
        moved_cn[channel_m, place_m] = tables.offset_k[row_m] + cost_ms.argmin(axis=1)
        return moved_cn.reshape(symbols_chw.shape)

    def _forced(self, latent_chw: NDArray[np.float32], max_bytes: int, *, pack: Pack) -> Fitted | None:
        """Return the level-0 packet with the fewest symbols moved that fits; None if not even the cheapest one does."""
        plain_chw, found = self._tables.quantise(latent_chw, 0), None
        low, high = 0.0, 1.0
        while found is None:
            found = self._tried(latent_chw, high, max_bytes, pack=pack)
            if found is None:
                if high > 1e9:  # every symbol has its cheapest value by now
                    return None
                low, high = high, high * 8
        for _ in range(_TURNS):
            middle = (low + high) / 2
            tried = self._tried(latent_chw, middle, max_bytes, pack=pack)
            if tried is None:
                low = middle
            else:
                high, found = middle, tried
        packet, symbols_chw = found
        return Fitted(packet, 0, int(np.count_nonzero(symbols_chw != plain_chw)))

    def _tried(
        self, latent_chw: NDArray[np.float32], multiplier: float, max_bytes: int, *, pack: Pack
    ) -> tuple[bytes, NDArray[np.int32]] | None:
        symbols_chw = self.trimmed(latent_chw, 0, multiplier=multiplier)
        if not may_fit(self.bits(symbols_chw, 0) / 8, max_bytes, saving=MOST_SAVED if self._saving else 0.0):
            return None
        packet = pack(symbols_chw, 0)
        return (packet, symbols_chw) if len(packet) <= max_bytes else None

    def _too_small(
        self,
        latent_chw: NDArray[np.float32],
        max_bytes: int,
        *,
        pack: Pack,
        smallest: tuple[int, int] | None,
        force: bool,
        what: str | None,
        grid: tuple[int, int] | None,
    ) -> BudgetTooSmall:
        bare = self.floor((latent_chw.shape[1], latent_chw.shape[2]) if grid is None else grid, pack=pack)
        limit = what or f"{max_bytes} bytes"
        allow = "allow that many" if what is None else "set a later deadline"
        if force or smallest is None:
            return BudgetTooSmall(
                f"{limit}: with all symbols dropped a packet of this picture still has {bare} bytes; {allow}",
                smallest=bare,
            )
        size, level = smallest
        return BudgetTooSmall(
            f"{limit}: the smallest packet of this picture has {size} bytes (level {level}); {allow}, or "
            f"force a fit (--force-fit, force_fit=True), down to {bare}",
            smallest=size,
        )


@final
class RateKeeper:
    """Keeps a stream of packets at an average rate: a token bucket over the last `window_s` seconds.

    Tokens come in at `kbit_per_s` (1000 bits a second) and are kept for one window, so any T seconds carry at most
    what T + `window_s` seconds earn. It begins with a full window. Not to be shared between threads.

    `clock` gives seconds that never go back. Raises SettingsError.
    """

    def __init__(
        self, kbit_per_s: float, *, window_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not (math.isfinite(kbit_per_s) and kbit_per_s > 0):
            raise SettingsError(f"a rate of {kbit_per_s} kbit/s; expected more than 0")
        if not (math.isfinite(window_s) and window_s > 0):
            raise SettingsError(f"a window of {window_s} s; expected more than 0")
        self._bytes_per_s = kbit_per_s * 125
        self.most = int(self._bytes_per_s * window_s)
        if self.most < SMALLEST:
            raise SettingsError(
                f"{kbit_per_s:g} kbit/s over {window_s:g} s are {self.most} bytes, fewer than the smallest packet has "
                f"({SMALLEST}); widen the window"
            )
        self._clock = clock
        self._tokens, self._at = float(self.most), clock()

    def allowance(self) -> int:
        """Return how many bytes may be sent now."""
        self._earn()
        return max(0, int(self._tokens))

    def spend(self, n_bytes: int) -> None:
        """Take off what was sent."""
        self._earn()
        self._tokens -= n_bytes

    def wait_s(self, n_bytes: int) -> float:
        """Return the seconds until `n_bytes` may be sent: 0 if they may now, infinity if a full window is too small."""
        self._earn()
        if n_bytes > self.most:
            return math.inf
        return max(0.0, (n_bytes - self._tokens) / self._bytes_per_s)

    def _earn(self) -> None:
        now = self._clock()
        self._tokens = min(float(self.most), self._tokens + (now - self._at) * self._bytes_per_s)
        self._at = now


def checked_max_bytes(value: Any) -> int:
    """Return a byte limit as an int. Raises SettingsError for anything but an integer of at least 13."""
    number = whole(value)
    if number is None or number < SMALLEST:
        raise SettingsError(f"max_bytes {value!r:.40}; expected an integer of at least {SMALLEST}, the smallest packet")
    return number


def check_deadline(value: object) -> None:
    """Refuse what is neither a deadline nor none. Raises SettingsError."""
    if not isinstance(value, Deadline | None):
        raise SettingsError(f"deadline {value!r:.40}; expected Deadline(ms, kbit_per_s=...)")
