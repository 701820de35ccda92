"""A seeded radio between two sides, in simulated time: loses, doubles, delays (so reorders) and damages frames."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field


@dataclass
class Radio:
    """Frames in the air. `damage` flips bits; the receiver's checksums must notice."""

    seed: int
    loss: float = 0.0
    double: float = 0.0
    damage: float = 0.0
    delay_s: float = 0.05
    spread_s: float = 0.0
    now: float = 0.0
    sent: int = 0
    _air: list[tuple[float, int, str, bytes]] = field(default_factory=list)
    _count: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def send(self, to: str, frame: bytes) -> None:
        self.sent += 1
        for _ in range(1 + (self.random.random() < self.double)):
            if self.random.random() < self.loss:
                continue
            data = bytearray(frame)
            if self.random.random() < self.damage:
                for _ in range(self.random.randint(1, 12)):
                    data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
            at = self.now + self.delay_s + self.random.random() * self.spread_s
            heapq.heappush(self._air, (at, next(self._count), to, bytes(data)))

    @property
    def next_at(self) -> float:
        return self._air[0][0] if self._air else float("inf")

    def take(self) -> tuple[str, bytes]:
        at, _, to, data = heapq.heappop(self._air)
        self.now = max(self.now, at)
        return to, data
