"""The processor's power, out of RAPL's counters where the system lets us read them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

from latency_parts.cores import Cores
from latency_parts.strategies import Strategy

POWERCAP = Path("/sys/class/powercap")


@final
class Rapl:
    """Energy counters of all processor packages, in microjoules; they wrap."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self._packages = [path for path in sorted(root.glob("intel-rapl:*")) if path.name.count(":") == 1]

    def read(self) -> list[int] | None:
        """Return each package's counter; None where there is none or it may not be read."""
        try:
            return [int((one / "energy_uj").read_text(encoding="ascii")) for one in self._packages] or None
        except (OSError, ValueError):
            return None

    def joules(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Return what all packages spent between two readings."""
        spent = 0
        for package, low, high in zip(self._packages, before, after, strict=True):
            span = int((package / "max_energy_range_uj").read_text(encoding="ascii")) if high < low else 0
            spent += high - low + span
        return spent / 1e6


def watts(
    strategy: Strategy,
    pictures: Sequence[bytes],
    *,
    rapl: Rapl,
    cores: Cores,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> float | None:
    """Return the mean power of the processor while the device's half runs for that long; None without RAPL.

    What else the processor does in that time, and what it takes idle, counts too.
    """
    before = rapl.read()
    if before is None:
        return None
    begin, turn = clock(), 0
    with cores.on(cores.device):
        while clock() - begin < seconds:
            strategy.device(pictures[turn % len(pictures)])
            turn += 1
    spent, after = clock() - begin, rapl.read()
    return None if after is None else rapl.joules(before, after) / spent
