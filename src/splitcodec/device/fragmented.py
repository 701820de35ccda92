"""Stage 5 of 7, over small frames: a link for radios.   inside: wire/exchange.py   far end: edge/fragmented.py

    link = fragmented(radio.send, radio.receive, frame=51, top=1, brief=True)
    answer = device.ask("cat.jpg", link=link)

`send(frame)` sends one frame and returns when it has left; waiting for the duty cycle is its business.
`receive(seconds)` returns the next frame, or None after that time. Both may lose, damage, double and reorder frames.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import final

from splitcodec.errors import FrameError, LinkDown, LinkError
from splitcodec.wire.brief import restore
from splitcodec.wire.exchange import Heard, Limits, Message, Patience, Receiver, Sender, State
from splitcodec.wire.fragment import MAX_FRAGMENTS, Channel, Complete, Fragment, Report, dump_frame, parse_frame
from splitcodec.wire.problem import parse_problem
from splitcodec.wire.request import check_score, check_top, check_tries, dump_request

Send = Callable[[bytes], None]
Receive = Callable[[float], bytes | None]


def fragmented(
    send: Send,
    receive: Receive,
    *,
    frame: int = 222,
    tasks: Sequence[str] = (),
    top: int | None = None,
    score: float | None = None,
    brief: bool = False,
    timeout_s: float = 60.0,
    patience: Patience | None = None,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.monotonic,
    place: str = "the edge at the far end of the radio",
) -> FragmentedLink:
    """Return a link over frames of at most `frame` bytes; `timeout_s` bounds one packet and its answer.

    `tasks`, `top` (guesses of a classification), `score` (the least of the boxes to send) and `brief` (an answer in a
    third of the bytes) are asked for in front of the packet, in 2 bytes and a few more; an edge that takes them has its
    `respond` in `asked`. `place` names the edge in messages.

    Calling it raises LinkDown, LinkRefused or LinkGarbled. SettingsError for arguments that make no sense, and for a
    packet that needs more than 256 fragments. Without `limits` any answer that fits into 256 frames is taken.
    """
    check_tries(timeout_s=timeout_s)
    check_top(top)
    check_score(score)
    return FragmentedLink(
        send,
        receive,
        frame=frame,
        tasks=tuple(tasks),
        request=partial(dump_request, tasks=tuple(tasks), top=top, score=score, brief=brief),
        brief=brief,
        timeout_s=timeout_s,
        patience=patience,
        limits=limits,
        clock=clock,
        place=place,
    )


@final
class Asking:
    """One packet on its way and its answer, without input, output or a clock; drive it as a `Sender`."""

    def __init__(
        self, packet: bytes, *, frame: int, next_ident: Callable[[], int], patience: Patience, limits: Limits
    ) -> None:
        self.sender = Sender(packet, channel=Channel.REQUEST, frame=frame, next_ident=next_ident, patience=patience)
        self._receiver = Receiver(limits=limits, request_crc=self.sender.crc)
        self._patience = patience
        self._nudge = math.inf
        self._replies: list[bytes] = []
        self.message: Message | None = None

    @property
    def lost(self) -> bool:
        """Return whether nothing more can come of it."""
        return self.sender.state is State.LOST

    @property
    def wake(self) -> float:
        """Return when `frames` has something to say again, whatever is heard."""
        return self.sender.wake if self.sender.state is State.SENDING else self._nudge

    def frames(self, now: float) -> list[bytes]:
        """Return what is to be sent now."""
        replies, self._replies = self._replies, []
        if self.message is not None:
            return replies
        if self.sender.state is State.COMPLETE and now >= self._nudge:
            self.sender.ask_again(now)  # the edge gave up on its answer; it sends it again when it is asked
        return replies + self.sender.frames(now)

    def sent(self, now: float) -> None:
        """Start to wait: the last of `frames` has left."""
        self.sender.sent(now)

    def heard(self, data: bytes, now: float) -> None:
        """Take whatever came into account; what is no frame, or not for us, is ignored."""
        try:
            frame = parse_frame(data)
        except FrameError:
            return
        if isinstance(frame, Report | Complete):
            self.sender.heard(frame, now)
        elif frame.ident == self.sender.ident and frame.channel is not Channel.REQUEST:
            found: Heard = self._receiver.heard(frame, now)
            if found.reply is not None:
                self._replies.append(found.reply)
            self.message = self.message or found.message
        self._nudge = now + 4 * self._patience.report_s


@final
class FragmentedLink:
    """A link over small frames, one packet at a time; safe to share between threads."""

    def __init__(
        self,
        send: Send,
        receive: Receive,
        *,
        frame: int,
        tasks: tuple[str, ...],
        request: Callable[[bytes], bytes],
        brief: bool,
        timeout_s: float,
        patience: Patience | None,
        limits: Limits | None,
        clock: Callable[[], float],
        place: str,
    ) -> None:
        self.tasks = tasks
        self._place = place
        self._send = send
        self._receive = receive
        self._frame = frame
        self._request = request
        self._brief = brief
        self._timeout_s = timeout_s
        self._patience = patience or Patience()
        self._limits = limits or Limits(total_bytes=max(Limits().total_bytes, MAX_FRAGMENTS * frame))
        self._clock = clock
        self._ident = secrets.randbelow(1 << 16)  # so that a device that starts anew does not repeat itself
        self._answered: Message | None = None
        self._busy = threading.Lock()

    def __call__(self, packet: bytes, *, idempotency_key: str | None = None) -> bytes:
        """Send one packet and return the answer. The key is not sent: doubles are told by their number and checksum."""
        with self._busy:
            message = self._ask(self._request(packet))
        if message.channel is Channel.REFUSAL:
            raise parse_problem(message.data, place=self._place)
        return restore(message.data) if self._brief else message.data

    def _ask(self, packet: bytes) -> Message:
        begin = now = self._clock()
        asking = Asking(packet, frame=self._frame, next_ident=self._next, patience=self._patience, limits=self._limits)
        while not asking.lost and now < begin + self._timeout_s:
            if frames := asking.frames(now):
                for frame in frames:
                    self._send(frame)
                asking.sent(self._clock())
            if asking.message is not None:
                self._answered = asking.message
                return asking.message
            now = self._clock()
            data = self._receive(max(0.0, min(asking.wake, begin + self._timeout_s) - now))
            now = self._clock()
            if data is not None and not self._settle_old(data):
                asking.heard(data, now)
        raise self._down(asking, now - begin)

    def _next(self) -> int:
        self._ident = (self._ident + 1) % (1 << 16)
        return self._ident

    def _settle_old(self, data: bytes) -> bool:
        """Confirm the answer before this one where the edge still asks about it."""
        old = self._answered
        if old is None:
            return False
        try:
            frame = parse_frame(data)
        except FrameError:
            return True
        if not isinstance(frame, Fragment) or (frame.channel, frame.ident) != (old.channel, old.ident):
            return False
        if frame.report:
            self._send(dump_frame(Complete(old.channel, old.ident, old.crc)))
        return True

    def _down(self, asking: Asking, spent_s: float) -> LinkError:
        came = "the packet came, its answer did not" if asking.sender.state is State.COMPLETE else "no sign of an edge"
        return LinkDown(
            f"no answer from {self._place} over frames of {self._frame} bytes after {spent_s:.0f} s ({came}); "
            "check the radio or the address, and that the far end answers frames"
        )
