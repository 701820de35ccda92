"""Beside listen.py: a connection's transport, with an answer's head and body in one write.   inside: listen.py

uvicorn writes the head, then the body; each becomes a segment of its own, and on a weak link the 52 bytes of TCP and IP
around the second weigh as much as a short answer. Here whatever is written within one turn of the loop leaves as one.
"""

from __future__ import annotations

import asyncio
from typing import Any, final


@final
class OneWrite:
    """An asyncio transport in all but its writes."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = list[bytes]()

    def write(self, data: bytes) -> None:
        """Send bytes when this turn of the loop is over."""
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)

    def close(self) -> None:
        """Send what waits, then close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        data, self._held = b"".join(self._held), []
        if data:
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
