"""What training takes, by three clocks: the wall's, the processors', and that of accelerators that are held.

Wall time compares nothing: of two machines one has more cores, and of one machine other runs may have a share.
Processor time is what all threads of all processes of a run took. An accelerator's own time is not told to programs; in
its place stands how long the run held it, by name, whatever else ran on it meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from lightning_fabric import Fabric

_MOST: Final = 1e18  # pictures or seconds; an integer of hundreds of digits is no float


@final
@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds: by the wall; of processors, None where a part was not counted; for which accelerators were held."""

    seconds: float
    processor_seconds: float | None = None
    device_seconds: Mapping[str, float] = field(default_factory=dict)

    def told(self, suffix: str = "") -> dict[str, Any]:
        """Return what a report says of it, under keys with a suffix; nothing of what is not known."""
        found: dict[str, Any] = {f"seconds{suffix}": round(self.seconds, 1)}
        if self.processor_seconds is not None:
            found[f"processor_seconds{suffix}"] = round(self.processor_seconds, 1)
            if self.device_seconds:
                found[f"device_seconds{suffix}"] = {name: round(one, 1) for name, one in self.device_seconds.items()}
        return found


def all_of(parts: Sequence[Spent]) -> Spent:
    """Return what several runs took; no processor time where one of them does not know its own."""
    processors = [one.processor_seconds for one in parts]
    known = [one for one in processors if one is not None]
    held: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.device_seconds.items():
            held[name] = held.get(name, 0.0) + seconds
    return Spent(sum(one.seconds for one in parts), sum(known) if len(known) == len(processors) else None, held)


def spent_of(report: Mapping[str, Any], suffix: str = "") -> Spent:
    """Return what a report of anybody's tells under keys with a suffix; what is no number there counts as not told."""
    held = report.get(f"device_seconds{suffix}")
    return Spent(
        number(report.get(f"seconds{suffix}")) or 0.0,
        number(report.get(f"processor_seconds{suffix}")),
        {str(name): number(one) or 0.0 for name, one in held.items()} if isinstance(held, dict) else {},
    )


def number(value: object) -> float | None:
    """Return a number of a report, 0 or more; None for what is none."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST
    return float(value) if right else None  # type: ignore[arg-type]  # `right` says that it is a number


@final
class Clock:
    """Counts a stage's seconds from when it is made, step by step, of all processes of a run.

    Processes tell each other at every step, for they do not agree on when a checkpoint is due; nobody waits for the
    sum until it is read.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric, self._device = fabric, device_name(fabric.device)
        self._others = torch.zeros((), device=fabric.device)
        self._wall, self._processor = time.monotonic(), time.process_time()

    def restart(self) -> float:
        """Leave out what went by since the last step; returns the time."""
        self._wall, self._processor = time.monotonic(), time.process_time()
        return self._wall

    def lap(self) -> Spent:
        """Return what this process took since the last step, of accelerators all processes; each is thought alike."""
        wall, processor, many = self._wall, self._processor, self._fabric.world_size
        self.restart()
        seconds, taken = self._wall - wall, self._processor - processor
        if many > 1:
            told = torch.full((), taken, device=self._fabric.device)
            torch.distributed.all_reduce(told)
            self._others += told - taken
        return Spent(seconds, taken, {} if self._device is None else {self._device: seconds * many})

    def of_others(self) -> float:
        """Return the processor seconds that the other processes took since this was last asked."""
        found = float(self._others)
        self._others.zero_()
        return found


def device_name(device: torch.device) -> str | None:
    """Return an accelerator's name; None for a processor."""
    if device.type == "cpu":
        return None
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
