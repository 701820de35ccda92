"""Beside web.py: who may post a picture now, how long he may take, and how large it may be.   asked by: web.py"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import final

from splitcodec.errors import PictureTooLarge, SplitcodecError


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may ask: bytes and pixels of a picture, seconds for sending it, pictures worked on and waiting.

    Who has sent for `patience` seconds gives way to whoever finds no place, the slowest first.
    """

    encode_bytes: int = 16_000_000
    jpeg_bytes: int = 65_536
    pixels: int = 32_000_000
    jpeg_pixels: int = 1_000_000
    seconds: float = 30.0
    patience: float = 2.0
    running: int = 2
    waiting: int = 8


@final
class Refused(Exception):
    """A post that is refused before its picture is looked at."""

    def __init__(self, status: int, detail: str, *, kind: type[SplitcodecError] | None = None) -> None:
        super().__init__(detail)
        self.status, self.kind = status, kind


@final
class Places:
    """How many posts are worked on (`running`), how many more may be in the house, and who of them still sends."""

    def __init__(self, limits: Limits) -> None:
        self.running = asyncio.Semaphore(limits.running)
        self._free = limits.running + limits.waiting
        self._patience_s = limits.patience
        self._seconds = limits.seconds
        self._sending: dict[asyncio.Timeout, tuple[float, bytearray]] = {}  # since when, and what has come

    async def __aenter__(self) -> None:
        """Take a place. Raises Refused."""
        if self._free <= 0 and not self._hurried():
            raise Refused(503, "too many pictures at once; try again in a moment")
        self._free -= 1

    async def __aexit__(self, *_: object) -> None:
        """Give it back."""
        self._free += 1

    @asynccontextmanager
    async def sending(self, data: bytearray) -> AsyncIterator[None]:
        """Bound the time in which `data` comes. Raises Refused."""
        try:
            async with asyncio.timeout(self._seconds) as end:
                self._sending[end] = (time.monotonic(), data)
                try:
                    yield
                finally:
                    self._sending.pop(end, None)
        except TimeoutError:
            detail = f"the picture took more than {self._seconds:g} s to arrive, or too long while others waited"
            raise Refused(408, f"{detail}; try again, or send a smaller one") from None

    def _hurried(self) -> bool:
        """End the time of the slowest sender, whose place another takes at once. Returns whether there was one."""
        now = time.monotonic()
        rates = {end: len(data) / (now - since) for end, (since, data) in self._sending.items() if now - since > 0}
        slow = [end for end in rates if now - self._sending[end][0] > self._patience_s and not end.expired()]
        if not slow:
            return False
        slowest = min(slow, key=rates.__getitem__)
        del self._sending[slowest]
        slowest.reschedule(asyncio.get_running_loop().time())
        return True


async def read_body(chunks: AsyncIterator[bytes], places: Places, *, max_bytes: int) -> bytes:
    """Return what is posted, in one. Raises Refused."""
    data = bytearray()
    async with places.sending(data):
        async for chunk in chunks:
            data += chunk
            if len(data) > max_bytes:
                detail = f"a picture of more than {max_bytes} bytes; send a smaller one"
                raise Refused(413, detail, kind=PictureTooLarge)
    return bytes(data)
