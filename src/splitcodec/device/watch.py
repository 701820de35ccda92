"""Stages 1 to 5 of 7 where the link comes and goes: pictures -> spool -> answers.   inside: source, spool, journal

A capture goes through these states, each on the disk before the next: a picture in the source; a packet in the spool; a
line in the answers; a mark in the ledger; no packet. Killed anywhere, the next run goes on from the state it finds. A
packet may be sent twice, with the same idempotency key; its line is written once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, final

from splitcodec.device.beside import beside
from splitcodec.device.journal import Journal, Outcome, problem_line
from splitcodec.device.overlay import in_picture
from splitcodec.device.placed import Letterbox
from splitcodec.device.source import Capture, Source
from splitcodec.device.spool import DROP_OLDEST, REFUSE, Entry, Spool, check_policy, entry_of, entry_size
from splitcodec.device.status import Backoff, Status, shown_address
from splitcodec.device.still import Still, Unchanged
from splitcodec.errors import (
    BudgetTooSmall,
    CameraError,
    DataError,
    LinkError,
    OutputError,
    PictureError,
    PictureNotFound,
    SettingsError,
    SplitcodecError,
    SpoolError,
)
from splitcodec.wire.answer import parse_answer
from splitcodec.wire.problem import may_pass
from splitcodec.wire.request import Wanted


@final
class Watch:
    """Takes captures from `source` into `spool` and their answers into `journal`.

    `encode(picture)` returns (packet, level, place), or None where it was stopped while it waited, so that the capture
    stays where it is; `send(packet, wanted)` returns the answer's JSON, whose boxes are mapped by `place`, if any.
    Packets are made to ask for `asking`, and do so whenever they are sent. The spool holds at most `max_bytes`; where
    it is full, `when_full` is "refuse" (take no more pictures), "drop-oldest" or "drop-newest" (a line says so). `tell`
    is called with every line that is written, and `None` when only the status has changed. `encode` may ask `still`.
    """

    def __init__(
        self,
        *,
        encode: Callable[[Any], tuple[bytes, int, Letterbox | None] | None],
        send: Callable[[bytes, Wanted], bytes],
        source: Source,
        spool: Spool,
        journal: Journal,
        max_bytes: int,
        asking: Wanted,
        when_full: str = REFUSE,
        still: Still | None = None,
        tell: Callable[[dict[str, Any] | None], None] = lambda _: None,
    ) -> None:
        check_policy(when_full)
        self._encode, self._send, self._source = encode, send, source
        self._spool, self._journal, self._max_bytes, self._asking = spool, journal, max_bytes, asking
        self._when_full, self._still, self._tell = when_full, still or Still(), tell
        self._room = entry_size(Entry("", "", "", 0, b""))  # what the next packet is taken to need
        self._lock, self._more = threading.RLock(), threading.Event()  # more may wait than the sending thread knows of
        self._in_flight: Path | None = None
        self.status = Status()
        self._recover()

    def gather(self, stop: threading.Event | None = None) -> bool:
        """Take what is there into the spool, until `stop`. Returns whether time may mend what is left (`status`)."""
        if self._when_full == REFUSE and self._full():
            return True
        try:
            captures = self._source.take(self._known)
        except (DataError, CameraError) as error:
            return not self._hindered("source", error)
        with self._lock:
            self._journal.forget()
        before, self.status.source = self.status.source, self._source.trouble
        if self.status.source not in ("", before):
            self._tell(None)
        for capture in captures:
            if (stop is not None and stop.is_set()) or not self._take(capture):
                return True
        return self._blocked

    def deliver(self) -> bool | None:
        """Send the first packet that waits. Returns whether it is done with, or None if nothing waits."""
        with self._lock:
            place = next(iter(self._spool.waiting()), None)
            if place is None:
                return None
            self._in_flight = place
        try:
            return self._deliver(place)
        finally:
            self._in_flight = None

    def run(self, stop: threading.Event, *, poll_s: float = 1.0, backoff: Backoff | None = None) -> None:
        """Gather and deliver until `stop` is set. Raises what the sending thread ends with."""
        sending = partial(self._keep_delivering, stop, backoff or Backoff())
        with beside(sending, stop=stop, wake=self._more, name="splitcodec watch"):
            resting = Backoff(first_s=poll_s, longest_s=60.0)
            while not stop.is_set():
                self.gather(stop)
                self._more.set()
                if self.status.disk or self._blocked:
                    stop.wait(resting.next_s())
                else:
                    resting.reset()
                    stop.wait(poll_s)

    def once(self, stop: threading.Event, *, poll_s: float = 1.0) -> None:
        """Gather what is there and deliver it; leave in the spool what the link does not take now."""
        while not stop.is_set():
            troubled, delivered = self.gather(stop), 0
            while not stop.is_set() and self.deliver():
                delivered += 1
            if self._source.pending:
                stop.wait(poll_s)
            elif self.status.link or self.status.disk or self._blocked or not (troubled and delivered):
                return

    @property
    def _blocked(self) -> bool:  # what has its line and cannot be moved away is in nobody's way
        return self.status.source not in ("", self._source.trouble)

    def _keep_delivering(self, stop: threading.Event, backoff: Backoff) -> None:
        while not stop.is_set():
            self._more.clear()
            if stop.is_set():  # what was cleared may have been the call to stop
                return
            done = self.deliver()
            if done is None:
                self._more.wait()
            elif done:
                backoff.reset()
            else:
                stop.wait(backoff.next_s())

    def _recover(self) -> None:
        for place in self._spool.waiting():
            if (entry := self._entry(place)) is None:
                continue  # if its picture is taken anew, whichever packet comes first gets the line
            if (outcome := self._journal.outcome(entry.capture)) is not None:
                self._finish(place, entry.capture, entry.picture, outcome)
        self._count()

    def _known(self, ident: str, picture: str) -> bool:
        with self._lock:
            if (outcome := self._journal.outcome(ident)) is not None:
                self._source.done(ident, picture, outcome)
                return True
            return self._spool.holds(ident)

    def _take(self, capture: Capture) -> bool:
        if self._when_full == REFUSE and self._full():
            return False
        try:
            made = self._encode(capture.load())
        except Unchanged as found:
            return self._settle(capture, Outcome.UNCHANGED, found.to_json())
        except PictureNotFound:
            return True  # gone, or still changing: it comes again as another capture
        except DataError as error:
            return not self._hindered("source", error)  # it comes again at the next look; others can be read
        except (PictureError, BudgetTooSmall, MemoryError) as error:  # none gets better by waiting
            return self._settle(capture, Outcome.UNREADABLE, problem_line(Outcome.UNREADABLE, error))
        if made is None:
            return False
        entry = entry_of(capture.ident, capture.picture, made=made, wanted=self._asking)
        with self._lock:
            if (size := entry_size(entry)) > self._max_bytes and self._when_full == REFUSE:
                what = f"{capture.picture}: its packet takes {size} bytes of a disk, the spool {self._max_bytes}"
                return not self._hindered("source", SpoolError(f"{what}; raise --max-spool-mb"))
            self._room = size  # where there is less, nothing is encoded in vain
            if not self._make_room(size):
                if self._when_full == REFUSE:
                    return False
                return self._settle(capture, Outcome.DROPPED, self._overflow())
            try:
                self._spool.add(entry)
            except OutputError as error:
                return self._hindered("disk", error)
            self._still.keep(capture.ident)
            self.status.disk = ""
            self.status.taken += 1
            self._count()
        self._more.set()
        self._tell(None)
        return True

    def _make_room(self, n_bytes: int) -> bool:
        if self._when_full == DROP_OLDEST and n_bytes <= self._max_bytes:
            for place in self._spool.waiting():
                if self._spool.bytes + n_bytes <= self._max_bytes:
                    break
                if place != self._in_flight:
                    self._drop(place)
        return self._spool.bytes + n_bytes <= self._max_bytes

    def _drop(self, place: Path) -> None:
        if (entry := self._entry(place)) is not None:
            old = Capture(entry.capture, entry.picture, bytes)
            self._settle(old, Outcome.DROPPED, self._overflow(), place=place)

    def _entry(self, place: Path) -> Entry | None:
        """Return what waits at a place; None if that cannot be read now, or never and is settled."""
        try:
            return self._spool.read(place)
        except OutputError as error:
            self.status.disk = str(error)
        except SpoolError as error:
            self._lost(place, error)
        return None

    def _lost(self, place: Path, error: SpoolError) -> None:
        with self._lock:
            if (found := self._spool.capture_at(place)) is None:  # damaged before this run: its picture is taken anew
                self.status.disk = str(error)
                self._finish(place, "", "", Outcome.REFUSED)
            elif (outcome := self._journal.outcome(found[0])) is not None:
                self._finish(place, *found, outcome)
            else:
                self._settle(Capture(*found, bytes), Outcome.REFUSED, problem_line(Outcome.REFUSED, error), place=place)

    def _deliver(self, place: Path) -> bool:
        if (entry := self._entry(place)) is None:
            self._tell(None)
            return place not in self._spool.waiting()
        if (outcome := self._journal.outcome(entry.capture)) is not None:
            return self._finish(place, entry.capture, entry.picture, outcome)
        capture = Capture(entry.capture, entry.picture, bytes)
        told = {"key": entry.key, "bytes": len(entry.packet), "level": entry.level}
        try:
            self.status.sent += 1
            asked = entry.wanted()
            answer = parse_answer(self._send(entry.packet, asked), tasks=asked.tasks)
            answer = answer if entry.place is None else in_picture(answer, entry.place)
        except (LinkError, SettingsError) as error:
            if isinstance(error, LinkError) and may_pass(error):
                return self._hindered("link", error)
            return self._settle(capture, Outcome.REFUSED, {**told, **problem_line(Outcome.REFUSED, error)}, place=place)
        self.status.link = ""
        return self._settle(capture, Outcome.ANSWERED, {**told, **answer}, place=place)

    def _settle(self, capture: Capture, outcome: Outcome, line: dict[str, Any], *, place: Path | None = None) -> bool:
        line = {"picture": capture.picture, **line}
        with self._lock:
            try:
                self._journal.settle(capture.ident, outcome, line)
            except OutputError as error:
                return self._hindered("disk", error)
            if outcome in (Outcome.REFUSED, Outcome.DROPPED):  # no answer to refer to
                self._still.forget(capture.ident)
            name = outcome.name.lower()
            setattr(self.status, name, getattr(self.status, name) + 1)
            finished = self._finish(place, capture.ident, capture.picture, outcome)
        self._tell({"capture": capture.ident, **line})
        return finished

    def _finish(self, place: Path | None, ident: str, picture: str, outcome: Outcome) -> bool:
        with self._lock:
            try:
                if place is not None and outcome is Outcome.REFUSED:
                    self._spool.set_aside(place)
                elif place is not None:
                    self._spool.remove(place)
            except OSError as error:
                self.status.disk = f"cannot take {place} out of the spool: {error.strerror}; free some space"
                return False
            self._count()
        if ident:
            self.status.disk = ""
            self._source.done(ident, picture, outcome)
            self.status.source = self.status.source or self._source.trouble
        return True

    def _hindered(self, by: str, error: SplitcodecError) -> bool:
        """Say what hinders, link, disk or source. Returns False: it is to be tried again."""
        setattr(self.status, by, shown_address(str(error)))
        self._tell(None)
        return False

    def _overflow(self) -> dict[str, Any]:
        held = f"the spool holds {self._spool.bytes} of {self._max_bytes} bytes; dropped ({self._when_full})"
        return problem_line(Outcome.DROPPED, SpoolError(held))

    def _full(self) -> bool:
        return self._spool.bytes + self._room > self._max_bytes

    def _count(self) -> None:
        self.status.waiting, self.status.spool_bytes = len(self._spool), self._spool.bytes
