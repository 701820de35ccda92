"""One core for the device, the rest for the edge, where the system lets us choose."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final


@final
class Cores:
    """The cores that this process may use, shared out; with a single core both shores share it."""

    def __init__(self) -> None:
        self.pins = hasattr(os, "sched_setaffinity")
        self._all = os.sched_getaffinity(0) if self.pins else set(range(os.cpu_count() or 1))
        self.device = {min(self._all)}
        self.edge = self._all - self.device or self.device

    @contextmanager
    def on(self, cores: set[int]) -> Iterator[None]:
        """Run this thread, and the threads and processes that it starts, on those cores."""
        if not self.pins:
            yield
            return
        os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._all)

    def to_json(self) -> dict[str, object]:
        """Return who had what."""
        return {
            "device": len(self.device),
            "edge": len(self.edge),
            "shared": self.device == self.edge,
            "pinned": self.pins,
        }
