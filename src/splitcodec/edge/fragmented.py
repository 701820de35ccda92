"""Stage 5 of 7, over small frames: the edge's end of a radio.   inside: wire/exchange.py   after: edge/answer.py

    serve_frames(asked(edge.respond_to), send, receive, frame=51, stop=stop)

`respond` is message to message: `asked` of an edge in this process or over HTTP, or any link where devices send bare
packets. One `Peer` stands for one device; what tells devices apart (a radio address, a topic) is the business of
whoever owns the radio.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from splitcodec.errors import AnswerTooLarge, FrameError, SettingsError, SplitcodecError
from splitcodec.wire.brief import shorten
from splitcodec.wire.exchange import Limits, Message, Patience, Receiver, Sender, State
from splitcodec.wire.fragment import Channel, Complete, Report, parse_frame
from splitcodec.wire.problem import dump_problem
from splitcodec.wire.request import Respond, parse_request

_log = logging.getLogger("splitcodec.edge")
ANSWERS_KEPT = 16


@final
@dataclass(slots=True)
class _Answer:
    body: bytes
    channel: Channel
    crc: int
    sender: Sender


@final
class Peer:
    """The edge's side of one device, without input, output or a clock.

    Give it what came (`heard`), send `frames`, call `sent`, and call again at `wake`. A packet is answered once however
    often its frames come; the last 16 answers are kept for devices that missed them, or the last ones that have no more
    bytes together than `limits` allows of messages half come, but one in any case.
    """

    def __init__(
        self,
        respond: Callable[[bytes], bytes],
        *,
        frame: int = 222,
        patience: Patience | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._respond = respond
        self._frame = frame
        self._patience = patience or Patience()
        limits = limits or Limits()
        self._most_bytes = limits.total_bytes
        self.receiver = Receiver(limits=limits)
        self._answers: OrderedDict[int, _Answer] = OrderedDict()
        self._replies: list[bytes] = []

    @property
    def kept_bytes(self) -> int:
        """Return the bytes of the answers that are kept."""
        return sum(len(one.body) for one in self._answers.values())

    @property
    def wake(self) -> float | None:
        """Return when `frames` has something to say again, whatever is heard; None: never."""
        waiting = [one.sender.wake for one in self._answers.values() if one.sender.state is State.SENDING]
        return min(waiting, default=None)

    def heard(self, data: bytes, now: float) -> None:
        """Take whatever came into account, answering a packet that is whole now; what is no frame is ignored."""
        try:
            frame = parse_frame(data)
        except FrameError:
            return
        if isinstance(frame, Report | Complete):
            if frame.ident in self._answers:
                self._answers[frame.ident].sender.heard(frame, now)
            return
        if frame.channel is not Channel.REQUEST:
            return
        found = self.receiver.heard(frame, now)
        if found.message is not None:
            self._answer(found.message)  # which tells as much as its complete would
            return
        if found.reply is not None:
            self._replies.append(found.reply)
        if found.known and frame.report and frame.ident in self._answers:
            old = self._answers[frame.ident]
            if old.sender.state is State.SENDING:
                old.sender.nudge(now)
            else:
                old.sender = self._sender(old.body, channel=old.channel, ident=frame.ident, crc=old.crc)

    def frames(self, now: float) -> list[bytes]:
        """Return what is to be sent now."""
        replies, self._replies = self._replies, []
        return [*replies, *(frame for one in self._answers.values() for frame in one.sender.frames(now))]

    def sent(self, now: float) -> None:
        """Start to wait: the last of `frames` has left."""
        for one in self._answers.values():
            one.sender.sent(now)

    def _answer(self, message: Message) -> None:
        for old in self._answers.values():  # a device asks one thing at a time: it waits for those no more
            old.sender.give_up()
        channel = Channel.ANSWER
        try:
            body = self._respond(message.data)
            try:
                sender = self._sender(body, channel=channel, ident=message.ident, crc=message.crc)
            except SettingsError:  # whose name, all that a device gets, would say nothing
                what = f"an answer of {len(body)} bytes, more than frames of {self._frame} bytes carry"
                raise AnswerTooLarge(f"{what}; ask for less, or use larger frames") from None
        except SplitcodecError as error:
            _log.warning("%s: %s", type(error).__name__, error)
            channel, body = Channel.REFUSAL, dump_problem(error, brief=True)
            sender = self._sender(body, channel=channel, ident=message.ident, crc=message.crc)
        self._answers[message.ident] = _Answer(body, channel, message.crc, sender)
        self._answers.move_to_end(message.ident)
        while len(self._answers) > ANSWERS_KEPT or (len(self._answers) > 1 and self.kept_bytes > self._most_bytes):
            self._answers.popitem(last=False)

    def _sender(self, body: bytes, *, channel: Channel, ident: int, crc: int) -> Sender:
        return Sender(
            body,
            channel=channel,
            frame=self._frame,
            next_ident=lambda: ident,
            patience=self._patience,
            request_crc=crc,
        )


def asked(respond: Respond) -> Callable[[bytes], bytes]:
    """Return `respond` for messages that may say in front of their packet what they want (`wire/request.py`)."""

    def respond_to(message: bytes) -> bytes:
        request = parse_request(message)
        answer = respond(request.packet, request.wanted)
        return shorten(answer) if request.brief else answer

    return respond_to


def serve_frames(
    respond: Callable[[bytes], bytes],
    send: Callable[[bytes], None],
    receive: Callable[[float], bytes | None],
    *,
    frame: int = 222,
    stop: threading.Event,
    patience: Patience | None = None,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Answer one device's frames until `stop` is set. `send` and `receive` are as in `splitcodec.device.fragmented`."""
    peer = Peer(respond, frame=frame, patience=patience, limits=limits)
    while not stop.is_set():
        if frames := peer.frames(clock()):
            for one in frames:
                send(one)
            peer.sent(clock())
        wake, now = peer.wake, clock()
        data = receive(0.5 if wake is None else max(0.0, min(0.5, wake - now)))
        if data is not None:
            peer.heard(data, clock())
