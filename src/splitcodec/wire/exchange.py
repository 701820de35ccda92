"""Beside stage 5 of 7: who sends which frame when.   before: wire/fragment.py   after: fragmented.py on both shores

Two state machines without input, output or a clock: whoever drives them says what was heard and what time it is, and
sends what they return. Selective repeat: a sender sends what is missing and asks in the last frame for a report; the
receiver speaks only when it is asked, or when a message is whole.

Whatever a stranger sends, a receiver holds at most `Limits`. Whatever a link loses, doubles, reorders or damages, a
message is delivered once and whole, or its sender ends as LOST.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

from splitcodec.errors import SettingsError
from splitcodec.wire.fragment import TRAILER, Channel, Complete, Fragment, Report, dump_frame, message_crc, split


class State(enum.Enum):
    """How a sender stands."""

    SENDING = "sending"
    COMPLETE = "complete"
    LOST = "lost"


@final
@dataclass(frozen=True, slots=True)
class Patience:
    """How long a sender waits for a report, doubled up to 8 times as long, and how often without any news."""

    report_s: float = 2.0
    tries: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.report_s < 1e6 or self.tries < 1:
            raise SettingsError(f"{self.report_s} s and {self.tries} tries; expected more than 0 s and at least 1 try")


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """What a receiver holds for one peer: messages half come, bytes, seconds without news, messages remembered."""

    messages: int = 8
    total_bytes: int = 65_536
    idle_s: float = 600.0
    remembered: int = 256

    def __post_init__(self) -> None:
        if min(self.messages, self.total_bytes, self.remembered) < 1 or not self.idle_s > 0:
            raise SettingsError(f"{self}; expected at least 1 of each and more than 0 s")


@final
class Sender:
    """Sends one message. Call `frames`, send them, call `sent`; tell it what was `heard`; again at `wake`.

    `next_ident` gives message numbers, 0 to 65535; it is asked again if the receiver knows another message of that
    number. Raises SettingsError for a message that does not fit.
    """

    def __init__(
        self,
        message: bytes,
        *,
        channel: Channel,
        frame: int,
        next_ident: Callable[[], int],
        patience: Patience,
        request_crc: int | None = None,
    ) -> None:
        self._pieces = split(message, frame=frame, request_crc=request_crc)
        self.crc = message_crc(message, request_crc=request_crc)
        self.channel = channel
        self.state = State.SENDING
        self.wake = 0.0
        self._next_ident = next_ident
        self.ident = next_ident()
        self._patience = patience
        self._came: frozenset[int] = frozenset()
        self._most = 0
        self._silent = 0  # reports waited for without news since the last progress
        self._burst = True
        self._waiting = False

    def frames(self, now: float) -> list[bytes]:
        """Return what is to be sent now: everything missing after news, one frame that asks after silence."""
        if self.state is not State.SENDING or now < self.wake:
            return []
        missing = [index for index in range(len(self._pieces)) if index not in self._came]
        if not self._burst:
            self._silent += 1
            missing = missing[:1]
        if self._silent >= self._patience.tries:
            self.state = State.LOST
            return []
        self._burst, self._waiting = False, True
        last = len(self._pieces) - 1
        return [
            dump_frame(Fragment(self.channel, self.ident, i, last, self._pieces[i], report=i == missing[-1]))
            for i in missing
        ]

    def sent(self, now: float) -> None:
        """Start to wait: the last of `frames` has left, if there were any."""
        if self._waiting:
            self._waiting = False
            self.wake = now + self._patience.report_s * min(8, 2**self._silent)

    def heard(self, frame: Report | Complete, now: float) -> None:
        """Take a report or the end into account; those of other messages, and repeated ones, are ignored."""
        if self.state is not State.SENDING or (frame.channel, frame.ident) != (self.channel, self.ident):
            return
        if isinstance(frame, Complete) and frame.crc == self.crc:
            self.state = State.COMPLETE
        elif isinstance(frame, Complete) or frame.last != len(self._pieces) - 1:
            self._begin_again(now)
        elif frame.came != self._came:  # answering a report twice would breed frames on a link that doubles them
            self._came = frame.came
            if len(frame.came) > self._most:
                self._most, self._silent = len(frame.came), 0
            else:
                self._silent += 1
            self._burst, self.wake = True, now

    def give_up(self) -> None:
        """End as LOST if the message has not come."""
        if self.state is State.SENDING:
            self.state = State.LOST

    def ask_again(self, now: float) -> None:
        """Send one frame more of a message that has come, so that its receiver answers again."""
        self.state, self._came, self._burst, self.wake = State.SENDING, frozenset(), False, now
        self._silent = 0

    def nudge(self, now: float) -> None:
        """Wait no longer where nothing was heard for a while: the receiver lives and asks."""
        if self.state is State.SENDING and self._silent:
            self._silent, self.wake = 0, now

    def _begin_again(self, now: float) -> None:
        self.ident = self._next_ident()
        self._came, self._most = frozenset(), 0
        self._silent += 1
        self._burst, self.wake = True, now


@final
@dataclass(frozen=True, slots=True)
class Message:
    """A message that came whole, and its trailer."""

    channel: Channel
    ident: int
    data: bytes
    crc: int


@final
@dataclass(slots=True)
class Heard:
    """What a fragment leads to: a frame to send back, a message that is whole now, or one that is known already."""

    reply: bytes | None = None
    message: Message | None = None
    known: bool = False


@final
@dataclass(slots=True)
class _Part:
    last: int
    pieces: dict[int, bytes] = field(default_factory=dict)
    size: int = 0
    news: float = 0.0


@final
class Receiver:
    """Puts messages of one peer together. `dropped` counts those that limits, time or damage have ended.

    `request_crc` is the trailer of the request whose answers are awaited (none: requests are).
    """

    def __init__(self, *, limits: Limits, request_crc: int | None = None) -> None:
        self._limits = limits
        self._request_crc = request_crc
        self._parts: OrderedDict[tuple[Channel, int], _Part] = OrderedDict()  # the longest without news first
        self._known: OrderedDict[tuple[Channel, int], tuple[int, int]] = OrderedDict()
        self._held = 0
        self.dropped = 0

    @property
    def held_bytes(self) -> int:
        """Return the bytes of messages half come."""
        return self._held

    def heard(self, frame: Fragment, now: float) -> Heard:
        """Take a fragment."""
        self._expire(now)
        key = (frame.channel, frame.ident)
        if key in self._known:
            last, crc = self._known[key]
            reply = dump_frame(Complete(*key, crc)) if frame.report else None
            return Heard(reply, known=last == frame.last)
        part = self._parts.setdefault(key, _Part(frame.last, news=now))
        if part.last == frame.last and frame.index not in part.pieces:
            part.pieces[frame.index] = frame.data
            part.size += len(frame.data)
            self._held += len(frame.data)
            part.news = now
            self._parts.move_to_end(key)
            if len(part.pieces) > part.last and (message := self._whole(key)) is not None:
                return Heard(dump_frame(Complete(*key, message.crc)), message)
            self._make_room()
        if not frame.report:
            return Heard()
        part = self._parts.get(key, _Part(frame.last))
        return Heard(dump_frame(Report(*key, part.last, frozenset(part.pieces))))

    def _whole(self, key: tuple[Channel, int]) -> Message | None:
        part = self._parts[key]
        whole = b"".join(part.pieces[index] for index in range(part.last + 1))
        data, crc = whole[:-TRAILER], int.from_bytes(whole[-TRAILER:], "little")
        self._drop(key)
        if len(whole) < TRAILER or message_crc(data, request_crc=self._request_crc) != crc:
            self.dropped += 1
            return None
        self._known[key] = (part.last, crc)
        while len(self._known) > self._limits.remembered:
            self._known.popitem(last=False)
        return Message(*key, data, crc)

    def _expire(self, now: float) -> None:
        while self._parts and now - next(iter(self._parts.values())).news > self._limits.idle_s:
            self._drop(next(iter(self._parts)))
            self.dropped += 1

    def _make_room(self) -> None:
        while len(self._parts) > self._limits.messages or self._held > self._limits.total_bytes:
            self._drop(next(iter(self._parts)))
            self.dropped += 1

    def _drop(self, key: tuple[Channel, int]) -> None:
        self._held -= self._parts.pop(key).size
