"""Beside stage 2 of 7: whether a picture shows what the last one did that was taken, so that it need not be sent.

Noise, light and a camera's JPEG move every place of the latent a little; whoever walks in moves a few places much. So
what counts is the place that differs most: the root mean square, over the channels, of its difference in symbols of the
bundle's default level, before rounding. How many symbols differ tells next to nothing (`benchmarks/still.py`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import SettingsError

REFRESH_S: Final = 3600.0
"""How long a scene may stand still before a picture of it is sent all the same."""


class Unchanged(Exception):
    """No error: a picture shows what capture `since` shows, and differs from that by `change`."""

    def __init__(self, since: str, change: float) -> None:
        super().__init__(f"as {since}")
        self.since, self.change = since, change

    def to_json(self) -> dict[str, Any]:
        """Return what a line says of such a capture."""
        return {"unchanged_since": self.since, "change": round(self.change, 3)}


def change(before_chw: NDArray[np.float32], after_chw: NDArray[np.float32]) -> float:
    """Return how much two scaled latents (C, rows, columns) differ where they differ most; infinity for other sizes."""
    if before_chw.shape != after_chw.shape:
        return math.inf
    return float(np.sqrt(np.square(after_chw - before_chw).mean(axis=0)).max(initial=0.0))


@final
class Still:
    """Looks at one latent after another, and remembers that of the last capture that was taken.

    What differs from it by less than `least` is unchanged, unless it is `refresh_s` seconds old by then; by default
    nothing is. `gain_c` scales a latent's channels to symbols. Raises SettingsError for numbers below 0, and none.
    """

    def __init__(
        self,
        gain_c: NDArray[np.float32] | None = None,
        *,
        least: float = 0.0,
        refresh_s: float = REFRESH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, number in (("least", least), ("refresh_s", refresh_s)):
            if not number >= 0:
                raise SettingsError(f"{name} {number}; expected at least 0")
        self._gain_c = np.ones(1, np.float32) if gain_c is None else gain_c
        self._least, self._refresh_s, self._clock = least, refresh_s, clock
        self._lock = threading.Lock()  # what was taken may be dropped while the next picture is looked at
        self._seen: NDArray[np.float32] | None = None
        self._taken: tuple[str, NDArray[np.float32], float] | None = None

    def look(self, latent_chw: NDArray[np.float32]) -> None:
        """Look at a picture's latent (C, rows, columns). Raises Unchanged."""
        self._seen = seen = latent_chw * self._gain_c[:, None, None]
        with self._lock:
            taken = self._taken
        if taken is not None and self._clock() - taken[2] < self._refresh_s:
            changed = change(taken[1], seen)
            if changed < self._least:
                raise Unchanged(taken[0], changed)

    def keep(self, capture: str) -> None:
        """Remember what was looked at last: its capture has been taken."""
        if self._seen is not None:
            with self._lock:
                self._taken = capture, self._seen, self._clock()

    def forget(self, capture: str) -> None:
        """Take the next picture whatever it shows, if that capture is the one to look like: it gets no answer."""
        with self._lock:
            if self._taken is not None and self._taken[0] == capture:
                self._taken = None
