"""Beside stage 5 of 7: messages as frames of 51 to 222 bytes (radios), of 1,200 (UDP).   after: wire/exchange.py

The format alone, no state and no clock; `docs/fragment-format.md` is normative. Three kinds of frame: a fragment of a
message, a report of the fragments that have come, and the word that a message has come whole. Every frame ends in a
CRC-16, every message in a CRC-32 that also says which request an answer belongs to.
"""

from __future__ import annotations

import binascii
import enum
import zlib
from dataclasses import dataclass
from typing import final

from splitcodec.errors import FrameError, SettingsError

VERSION = 1
MAX_FRAGMENTS = 256
SMALLEST_FRAME = 11  # LoRaWAN's smallest payload
DATAGRAM = 1200  # of UDP: fits through any link of the Internet in one piece (RFC 9000, section 14)
OVERHEAD = 7  # header and CRC-16 of a fragment
TRAILER = 4  # CRC-32 of a message

_FRAGMENT, _REPORT, _COMPLETE = range(3)
_WANTED = 0b10


class Channel(enum.IntEnum):
    """What a message is: a packet on its way up, or one of the two things that come back for it."""

    REQUEST = 0
    ANSWER = 1
    REFUSAL = 2


@final
@dataclass(frozen=True, slots=True)
class Fragment:
    """Piece `index` of the pieces 0 to `last` of a message; `report` asks the receiver what it has."""

    channel: Channel
    ident: int
    index: int
    last: int
    data: bytes
    report: bool = False


@final
@dataclass(frozen=True, slots=True)
class Report:
    """Which of the fragments 0 to `last` have come, at least one missing; sent against the message's direction."""

    channel: Channel
    ident: int
    last: int
    came: frozenset[int]


@final
@dataclass(frozen=True, slots=True)
class Complete:
    """The message has come whole; `crc` is its trailer, so that a message of the same number is not mistaken for it."""

    channel: Channel
    ident: int
    crc: int


Frame = Fragment | Report | Complete


def dump_frame(frame: Frame) -> bytes:
    """Return a frame's bytes."""
    match frame:
        case Fragment():
            kind, flag = _FRAGMENT, _WANTED if frame.report else 0
            body = bytes((frame.index, frame.last)) + frame.data
        case Report():
            kind, flag = _REPORT, 0
            bits = sum(1 << index for index in frame.came)
            body = bytes((frame.last,)) + bits.to_bytes(frame.last // 8 + 1, "little")
        case Complete():
            kind, flag = _COMPLETE, 0
            body = frame.crc.to_bytes(4, "little")
    head = VERSION << 6 | frame.channel << 4 | kind << 2 | flag
    checked = bytes((head,)) + frame.ident.to_bytes(2, "little") + body
    return checked + _crc16(checked)


def parse_frame(data: bytes) -> Frame:
    """Return the frame in `data`. Raises FrameError for anything that `dump_frame` does not write."""
    if len(data) < 7:
        raise FrameError(f"a frame of {len(data)} bytes; expected at least 7")
    checked, crc = data[:-2], data[-2:]
    if _crc16(checked) != crc:
        raise FrameError(f"CRC-16 {crc.hex()}, expected {_crc16(checked).hex()}: damaged on the way")
    head, ident, body = checked[0], int.from_bytes(checked[1:3], "little"), checked[3:]
    version, channel, kind, flags = head >> 6, head >> 4 & 3, head >> 2 & 3, head & 3
    if version != VERSION:
        raise FrameError(f"frame version {version}; expected {VERSION}")
    if channel == 3 or kind == 3 or flags not in ((0, _WANTED) if kind == _FRAGMENT else (0,)):
        raise FrameError(f"first byte {head:#04x}; its reserved bits must be 0")
    if kind == _FRAGMENT:
        return _fragment(body, channel=Channel(channel), ident=ident, report=flags == _WANTED)
    if kind == _REPORT:
        return _report(body, channel=Channel(channel), ident=ident)
    if len(body) != 4:
        raise FrameError(f"a complete of {len(data)} bytes; expected 9")
    return Complete(Channel(channel), ident, int.from_bytes(body, "little"))


def split(message: bytes, *, frame: int, request_crc: int | None = None) -> list[bytes]:
    """Return the pieces of a message and its trailer, such that no fragment exceeds `frame` bytes.

    `request_crc` is the trailer of the request that is answered (none: this is a request).
    Raises SettingsError for a frame under 11 bytes or a message that needs more pieces than there are.
    """
    if frame < SMALLEST_FRAME:
        raise SettingsError(f"frames of {frame} bytes; expected at least {SMALLEST_FRAME}")
    room = frame - OVERHEAD
    most = min(MAX_FRAGMENTS, 8 * (frame - 6))  # a report must fit into one frame
    if len(message) + TRAILER > most * room:
        raise SettingsError(
            f"a message of {len(message)} bytes; frames of {frame} bytes carry at most {most * room - TRAILER}, "
            "choose a lower level or larger frames"
        )
    whole = message + message_crc(message, request_crc=request_crc).to_bytes(TRAILER, "little")
    return [whole[start : start + room] for start in range(0, len(whole), room)]


def message_crc(message: bytes, *, request_crc: int | None = None) -> int:
    """Return a message's trailer: CRC-32 (zlib's) of the message, behind its request's trailer if it answers one."""
    start = 0 if request_crc is None else zlib.crc32(request_crc.to_bytes(4, "little"))
    return zlib.crc32(message, start)


def _fragment(body: bytes, *, channel: Channel, ident: int, report: bool) -> Fragment:
    index, last, data = body[0], body[1], body[2:]
    if index > last or not data:
        raise FrameError(f"fragment {index} of 0 to {last} with {len(data)} bytes; expected one of them, not empty")
    return Fragment(channel, ident, index, last, data, report)


def _report(body: bytes, *, channel: Channel, ident: int) -> Report:
    last, bits = body[0], int.from_bytes(body[1:], "little")
    everything = (1 << last + 1) - 1
    if len(body) - 1 != last // 8 + 1 or bits >= everything:
        raise FrameError(f"a report of {len(body) - 1} bytes on fragments 0 to {last}; expected some of them missing")
    return Report(channel, ident, last, frozenset(i for i in range(last + 1) if bits >> i & 1))


def _crc16(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0xFFFF).to_bytes(2, "little")
