"""One file of the spool: a packet that waits, and what to do with its answer.   around: device/spool.py

A file holds one line of JSON, the packet, where it has one the larger packet that follows an unsure answer, and a
CRC-32 of it all.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, final

from splitcodec.device.overlay import in_picture
from splitcodec.device.placed import Letterbox
from splitcodec.errors import SpoolError
from splitcodec.wire.answer import Answer, certainty, parse_answer
from splitcodec.wire.request import Wanted


class Larger(NamedTuple):
    """A packet that is sent as well where the best guess of the first answer has a probability below `sure`."""

    packet: bytes
    level: int
    sure: float


class Made(NamedTuple):
    """What was made of a picture now."""

    packet: bytes
    level: int
    place: Letterbox | None
    larger: Larger | None = None


class Sent(NamedTuple):
    """A packet that was answered, but not surely enough: its level, bytes, and the best guess's probability."""

    level: int
    bytes: int
    p: float


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A packet that waits: of which capture and picture, its level, its idempotency key.

    `place` is where the picture lies in what the network sees, so that an answer's boxes find back to the picture.
    `tasks`, `top` and `score` (none: the edge's defaults) are asked for whenever it is sent. `larger` follows where the
    answer is unsure, `sent` was answered before.
    """

    capture: str
    picture: str
    key: str
    level: int
    packet: bytes
    place: Letterbox | None = None
    tasks: tuple[str, ...] = ()
    top: int | None = None
    score: float | None = None
    larger: Larger | None = None
    sent: tuple[Sent, ...] = ()

    def wanted(self) -> Wanted:
        """Return what to ask for, and under which key."""
        return Wanted(self.tasks, self.top, self.key, self.score)

    def ask(self, send: Callable[[bytes, Wanted], bytes]) -> tuple[Answer, Entry | None]:
        """Send the packet; return its answer in pixels of the picture, and what is to wait instead if it is unsure.

        Raises SettingsError, LinkGarbled if no answer comes back, and what `send` raises.
        """
        answer = parse_answer(send(self.packet, self.wanted()))
        larger = None if self.larger is None else self._escalated(certainty(answer))
        return answer if self.place is None else in_picture(answer, self.place), larger

    def _escalated(self, p: float) -> Entry | None:
        if self.larger is None or p >= self.larger.sure:
            return None
        packet, level, _ = self.larger
        key = idempotency_key(packet, self.capture, wanted=self.wanted())
        sent = (*self.sent, Sent(self.level, len(self.packet), p))
        return replace(self, packet=packet, level=level, key=key, larger=None, sent=sent)

    def told(self) -> dict[str, Any]:
        """Return what an answer's line says of its packets; of several, `bytes` is the sum."""
        total = sum(one.bytes for one in self.sent) + len(self.packet)
        before = {"before": [one._asdict() for one in self.sent]} if self.sent else {}
        return {"key": self.key, "bytes": total, "level": self.level, **before}

    def dump(self) -> bytes:
        """Return the file."""
        head: dict[str, Any] = {
            "capture": self.capture,
            "picture": self.picture,
            "key": self.key,
            "level": self.level,
            "tasks": self.tasks,
            "top": self.top,
            "score": self.score,
        }
        larger = b""
        if self.place is not None:
            head["place"] = asdict(self.place)
        if self.larger is not None:
            larger, level, sure = self.larger
            head["larger"] = [len(larger), level, sure]
        if self.sent:
            head["sent"] = self.sent
        content = json.dumps(head, separators=(",", ":")).encode() + b"\n" + self.packet + larger
        return content + zlib.crc32(content).to_bytes(4, "little")


def entry_of(capture: str, picture: str, *, made: Made, wanted: Wanted) -> Entry:
    """Return the entry of what was made of a picture now."""
    key = idempotency_key(made.packet, capture, wanted=wanted)
    return Entry(
        capture,
        picture,
        key,
        made.level,
        made.packet,
        made.place,
        wanted.tasks,
        wanted.top,
        wanted.score,
        made.larger,
    )


def idempotency_key(packet: bytes, capture: str, *, wanted: Wanted) -> str:
    """Return the key of a packet: the same for one capture however often it is sent, another for every other.

    An edge gives one key one answer, so what is asked for is part of it.
    """
    rest = repr((capture, wanted.tasks, wanted.top, wanted.score)).encode()
    return hashlib.sha256(len(packet).to_bytes(4, "little") + packet + rest).hexdigest()[:32]


def parse_entry(content: bytes, place: Path) -> Entry:
    """Return what a file holds. Raises SpoolError if it is damaged."""
    try:
        if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
            raise ValueError("CRC-32 differs")
        head, _, packets = content[:-4].partition(b"\n")
        got: Any = json.loads(head)
        packet, larger = _larger(packets, got["larger"]) if "larger" in got else (packets, None)
        return Entry(
            capture=str(got["capture"]),
            picture=str(got["picture"]),
            key=str(got["key"]),
            level=int(got["level"]),
            packet=packet,
            place=_place(got["place"]) if "place" in got else None,
            tasks=_tasks(got["tasks"]),
            top=None if got["top"] is None else int(got["top"]),
            score=None if got["score"] is None else float(got["score"]),
            larger=larger,
            sent=tuple(Sent(int(level), int(size), float(p)) for level, size, p in got.get("sent", ())),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SpoolError(f"{place}: damaged ({error}); the packet is set aside") from None


def _larger(packets: bytes, got: Any) -> tuple[bytes, Larger]:
    size, level, sure = got
    if not 0 < size < len(packets):
        raise ValueError(f"a larger packet of {size} bytes in {len(packets)}")
    return packets[:-size], Larger(packets[-size:], int(level), float(sure))


def _place(got: Any) -> Letterbox:
    width, height = got["picture"]
    return Letterbox(**{**got, "picture": (width, height)})


def _tasks(got: Any) -> tuple[str, ...]:
    if not isinstance(got, list):
        raise TypeError("tasks are no list")
    return tuple(str(task) for task in got)
