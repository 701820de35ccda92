"""What a device asks for beside its packet, where the carrier has no place of its own for it.   after: wire/packet.py

HTTP says it in the URL, MQTT in user properties; a message over frames says it in front of the packet
(`docs/fragment-format.md`, section 6). A message that is a packet and nothing else is a request as well.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final
from urllib.parse import parse_qsl, quote

from splitcodec.errors import PacketError, SettingsError
from splitcodec.wire.answer import MOST_GUESSES
from splitcodec.wire.given import names, whole, within

TASKS = "tasks"
TOP = "top"
SCORE = "score"
BRIEF = "brief"
"""Over MQTT: a property of this name, "1", asks for the answer shortened."""
KEY = "idempotency-key"
KEYS = re.compile(r"[0-9A-Za-z_-]{1,128}")
"""What a server takes as an idempotency key."""
MAX_PACKET = 65_536
_BARE = 0x10  # a packet's first byte, which begins with its version, is never below
_BRIEF = 0x01
_SCORE = re.compile(r"[0-9]+(\.[0-9]+)?([eE]-?[0-9]+)?")  # as Python and JSON write numbers from 0 to 1
_LONGEST_SCORE = 32


class Wanted(NamedTuple):
    """What a device asks for: tasks, guesses of a classification, and under what key; empty or None where unsaid.

    `score` is the least of the boxes that it wants.
    """

    tasks: tuple[str, ...] = ()
    top: int | None = None
    key: str | None = None
    score: float | None = None


Respond = Callable[[bytes, Wanted], bytes]
"""Packet bytes -> the answer's JSON. Raises SplitcodecError."""


@final
@dataclass(frozen=True, slots=True)
class Request:
    """A packet and what is wanted; `brief`: the answer may come as `wire/brief.py` writes it."""

    packet: bytes
    wanted: Wanted
    brief: bool = False


def said(*, tasks: Sequence[str] = (), top: int | None = None, score: float | None = None) -> dict[str, str]:
    """Return what a device asks for as named words. Raises SettingsError for numbers that no edge takes."""
    check_top(top)
    check_score(score)
    if names(tasks) is None:
        raise SettingsError(f"tasks {tasks!r:.40}; expected a list of names")
    words = {TASKS: ",".join(tasks)} if tasks else {}
    words |= {} if top is None else {TOP: str(top)}
    return words | ({} if score is None else {SCORE: str(float(score))})


def dump_request(
    packet: bytes,
    *,
    tasks: Sequence[str] = (),
    top: int | None = None,
    score: float | None = None,
    brief: bool = False,
) -> bytes:
    """Return a request's message. Raises SettingsError, also for names of tasks that do not fit into 255 bytes."""
    given = said(tasks=tasks, top=top, score=score)
    if not given and not brief:
        return packet
    words = "&".join(f"{word}={quote(value, safe=',')}" for word, value in given.items()).encode("ascii")
    if len(words) > 255:
        raise SettingsError(f"{len(words)} bytes of tasks; a request over frames has room for 255, ask for fewer")
    return bytes((_BRIEF if brief else 0, len(words))) + words + packet


def parse_request(message: bytes) -> Request:
    """Return the request in a message. Raises PacketError for what `dump_request` does not write, SettingsError."""
    if not message or message[0] >= _BARE:
        return Request(_bounded(message), Wanted())
    flags, end = message[0], 2 + (message[1] if len(message) > 1 else 0)
    if flags & ~_BRIEF or len(message) < end:
        raise PacketError(
            f"a request that begins with {message[:2].hex()}; expected a packet, or 00 or 01 and a length"
        )
    try:
        given = dict(parse_qsl(message[2:end].decode("ascii"), strict_parsing=end > 2, max_num_fields=8))
    except ValueError:
        raise PacketError(
            f"a request for {message[2:end][:40]!r}; expected words such as tasks=classify&top=1"
        ) from None
    given.pop(KEY, None)  # frames have numbers of their own
    return Request(_bounded(message[end:]), wanted_from(given), flags == _BRIEF)


def backoff_s(failed: int) -> float:
    """Return the seconds to wait after so many tries that failed, at least one: doubled each time, 0.4 to 15.

    They are less by up to half, as `by_chance` says.
    """
    return by_chance(min(15.0, 0.2 * 2.0 ** min(failed, 10)))


def by_chance(wait_s: float) -> float:
    """Return a wait that is less by up to half by chance: a fleet must not return in step."""
    return wait_s * (0.5 + random.random() / 2)  # noqa: S311 - jitter, not a secret


def check_tries(*, timeout_s: float, retries: int = 0) -> None:
    """Refuse a time-out, or a number of further tries, that no link can keep. Raises SettingsError."""
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise SettingsError(f"time-out of {timeout_s} s; expected more than 0")
    if retries < 0:
        raise SettingsError(f"{retries} retries; expected 0 or more")


def tries_told(tries: int) -> str:
    """Return a number of tries in words."""
    return "1 try" if tries == 1 else f"{tries} tries"


def check_top(top: int | None) -> None:
    """Refuse a number of guesses that no edge gives. None is the edge's default. Raises SettingsError."""
    if top is not None and not (whole(top) is not None and within(top, 1, MOST_GUESSES)):
        raise SettingsError(f"top {top!r:.40}; expected 1 to {MOST_GUESSES} guesses")


def check_score(score: float | None) -> None:
    """Refuse a least score of boxes that none is. None is the edge's default. Raises SettingsError."""
    if score is not None and not within(score, 0, 1):
        raise SettingsError(f"score {score!r:.40}; expected a least score of boxes from 0 to 1")


def wanted_from(given: Mapping[str, str]) -> Wanted:
    """Return what named words say. Raises SettingsError for a number of guesses or a score that is none."""
    tasks = tuple(task.strip() for task in given.get(TASKS, "").split(",") if task.strip())
    return Wanted(tasks, _top(given.get(TOP)), given.get(KEY), _score(given.get(SCORE)))


def _top(word: str | None) -> int | None:
    if word is None:
        return None
    if not (word.isascii() and word.isdigit() and len(word) < 10 and 1 <= int(word) <= MOST_GUESSES):
        raise SettingsError(f"top {word[:20]!r}; expected 1 to {MOST_GUESSES} guesses")
    return int(word)


def _score(word: str | None) -> float | None:
    if word is None:
        return None
    if not (len(word) <= _LONGEST_SCORE and _SCORE.fullmatch(word) and 0 <= float(word) <= 1):
        raise SettingsError(f"score {word[:20]!r}; expected a least score of boxes from 0 to 1")
    return float(word)


def _bounded(packet: bytes) -> bytes:
    if len(packet) > MAX_PACKET:
        raise PacketError(f"a packet of {len(packet)} bytes; at most {MAX_PACKET} are taken")
    return packet


def without_password(url: object) -> str:
    """Return what a message may show of a wrong address, of which nobody knows what the password is."""
    return str(url).rpartition("@")[2][:200]
