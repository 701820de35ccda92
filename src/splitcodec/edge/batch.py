"""Beside stages 6 and 7 of 7: questions that arrive one by one are answered in batches.   inside: answer.py

While every worker is busy, questions queue; whoever is free next takes those of one kind that have gathered. So a
lone question never waits, and batches grow only as the load does. The queue is bounded, in questions and (by weight)
in what they need of memory and work. Nothing here knows HTTP, nor what a question is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar, final

from splitcodec.errors import EdgeBusy, EdgeUnready, SettingsError, SplitcodecError

Q = TypeVar("Q")
A = TypeVar("A")


@final
@dataclass(frozen=True, slots=True)
class _Place(Generic[Q, A]):
    """A question in the queue, what it weighs, when it came (monotonic seconds), and who waits for it."""

    question: Q
    weight: float
    since: float
    outcome: asyncio.Future[A]


@final
@dataclass(slots=True)
class _Queue(Generic[Q, A]):
    """Questions of one kind, oldest first, and what they weigh together."""

    places: deque[_Place[Q, A]] = field(default_factory=deque)
    weight: float = 0.0

    @property
    def since(self) -> float:
        """Return when the oldest came."""
        return self.places[0].since

    def put(self, place: _Place[Q, A]) -> None:
        self.places.append(place)
        self.weight += place.weight

    def pop(self) -> _Place[Q, A]:
        place = self.places.popleft()
        self.weight -= place.weight
        return place


@final
class Batcher(Generic[Q, A]):
    """Calls `run` in worker threads with one to `max_batch` questions of one kind; belongs to one event loop.

    `run` returns an outcome for each question, an answer or the exception that its asker shall see. `kind` tells what
    may share a batch, `weight` what a question needs of memory and work, in units of which a batch holds `max_batch`
    and the queue `max_queue` (one question always fits). While some but not all workers are busy, a question waits up
    to `max_wait_ms` for a full batch of its kind; no other kind waits for it. `on_batch` is told (questions, longest
    wait in seconds) of each batch, on the event loop.

    Raises SettingsError for numbers that make no sense.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Q]], Sequence[A | Exception]],
        *,
        kind: Callable[[Q], Hashable],
        weight: Callable[[Q], float] = lambda _: 1.0,
        max_batch: int = 16,
        max_wait_ms: float = 0.0,
        max_queue: int = 256,
        workers: int = 2,
        on_batch: Callable[[int, float], object] | None = None,
    ) -> None:
        if min(max_batch, max_queue, workers) < 1 or max_wait_ms < 0:
            raise SettingsError(
                f"max_batch {max_batch}, max_queue {max_queue}, workers {workers}, max_wait_ms {max_wait_ms}; "
                "expected at least 1, 1, 1 and 0"
            )
        self._run = run
        self._kind = kind
        self._weight = weight
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1000
        self._max_queue = max_queue
        self._workers = workers
        self._on_batch = on_batch
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="splitcodec model")
        self._queues: dict[Hashable, _Queue[Q, A]] = {}
        self._load = 0.0  # weight of what waits, each at least 1
        self._running = 0
        self._spent_s = 0.05  # what a batch took lately, for Retry-After
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def depth(self) -> int:
        """Return the number of questions that wait for a worker."""
        return sum(len(queue.places) for queue in self._queues.values())

    @property
    def running(self) -> int:
        """Return the number of batches that are with a worker."""
        return self._running

    async def answer(self, question: Q) -> A:
        """Return the outcome of one question.

        Raises EdgeBusy if the queue is full, EdgeUnready after `close`, and what `run` gave or raised.
        """
        self.check_room(question)
        weight = self._weight(question)
        outcome: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        place = _Place(question, weight, time.monotonic(), outcome)
        self._queues.setdefault(self._kind(question), _Queue()).put(place)
        self._load += max(1.0, weight)
        self._dispatch()
        return await outcome

    def check_room(self, question: Q) -> None:
        """Raise EdgeBusy or EdgeUnready if `answer` would, asked now."""
        if self._closed:
            raise EdgeUnready("the edge is shutting down; ask again in a moment", retry_after_s=1)
        load = max(1.0, self._weight(question))
        if (depth := self.depth) >= self._max_queue or (depth and self._load + load > self._max_queue):
            batches = self._load / self._max_batch / self._workers
            wait_s = min(60, max(1, round(self._spent_s * batches)))
            raise EdgeBusy(
                f"{depth} packets wait already and the queue has no room for this one; ask again in {wait_s} s",
                retry_after_s=wait_s,
            )

    async def close(self, *, within_s: float = 5.0) -> None:
        """Take no more questions, answer those that wait, at most for `within_s`; the rest get EdgeUnready."""
        self._closed = True
        end = time.monotonic() + within_s
        while (self._queues or self._running) and time.monotonic() < end:
            self._dispatch()
            await asyncio.sleep(0.005)
        for queue in self._queues.values():
            for place in queue.places:
                if not place.outcome.done():
                    place.outcome.set_exception(EdgeUnready("the edge shut down before this packet's turn"))
        self._queues.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _dispatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._running < self._workers and self._queues:
            now = time.monotonic()
            ready = [one for one in self._queues.items() if self._is_ready(one[1], now)]
            if not ready:
                oldest = min(queue.since for queue in self._queues.values())
                wait_s = oldest + self._max_wait_s - now
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._dispatch)
                return
            kind, queue = min(ready, key=lambda one: one[1].since)
            waited_s = now - queue.since
            batch = self._take(queue)
            if not queue.places:
                del self._queues[kind]
            if batch:
                self._start(batch, waited_s=waited_s)

    def _is_ready(self, queue: _Queue[Q, A], now: float) -> bool:
        """Say whether a free worker takes of this queue now, or its questions go on waiting for company."""
        if not self._running or self._closed or now - queue.since >= self._max_wait_s:
            return True
        heavier = queue.weight + queue.places[-1].weight  # with one more like the last
        return len(queue.places) >= self._max_batch or heavier > self._max_batch

    def _take(self, queue: _Queue[Q, A]) -> list[_Place[Q, A]]:
        batch: list[_Place[Q, A]] = []
        room = float(self._max_batch)
        while queue.places and len(batch) < self._max_batch:
            weight = queue.places[0].weight
            if batch and weight > room:
                break
            place = queue.pop()
            self._load -= max(1.0, weight)
            if not place.outcome.done():  # its asker has gone
                batch.append(place)
                room -= weight
        return batch

    def _start(self, batch: list[_Place[Q, A]], *, waited_s: float) -> None:
        self._running += 1
        if self._on_batch is not None:
            self._on_batch(len(batch), waited_s)
        begin = time.monotonic()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._pool, self._run, [place.question for place in batch])

        def done(future: asyncio.Future[Sequence[A | Exception]]) -> None:
            self._running -= 1
            self._spent_s += 0.1 * (time.monotonic() - begin - self._spent_s)
            _settle(batch, future)
            self._dispatch()

        work.add_done_callback(done)


def _settle(batch: list[_Place[Q, A]], future: asyncio.Future[Sequence[A | Exception]]) -> None:
    outcomes: Sequence[A | Exception]
    if future.cancelled():
        outcomes = [EdgeUnready("the edge shut down before this packet's turn") for _ in batch]
    elif (error := future.exception()) is not None:
        # one exception object for several askers would grow one shared traceback
        outcomes = [_again(error) for _ in batch]
    else:
        outcomes = future.result()
    for place, outcome in zip(batch, outcomes, strict=True):
        if place.outcome.done():
            continue
        if isinstance(outcome, Exception):
            place.outcome.set_exception(outcome)
        else:
            place.outcome.set_result(outcome)


def _again(error: BaseException) -> Exception:
    if isinstance(error, SplitcodecError):
        return error
    failure = RuntimeError(f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
