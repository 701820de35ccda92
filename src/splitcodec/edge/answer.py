"""Stages 6 and 7 of 7 on one shore: packet bytes -> answer.   before: device/link.py   inside: line (decoder, tail)

    answer = Edge("efficientnet-lite0").answer(packet)

One edge may hold several bundles; the fingerprint in the packet says which one it was made with. Whatever the bytes,
the outcome is an answer or a SplitcodecError.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import copy
from itertools import groupby
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from splitcodec.edge.line import Line, Question, milliseconds
from splitcodec.edge.tail import check_top
from splitcodec.edge.tasks import CLASSIFY
from splitcodec.errors import BundleNotFound, GraphError, PacketBundle, SettingsError, SplitcodecError
from splitcodec.wire.answer import GUESSES, LEAST_SCORE, Answer, dump_answer
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.given import whole
from splitcodec.wire.packet import Packet, unpack
from splitcodec.wire.request import Wanted, check_score
from splitcodec.wire.zoo import bundles_at

UNCOMPRESSED = -1  # the level of an answer that no packet was needed for


def opened_at(source: str | Path) -> list[Bundle]:
    """Return the bundle of that name, in that folder or zip, or all of those in a folder. Raises BundleError."""
    return [open_bundle(one) for one in bundles_at(source)]


@final
class Edge:
    """One or more bundles, opened and run once; safe to share between threads.

    Each bundle is a zoo name, a folder, a zip, a folder that holds such folders and zips (all of them, by name) or an
    opened bundle (none: "efficientnet-lite0"). Of bundles with equal fingerprints the highest version answers, of equal
    versions the first given. `max_symbols` lowers the bundles' own limit on symbols per packet, `threads` goes to ONNX
    Runtime (none: its choice).

    Raises BundleError (BundlePart for a device's half), GraphError, SettingsError.
    """

    def __init__(
        self, *bundles: str | Path | Bundle, threads: int | None = None, max_symbols: int | None = None
    ) -> None:
        if max_symbols is not None and (whole(max_symbols) is None or max_symbols < 1):
            raise SettingsError(f"max_symbols {max_symbols!r:.40}; expected an integer of at least 1")
        self._sources = bundles or ("efficientnet-lite0",)
        self._max_symbols = max_symbols
        self._threads = threads
        self._take([self._line_of(bundle) for bundle in self._opened()])

    def reopened(self) -> Edge:
        """Return an edge whose names, folders and zips are opened as they are now; itself, where they are as before.

        Bundles that have not changed are shared, and this edge stays as it is. Raises as opening one does.
        """
        kept, lines = list(self._lines), list[Line]()
        for bundle in self._opened():
            same = next((line for line in kept if line.bundle.manifest == bundle.manifest), None)
            lines.append(self._line_of(bundle) if same is None else kept.pop(kept.index(same)))
        if lines == list(self._lines):
            return self
        other = copy(self)
        other._take(lines)
        return other

    def _opened(self) -> list[Bundle]:
        return [bundle for one in self._sources for bundle in ([one] if isinstance(one, Bundle) else opened_at(one))]

    def _line_of(self, bundle: Bundle) -> Line:
        return Line(bundle, threads=self._threads, max_symbols=self._max_symbols)

    def _take(self, lines: Sequence[Line]) -> None:
        self._lines = tuple(lines)
        self.bundles = tuple(line.bundle for line in lines)
        self._routes: dict[bytes, Line] = {}
        for line in self._lines:
            rival = self._routes.setdefault(line.bundle.fingerprint[:4], line)
            if rival.bundle.fingerprint != line.bundle.fingerprint:
                raise SettingsError(
                    f"{rival.bundle.ident} and {line.bundle.ident} differ, yet their fingerprints begin alike; "
                    "serve them apart"
                )
            if line.bundle.manifest.version > rival.bundle.manifest.version:
                self._routes[line.bundle.fingerprint[:4]] = line

    def answer(
        self,
        packet: bytes,
        *,
        tasks: Sequence[str] | None = None,
        top: int = GUESSES,
        score: float = LEAST_SCORE,
    ) -> Answer:
        """Return the answer to one packet, with the milliseconds of the stages "decode", "decoder", "tail" and more.

        `tasks` (none: "classify") are run on the same features; `top` is the number of guesses, `score` the
        least of the boxes.
        Raises PacketError, TaskError, SettingsError, GraphError; never anything but a SplitcodecError, whatever the
        bytes.
        """
        (outcome,) = self.answer_all([self.read(packet, tasks=tasks, top=top, score=score)])
        if isinstance(outcome, SplitcodecError):
            raise outcome
        return outcome

    def read(
        self,
        packet: bytes,
        *,
        tasks: Sequence[str] | None = None,
        top: int = GUESSES,
        score: float = LEAST_SCORE,
    ) -> Question:
        """Return what a packet asks, held against its bundle; nothing is allocated or decoded yet.

        Raises PacketError (all but PacketPayload), TaskError, SettingsError.
        """
        fields = unpack(packet)
        line = self._route(fields)
        check_top(top)
        check_score(score)
        return line.question(fields, tasks=tasks, top=top, score=score)

    def answer_all(self, questions: Sequence[Question]) -> list[Answer | SplitcodecError]:
        """Return an answer or a refusal for each question, in their order; runs of equal `kind` share one batch.

        The milliseconds of "decoder" and "tail" are those of the whole batch.
        """
        batches = (list(batch) for _, batch in groupby(questions, key=lambda question: question.kind))
        return [outcome for batch in batches for outcome in batch[0].line.answer(batch)]

    def check_tasks(self, tasks: Sequence[str]) -> None:
        """Refuse tasks that no bundle here has all of. Raises TaskError."""
        refused = [error for line in self._lines if (error := line.refusal(tasks)) is not None]
        if len(refused) == len(self._lines):
            raise refused[0]

    def answers_with(self, bundle: Bundle) -> bool:
        """Say whether packets reach that bundle: of several with one fingerprint, one answers."""
        return self._routes[bundle.fingerprint[:4]].bundle is bundle

    def most_symbols(self, bundle: Bundle) -> int:
        """Return how many symbols a packet of that bundle may announce here."""
        own = bundle.manifest.max_symbols
        return own if self._max_symbols is None else min(self._max_symbols, own)

    def respond(
        self,
        packet: bytes,
        *,
        tasks: Sequence[str] | None = None,
        top: int = GUESSES,
        score: float = LEAST_SCORE,
    ) -> bytes:
        """Return the answer as JSON: a link without a network. Raises as `answer`, and AnswerTooLarge."""
        return dump_answer(self.answer(packet, tasks=tasks, top=top, score=score))

    def respond_to(self, packet: bytes, wanted: Wanted) -> bytes:
        """Return the answer as JSON to what a device wants; its key means nothing here. Raises as `respond`."""
        top = GUESSES if wanted.top is None else wanted.top
        score = LEAST_SCORE if wanted.score is None else wanted.score
        return self.respond(packet, tasks=wanted.tasks or None, top=top, score=score)

    def picture_answer(
        self,
        image_bhwc: NDArray[np.uint8],
        *,
        top: int = GUESSES,
        bundle: str | None = None,
        tasks: Sequence[str] | None = None,
    ) -> Answer:
        """Return what the uncompressed teachers say of a picture, uint8 (1, H, W, 3): head and tails, no packet.

        `bundle` is a name@version (none: the first), `tasks` as for `answer`. The level is -1, the first stage "head".
        Raises BundleNotFound, BundlePart without `head.onnx`, TaskError, GraphError, SettingsError.
        """
        check_top(top)
        line = self._line(bundle)
        teachers = line.tasks if tasks is None or tuple(tasks) == (CLASSIFY,) else line.teachers  # they share that tail
        wanted = teachers.check(tasks)
        if len(image_bhwc) != 1:
            raise GraphError(f"{len(image_bhwc)} pictures; expected 1")
        head = line.head
        begin = time.perf_counter()
        feature_bchw = head(np.ascontiguousarray(image_bhwc))
        featured = time.perf_counter()
        answered = teachers.answer(feature_bchw, wanted, top=top)
        ms = milliseconds(head=featured - begin, **answered.seconds)
        return Answer(bundle=line.bundle.ident, level=UNCOMPRESSED, answers=answered.answers[0], ms=ms)

    def _route(self, packet: Packet) -> Line:
        if (line := self._routes.get(packet.fingerprint)) is None:
            loaded = ", ".join(f"{one.ident} ({one.fingerprint[:4].hex()})" for one in self.bundles)
            raise PacketBundle(
                f"made with a bundle of fingerprint {packet.fingerprint.hex()}; loaded here: {loaded}; "
                "give both shores the same bundle"
            )
        return line

    def _line(self, ident: str | None) -> Line:
        for line in self._lines:
            if ident in (None, line.bundle.ident):
                return line
        raise BundleNotFound(f"{ident}: not loaded here; loaded: {', '.join(one.ident for one in self.bundles)}")
