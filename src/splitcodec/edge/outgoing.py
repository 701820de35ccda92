"""Beside listen.py: a connection's transport, with an answer's head and body in one write.   inside: listen.py

uvicorn writes the head, then the body; each becomes a segment of its own, and on a weak link the 52 bytes of TCP and IP
around the second weigh as much as a short answer. Here whatever is written within one turn of the loop leaves as one.
Nor does uvicorn, or asyncio when it closes, ever give up on a client that asks and never reads: here it is hung up on.
"""

from __future__ import annotations

import asyncio
from typing import Any, final


@final
class OneWrite:
    """An asyncio transport in all but its writes.

    Where bytes wait and none of them leaves for `patience_s` (none: for ever), the connection is aborted.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, *, patience_s: float | None = None
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._patience_s = patience_s
        self._held = list[bytes]()
        self._written = 0
        self._watching = False

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
            self._written += len(data)
            if not self._watching:
                self._watch()

    def _watch(self, gone_before: int = -1) -> None:
        """Look again and again while bytes wait, whether some of them have left since."""
        waiting = 0 if self._patience_s is None else self._transport.get_write_buffer_size()
        gone = self._written - waiting
        self._watching = waiting > 0 and gone != gone_before
        if self._watching and self._patience_s is not None:
            self._loop.call_later(self._patience_s, self._watch, gone)
        elif waiting:
            self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
