"""Runs all strategies in turns on the same pictures, so that a busy moment hits all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from latency_parts.cores import Cores
from latency_parts.strategies import Strategy, folded
from splitcodec.evaluation.latency import Carrier, Trip
from splitcodec.wire.brief import shorten


@final
@dataclass(frozen=True, slots=True)
class Timed:
    """One strategy: of every stage the median over pictures of the fastest turn, and mean bytes each way."""

    strategy: Strategy
    device_ms: dict[str, float]
    edge_ms: dict[str, float]
    sent_bytes: float
    answer_bytes: float
    brief_bytes: float

    @property
    def link_bytes(self) -> float:
        """Return the bytes that leave the device: of the many photographs that the accuracy was measured on, if so."""
        choice = self.strategy.choice
        return self.sent_bytes if choice is None or self.strategy.tasks != ("classify",) else choice.equal_bytes

    def trip(self, carrier: Carrier) -> Trip:
        """Return what an answer takes, with all that its carrier puts around what goes over the link."""
        if self.strategy.edge is None:
            return Trip(self.device_ms, self.edge_ms)
        up, down = carrier.up(round(self.link_bytes)), carrier.down(round(self.brief_bytes))
        return Trip(self.device_ms, self.edge_ms, up, down)


def run(
    strategies: Sequence[Strategy],
    pictures: Sequence[bytes],
    *,
    turns: int,
    cores: Cores,
    progress: Callable[[int, int], None] | None = None,
) -> list[Timed]:
    """Time every strategy on every picture, `turns` times each."""
    device_ms: list[list[dict[str, float]]] = [[] for _ in strategies]
    edge_ms: list[list[dict[str, float]]] = [[] for _ in strategies]
    sizes: list[list[tuple[int, int, int]]] = [[] for _ in strategies]
    for done, picture in enumerate(pictures, 1):
        device: list[dict[str, float]] = [{} for _ in strategies]
        edge: list[dict[str, float]] = [{} for _ in strategies]
        for turn in range(turns):
            for k, strategy in enumerate(strategies):
                size = _once(strategy, picture, cores=cores, device_ms=device[k], edge_ms=edge[k])
                if turn == 0:
                    sizes[k].append(size)
        for k in range(len(strategies)):
            device_ms[k].append(folded(device[k]))
            edge_ms[k].append(folded(edge[k]))
        if progress is not None:
            progress(done, len(pictures))
    return [
        Timed(
            strategy,
            _medians(device_ms[k]),
            _medians(edge_ms[k]),
            *(float(np.mean(column)) for column in zip(*sizes[k], strict=True)),
        )
        for k, strategy in enumerate(strategies)
    ]


def _once(
    strategy: Strategy, picture: bytes, *, cores: Cores, device_ms: dict[str, float], edge_ms: dict[str, float]
) -> tuple[int, int, int]:
    """Run a strategy once, lower the milliseconds to the fastest; return the bytes sent, answered, shortened."""
    with cores.on(cores.device):
        if strategy.warm:
            strategy.device(picture)
        sent = strategy.device(picture)
    _lower(device_ms, sent.ms)
    if strategy.edge is None:
        return 0, len(sent.data), len(shorten(sent.data))
    with cores.on(cores.edge):
        if strategy.warm:
            strategy.edge(sent.data)
        answer = strategy.edge(sent.data)
    _lower(edge_ms, answer.ms)
    return len(sent.data), len(answer.data), len(shorten(answer.data))


def _lower(least: dict[str, float], ms: dict[str, float]) -> None:
    for stage, spent in ms.items():
        least[stage] = min(spent, least.get(stage, spent))


def _medians(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {stage: float(np.median([one[stage] for one in found])) for stage in found[0]}
