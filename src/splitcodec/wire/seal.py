"""Frames that only who knows a key can write: a tag behind each.   used by: udp.py on both shores

HMAC-SHA256 (RFC 2104) under the key, of the direction's word and the frame, cut to its first 8 bytes
(`docs/fragment-format.md`, section 8). It proves who wrote a frame; it hides nothing and does not tell a frame from its
repetition, which the exchange does.
"""

from __future__ import annotations

import hmac
from typing import Final, final

from splitcodec.errors import SettingsError

TAG_BYTES: Final = 8
UP, DOWN = b"splitcodec up", b"splitcodec down"
SHORTEST_KEY: Final = 16


@final
class Seal:
    """Closes what goes one way and opens what comes the other; without a key both change nothing.

    `writes` and `reads` are UP or DOWN. Raises SettingsError for a key under 16 bytes.
    """

    def __init__(self, key: str | None, *, writes: bytes, reads: bytes) -> None:
        if key is not None and len(key.encode()) < SHORTEST_KEY:
            raise SettingsError(
                f"a token of {len(key.encode())} bytes; over UDP it is a key, give at least {SHORTEST_KEY} random ones"
            )
        self._key = None if key is None else key.encode()
        self._writes, self._reads = writes, reads

    @property
    def closed(self) -> bool:
        """Say whether there is a key."""
        return self._key is not None

    @property
    def overhead(self) -> int:
        """Return the bytes that are added to a frame."""
        return 0 if self._key is None else TAG_BYTES

    def close(self, frame: bytes) -> bytes:
        """Return the datagram of a frame."""
        return frame if self._key is None else frame + self._tag(self._key, self._writes, frame)

    def open(self, datagram: bytes) -> bytes | None:
        """Return the frame in a datagram; None for one that somebody else wrote."""
        if self._key is None:
            return datagram
        frame, tag = datagram[:-TAG_BYTES], datagram[-TAG_BYTES:]
        return frame if hmac.compare_digest(tag, self._tag(self._key, self._reads, frame)) else None

    @staticmethod
    def _tag(key: bytes, direction: bytes, frame: bytes) -> bytes:
        return hmac.digest(key, direction + frame, "sha256")[:TAG_BYTES]
