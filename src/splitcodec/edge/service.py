"""Stages 6 and 7 of 7, kept running: packets of many clients in, answers out.   inside: answer, batch   around: app.py

Starting, ready, draining: what a supervisor sees. Here symbols, times what their tasks count, are charged
to each client's share, and answers under an idempotency key are found again. No web framework: another transport may
put its packets in here too.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, final

from splitcodec.edge.answer import Edge
from splitcodec.edge.batch import Batcher
from splitcodec.edge.limits import Buckets
from splitcodec.edge.line import Question
from splitcodec.edge.metrics import Metrics
from splitcodec.edge.replay import Replays
from splitcodec.edge.settings import Settings
from splitcodec.errors import EdgeUnready, SplitcodecError
from splitcodec.wire.answer import GUESSES, LEAST_SCORE, Answer, dump_answer

_log = logging.getLogger("splitcodec.edge")

_LAST_S = 2.0  # for what is left when no connection is

State = Literal["starting", "ready", "draining", "failed"]


@final
@dataclass(frozen=True, slots=True)
class Client:
    """Who asks: `name` is what rates are counted for, `scope` what idempotency keys belong to."""

    name: str
    scope: str


@final
class Service:
    """An edge behind a batcher. `edge` may be a function that opens one: then the service starts in the background."""

    def __init__(self, edge: Edge | Callable[[], Edge], settings: Settings, metrics: Metrics) -> None:
        self._open = None if isinstance(edge, Edge) else edge
        self._edge = edge if isinstance(edge, Edge) else None
        self._metrics = metrics
        self._draining = False
        self._opening: asyncio.Task[None] | None = None
        self._outdated = False
        self._work: Future[Edge] | None = None  # of opening, in a thread of its own: asyncio waits for its own threads
        self.failure: Exception | None = None
        self._symbols = Buckets(settings.symbols_per_s, what="symbols (times tasks)", most=settings.max_clients)
        self._replays = Replays(
            answers=settings.replay_answers, max_bytes=settings.replay_bytes, keep_s=settings.replay_s
        )
        self._batcher: Batcher[Question, Answer] = Batcher(
            self._run,
            kind=lambda question: question.kind,
            weight=lambda question: question.weight,
            max_batch=settings.max_batch,
            max_wait_ms=settings.max_wait_ms,
            max_queue=settings.max_queue,
            workers=settings.workers,
            on_batch=self._on_batch,
        )
        metrics.gauge("queue_depth", "Packets that wait for a worker.", lambda: self._batcher.depth)
        metrics.gauge("batches_running", "Batches that are with a worker.", lambda: self._batcher.running)
        metrics.gauge("ready", "1 while packets are answered.", lambda: self.state == "ready")

    @property
    def state(self) -> State:
        """Return where the service stands."""
        if self._draining:
            return "draining"
        if self.failure is not None:
            return "failed"
        return "starting" if self._edge is None else "ready"

    @property
    def busy(self) -> bool:
        """Say whether a batch is with a worker or the edge still opens: Python ends no process before its threads."""
        return self._batcher.running > 0 or (self._work is not None and not self._work.done())

    @property
    def edge(self) -> Edge:
        """Return the opened edge. Raises EdgeUnready."""
        if self._edge is None:
            raise EdgeUnready("the edge is starting; ask again in a moment", retry_after_s=1)
        return self._edge

    def begin(self) -> None:
        """Begin to open the edge in the background, unless it is open or being opened."""
        if self._edge is None and self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._begin())

    def renew(self) -> None:
        """Open bundles that have changed anew in the background, and answer by them from then on; all or none.

        What was let in before is answered by the bundle that let it in. An edge that was given opened stays.
        """
        if self._open is None:
            _log.info("the bundles stay as they are: this server was given them opened")
            return
        self._outdated = True
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._renew())

    async def opened(self) -> None:
        """Wait until the edge is open, or `failure` says why it cannot be."""
        self.begin()
        if self._opening is not None:
            await asyncio.wait([self._opening])

    def drain(self) -> None:
        """Refuse what comes from now on; what was let in is still answered."""
        self._draining = True

    async def close(self) -> None:
        """Drain, answer what is in the queue, stop the workers."""
        self.drain()
        if self._opening is not None:
            self._opening.cancel()
        await self._batcher.close(within_s=_LAST_S)

    def check_ready(self) -> None:
        """Raise EdgeUnready unless packets are answered."""
        self.begin()
        if self._draining:
            raise EdgeUnready("the edge is shutting down; ask again in a moment", retry_after_s=1)
        if self.failure is not None:
            raise EdgeUnready("the edge could not open its bundles; its log says why", retry_after_s=60)
        _ = self.edge

    async def answer(
        self,
        packet: bytes,
        *,
        client: Client,
        tasks: Sequence[str] | None = None,
        top: int = GUESSES,
        score: float = LEAST_SCORE,
        key: str | None = None,
    ) -> tuple[bytes, bool]:
        """Return an answer's JSON, and whether it was given before under this idempotency key.

        Also while draining: whoever brings packets looks at `check_ready` before it takes one. Raises PacketError,
        TaskError, SettingsError, GraphError, AnswerTooLarge, and the kinds of EdgeRefusal.
        """
        self.begin()
        if key is None:
            return await self._answer(packet, client=client, tasks=tasks, top=top, score=score), False
        digest = hashlib.sha256(repr((tasks, top, score)).encode() + packet).digest()
        body, again = await self._replays.once(
            client.scope, key, digest, lambda: self._answer(packet, client=client, tasks=tasks, top=top, score=score)
        )
        if again:
            self._metrics.replay()
        return body, again

    async def _answer(
        self, packet: bytes, *, client: Client, tasks: Sequence[str] | None, top: int, score: float
    ) -> bytes:
        question = self.edge.read(packet, tasks=tasks, top=top, score=score)
        self._batcher.check_room(question)  # whoever is turned away pays nothing
        self._symbols.take(client.name, question.cost)
        self._metrics.admitted(packet_bytes=len(packet), symbols=question.symbols)
        answer = await self._batcher.answer(question)
        body = dump_answer(answer)
        self._metrics.answer(answer["bundle"])
        return body

    def _run(self, questions: Sequence[Question]) -> list[Answer | Exception]:
        outcomes = self.edge.answer_all(questions)
        answers = [one for one in outcomes if not isinstance(one, SplitcodecError)]
        for answer in answers:
            self._metrics.stage("decode", answer["ms"]["decode"] / 1000)
        for stage, spent_ms in answers[0]["ms"].items() if answers else ():
            if stage != "decode":
                self._metrics.stage(stage, spent_ms / 1000)
        return list(outcomes)

    def _on_batch(self, size: int, waited_s: float) -> None:
        self._metrics.batch(size)
        self._metrics.stage("queue", waited_s)

    async def _begin(self) -> None:
        assert self._open is not None  # noqa: S101 - `begin` looked
        since = time.monotonic()
        try:
            self._edge = await self._opened_by(self._open)
        except Exception as error:
            self.failure = error
            _log.error("cannot start: %s: %s", type(error).__name__, error)
        else:
            _log.info("ready after %.2f s: %s", time.monotonic() - since, _loaded(self._edge))
            await self._renew()

    async def _renew(self) -> None:
        while self._outdated and self._edge is not None and not self._draining:
            self._outdated, since = False, time.monotonic()
            try:
                edge = await self._opened_by(self._edge.reopened)
            except Exception as error:
                _log.error("bundles not opened again, the old ones stay in use: %s: %s", type(error).__name__, error)
                continue
            how = "are as they were" if edge is self._edge else f"opened again after {time.monotonic() - since:.2f} s"
            self._edge = edge
            _log.info("bundles %s: %s", how, _loaded(edge))

    async def _opened_by(self, opening: Callable[[], Edge]) -> Edge:
        pool = ThreadPoolExecutor(1, thread_name_prefix="splitcodec opens")
        self._work = pool.submit(opening)
        pool.shutdown(wait=False)
        try:
            return await asyncio.wrap_future(self._work)
        finally:
            if self._work.done():
                self._work = None  # which would hold an edge that has been replaced


def _loaded(edge: Edge) -> str:
    return ", ".join(bundle.ident for bundle in edge.bundles)
