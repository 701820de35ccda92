"""Between stages 6 and 7 of 7: one bundle's decoder and tails.   asked by: answer.py   inside: decoder, tail

The entropy coder runs for packets of one level side by side, decoder and tail once for all packets of a batch. A packet
that does not decode, or whose features break a graph, fails alone: the others of its batch get their answers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from splitcodec.edge.decoder import Decoder
from splitcodec.edge.tasks import Tasks
from splitcodec.errors import GraphError, PacketGrid, SplitcodecError, TaskError
from splitcodec.session import Graph
from splitcodec.wire.answer import Answer, Answers
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.packet import Packet


@final
@dataclass(frozen=True, slots=True)
class Question:
    """A packet that was read and admitted, and what is asked of it; nothing of its payload is decoded yet.

    `symbols` is what the packet announces, `cost` the same times what its tasks count (`Tasks.cost`), `weight` the cost
    in pictures of the bundle's own crop, classified.
    """

    line: Line
    packet: Packet
    tasks: tuple[str, ...]
    top: int
    score: float
    symbols: int
    cost: int
    weight: float

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what questions of one batch share: bundle, latent grid and tasks."""
        return (id(self.line), self.packet.rows, self.packet.cols, self.tasks)


@final
class Line:
    """One bundle's decoder and tails, opened and run once. The teacher's head is opened when somebody asks for it."""

    def __init__(self, bundle: Bundle, *, threads: int | None, max_symbols: int | None) -> None:
        self.bundle = bundle
        self._threads = threads
        self.decoder = Decoder(bundle, threads=threads, max_symbols=max_symbols)
        self.tasks = Tasks(bundle, threads=threads)
        self._side = max(1, bundle.manifest.crop // bundle.manifest.stride)
        self._batches = self.decoder.batches and (self.tasks.classify is None or self.tasks.classify.batches)
        self._warm_up()

    @cached_property
    def head(self) -> Graph:
        """Return the teacher's head. Raises BundlePart, GraphError."""
        return Graph(self.bundle.graph("head"), name=f"{self.bundle.ident}: head.onnx", threads=self._threads)

    @cached_property
    def teachers(self) -> Tasks:
        """Return the uncompressed task teachers' tails. Raises BundlePart, GraphError."""
        return Tasks(self.bundle, threads=self._threads, teacher=True)

    def refusal(self, tasks: Sequence[str]) -> TaskError | None:
        """Return why this bundle does not answer these tasks; None where it does."""
        try:
            self.tasks.check(tasks)
        except TaskError as error:
            return error
        return None

    def question(self, packet: Packet, *, tasks: Sequence[str] | None, top: int, score: float) -> Question:
        """Return the question that a packet puts to this bundle. Raises PacketError, TaskError."""
        wanted = self.tasks.check(tasks)
        symbols = self.decoder.check(packet)
        factor = self.tasks.cost(wanted)
        weight = factor * packet.rows * packet.cols / self._side**2
        return Question(
            line=self,
            packet=packet,
            tasks=wanted,
            top=top,
            score=score,
            symbols=symbols,
            cost=factor * symbols,
            weight=weight,
        )

    def answer(self, questions: Sequence[Question]) -> list[Answer | SplitcodecError]:
        """Return an answer or a refusal for each of several questions of one kind, in their order."""
        outcomes: list[Answer | SplitcodecError | None] = [None] * len(questions)
        places: list[int] = []
        latents: list[NDArray[np.float32]] = []
        begin = time.perf_counter()
        for place, found in enumerate(self.decoder.symbols_many([question.packet for question in questions])):
            if isinstance(found, SplitcodecError):
                outcomes[place] = found
                continue
            packet = questions[place].packet
            latents.append(self.decoder.latent_chw(found, packet.level, table_set=packet.table_set))
            places.append(place)
        decode_s = [(time.perf_counter() - begin) / max(len(questions), 1)] * len(places)
        asked = [questions[place] for place in places]
        for place, outcome in zip(places, self._run(asked, latents, decode_s), strict=True):
            outcomes[place] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def _run(
        self, questions: Sequence[Question], latents: Sequence[NDArray[np.float32]], decode_s: Sequence[float]
    ) -> list[Answer | SplitcodecError]:
        if not questions:
            return []
        try:
            if len(questions) > 1 and not self._batches:
                raise GraphError(f"{self.bundle.ident} takes one picture at a time")
            return list(self._run_together(questions, latents, decode_s))
        except SplitcodecError as error:
            if len(questions) == 1:
                return [self._blamed(error, questions[0].packet)]
        alone = zip(questions, latents, decode_s, strict=True)
        return [one for q, latent_chw, spent in alone for one in self._run([q], [latent_chw], [spent])]

    def _run_together(
        self, questions: Sequence[Question], latents: Sequence[NDArray[np.float32]], decode_s: Sequence[float]
    ) -> list[Answer]:
        begin = time.perf_counter()
        latent_bchw = np.stack(latents)
        feature_bchw = self.decoder.features_bchw(latent_bchw)
        featured = time.perf_counter()
        top = max(question.top for question in questions)
        answered = self.tasks.answer(feature_bchw, questions[0].tasks, latent_bchw=latent_bchw, top=top)
        return [
            Answer(
                bundle=self.bundle.ident,
                level=question.packet.level,
                answers=_cut(answered.answers[place], top=question.top, score=question.score),
                ms=milliseconds(decode=decode_s[place], decoder=featured - begin, **answered.seconds),
            )
            for place, question in enumerate(questions)
        ]

    def _blamed(self, error: SplitcodecError, packet: Packet) -> SplitcodecError:
        # The bundle's own grid ran when the line was opened, so a graph that refuses another is the packet's fault.
        if not isinstance(error, GraphError) or packet.rows == packet.cols == self._side:
            return error
        refusal = PacketGrid(
            f"latent grid of {packet.rows} x {packet.cols}: {self.bundle.ident} cannot compute it, its own is "
            f"{self._side} x {self._side}; send a picture of more usual sides"
        )
        refusal.__cause__ = error
        return refusal

    def _warm_up(self) -> None:
        # Also holds the graphs against each other now, rather than at the first packet.
        zeros_bchw = np.zeros((1, self.bundle.manifest.channels, self._side, self._side), np.float32)
        self.tasks.answer(self.decoder.features_bchw(zeros_bchw), self.tasks.names, latent_bchw=zeros_bchw)


def _cut(answers: Answers, *, top: int, score: float) -> Answers:
    """Return one picture's answers with what it asked for alone; its batch may have asked for more."""
    if "classify" in answers:
        answers["classify"] = answers["classify"][:top]
    if "detect" in answers:
        answers["detect"] = [box for box in answers["detect"] if box["score"] >= score]
    return answers


def milliseconds(**seconds: float) -> dict[str, float]:
    """Return seconds per stage as milliseconds, to the microsecond."""
    return {stage: round(1000 * spent, 3) for stage, spent in seconds.items()}
