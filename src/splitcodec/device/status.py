"""How a watch stands, and how long it waits.   used by: device/watch.py, camera.py, journal.py"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, final

from splitcodec.wire.request import by_chance

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0


_SECRETS = (
    (re.compile(r"(?<=://)[^/\s]*@"), ""),
    (re.compile(r"(://[^?\s]*\?)[^\s\"]+"), r"\1..."),  # cameras take them behind the question mark
    (re.compile(r"\b((?:user|proxy)-(?:id|pw) *= *)(?:\"[^\"]*\"|\S+)"), r"\1..."),  # properties of GStreamer's sources
)


def shown_address(address: str) -> str:
    """Return an address, or a text with addresses in it, without users and passwords."""
    for secret, shown in _SECRETS:
        address = secret.sub(shown, address)
    return address


@final
@dataclass(slots=True)
class Status:
    """What a watch has done since it started, what waits, and what hinders it ("" if nothing does)."""

    taken: int = 0
    answered: int = 0
    refused: int = 0
    unreadable: int = 0
    dropped: int = 0
    unchanged: int = 0
    waiting: int = 0
    spool_bytes: int = 0
    sent: int = 0
    link: str = ""
    disk: str = ""
    source: str = ""

    @property
    def unfinished(self) -> bool:
        """Say whether anything waits or failed."""
        failed = self.refused or self.unreadable or self.dropped
        return bool(self.waiting or failed or self.source or self.disk)

    def to_json(self) -> dict[str, Any]:
        """Return it as an object."""
        return asdict(self)


@final
class Backoff:
    """Waits that double from 1 s to 300 s, each less by up to half by chance: a fleet must not return in step."""

    def __init__(self, *, first_s: float = FIRST_WAIT_S, longest_s: float = LONGEST_WAIT_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._turn = 0

    def next_s(self) -> float:
        """Return the seconds to wait after one more failure."""
        wait_s = min(self._longest_s, self._first_s * 2.0 ** min(self._turn, 60))
        self._turn += 1
        return by_chance(wait_s)

    def reset(self) -> None:
        """Begin again: something worked."""
        self._turn = 0
