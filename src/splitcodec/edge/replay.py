"""Beside server.py: an answer that was given once is given again, not computed again.   asked by: service.py

A device that lost the connection sends its packet again under the same idempotency key. Answers are kept in this
process alone, for a while, and only so many of them: docs/server.md. Refusals are not kept: they cost little to repeat.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import final

from splitcodec.errors import IdempotencyKey, IdempotencyMismatch
from splitcodec.wire.request import KEYS

Place = tuple[str, str]


@final
@dataclass(slots=True)
class _Entry:
    digest: bytes
    body: bytes | None = None
    expires: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)


@final
class Replays:
    """Keeps at most `answers` answers of at most `max_bytes` in all, each for `keep_s` seconds; the oldest go first."""

    def __init__(
        self, *, answers: int, max_bytes: int, keep_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._answers = answers
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._bytes = 0
        self._pending: dict[Place, _Entry] = {}
        self._kept: OrderedDict[Place, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def once(
        self, scope: str, key: str, digest: bytes, compute: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, bool]:
        """Return the answer under a key, and whether it was kept from before.

        Keys of one `scope` mean nothing in another, `digest` stands for what is asked. Who asks the same while it is
        computed waits for that. Raises IdempotencyKey, IdempotencyMismatch, and what `compute` raises.
        """
        check_key(key)
        place = (scope, key)
        self._forget()
        while (entry := self._pending.get(place) or self._kept.get(place)) is not None:
            if entry.digest != digest:
                raise IdempotencyMismatch(
                    f"key {key[:40]!r} came before with another packet; take a new key for each packet"
                )
            await entry.over.wait()
            if entry.body is not None:
                return entry.body, True
        entry = self._pending[place] = _Entry(digest)
        try:
            entry.body = await compute()
            self._keep(place, entry)
        finally:
            del self._pending[place]
            entry.over.set()
        return entry.body, False

    def _keep(self, place: Place, entry: _Entry) -> None:
        entry.expires = self._clock() + self._keep_s
        self._kept[place] = entry
        self._bytes += _size(entry)
        while self._kept and (len(self._kept) > self._answers or self._bytes > self._max_bytes):
            self._drop(next(iter(self._kept)))

    def _forget(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values())).expires <= now:
            self._drop(next(iter(self._kept)))

    def _drop(self, place: Place) -> None:
        self._bytes -= _size(self._kept.pop(place))


def check_key(key: str) -> None:
    """Refuse a malformed idempotency key. Raises IdempotencyKey."""
    if not KEYS.fullmatch(key):
        raise IdempotencyKey(f"idempotency key {key[:40]!r}; expected 1 to 128 letters, digits, '_' and '-'")


def _size(entry: _Entry) -> int:
    return len(entry.body or b"") + 300  # and what holds it
