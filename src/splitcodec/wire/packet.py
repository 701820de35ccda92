"""Stage 4 of 7: payload bytes -> packet, and back.   before: coder.py   after: device/link.py

Eight bytes of header, the payload, a CRC-32. The entropy coder decodes garbage without a murmur, so the checksum tells
damage from data, and everything the header says is held against the bundle before the coder allocates anything.
docs/wire-format.md is the norm.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import final

from splitcodec.errors import (
    PacketBundle,
    PacketChecksum,
    PacketCoding,
    PacketError,
    PacketGrid,
    PacketLevel,
    PacketPayload,
    PacketTableSet,
    PacketTooShort,
    PacketVersion,
)

VERSION = 1
HEADER = 8
OVERHEAD = 12  # header and checksum
SMALLEST = 13  # with the shortest payload, one byte
LONGEST_SIDE = 255  # of the latent grid: one byte each


@final
@dataclass(frozen=True, slots=True)
class Packet:
    """The fields of one packet. `rows`, `cols` are the latent grid's, `fingerprint` is the bundle's first 4 bytes."""

    level: int
    coding: int
    table_set: int
    fingerprint: bytes
    rows: int
    cols: int
    payload: bytes

    def symbols(self, channels: int) -> int:
        """Return the number of symbols that the payload announces for that many channels."""
        return channels * self.rows * self.cols


def pack(packet: Packet) -> bytes:
    """Return the packet's bytes: 12 more than its payload.

    Raises PacketLevel, PacketCoding, PacketTableSet, PacketBundle, PacketGrid or PacketPayload for a field that does
    not fit its place in the format.
    """
    if not 0 <= packet.level <= 15:
        raise PacketLevel(f"level {packet.level}: a packet has room for 0 to 15")
    if not 0 <= packet.coding <= 15:
        raise PacketCoding(f"coding id {packet.coding}: a packet has room for 0 to 15")
    if not 0 <= packet.table_set <= 15:
        raise PacketTableSet(f"table set {packet.table_set}: a packet has room for 0 to 15")
    if len(packet.fingerprint) != 4:
        raise PacketBundle(f"fingerprint of {len(packet.fingerprint)} bytes, expected the first 4")
    if not (1 <= packet.rows <= LONGEST_SIDE and 1 <= packet.cols <= LONGEST_SIDE):
        raise PacketGrid(
            f"latent grid of {packet.rows} x {packet.cols}: a packet has room for 1 to {LONGEST_SIDE} each"
        )
    if not packet.payload:
        raise PacketPayload("the payload is empty, expected at least one byte; an empty stream is the byte 0")
    head = bytes((VERSION << 4 | packet.level, packet.coding << 4 | packet.table_set))
    body = head + packet.fingerprint + bytes((packet.rows, packet.cols)) + packet.payload
    return body + zlib.crc32(body).to_bytes(4, "little")


def unpack(data: bytes | bytearray | memoryview) -> Packet:
    """Return the fields of a packet, not yet held against any bundle: see `admit`.

    `data` may be a bytearray or a memoryview, too. Raises PacketTooShort, PacketChecksum, PacketVersion, in that
    order, and PacketError for what is no bytes.
    """
    if not isinstance(data, bytes):
        data = _as_bytes(data)
    if len(data) < SMALLEST:
        raise PacketTooShort(f"{len(data)} bytes, a packet has at least {SMALLEST}; was it cut on the way?")
    body, came = data[:-4], int.from_bytes(data[-4:], "little")
    crc = zlib.crc32(body)
    if crc != came:
        raise PacketChecksum(f"checksum {came:08x}, expected {crc:08x}: damaged on the way, or no packet; send again")
    version = data[0] >> 4
    if version != VERSION:
        raise PacketVersion(f"packet version {version}, expected {VERSION}; one of the two shores needs an update")
    return Packet(
        level=data[0] & 15,
        coding=data[1] >> 4,
        table_set=data[1] & 15,
        fingerprint=bytes(data[2:6]),
        rows=data[6],
        cols=data[7],
        payload=bytes(body[HEADER:]),
    )


def _as_bytes(data: object) -> bytes:
    if not isinstance(data, bytearray | memoryview):
        raise PacketError(f"a {type(data).__name__} is no packet; pass the bytes that `encode` gave or wrote to a file")
    return bytes(data)


def admit(
    packet: Packet,
    *,
    fingerprint: bytes,
    levels: int,
    codings: Collection[int],
    table_sets: int,
    channels: int,
    max_symbols: int,
    max_grid: int = LONGEST_SIDE,
) -> None:
    """Refuse a packet that this bundle cannot decode.

    `fingerprint` is the bundle's (its first 4 bytes count), `levels` and `table_sets` are numbers of, `max_symbols` is
    the smaller of the bundle's limit and the edge's, `max_grid` the bundle's on rows and on columns
    (`Manifest.max_grid`). Raises PacketBundle, PacketLevel, PacketCoding, PacketTableSet, PacketGrid, in that order.
    """
    if packet.fingerprint != fingerprint[:4]:
        raise PacketBundle(
            f"made with a bundle of fingerprint {packet.fingerprint.hex()}, loaded here is {fingerprint[:4].hex()}; "
            "give both shores the same bundle"
        )
    if not 0 <= packet.level < levels:
        raise PacketLevel(f"level {packet.level}, the bundle has 0 to {levels - 1}")
    if packet.coding not in codings:
        known = ", ".join(str(coding) for coding in sorted(codings))
        raise PacketCoding(f"coding id {packet.coding}, the bundle has {known}")
    if not 0 <= packet.table_set < table_sets:
        raise PacketTableSet(f"table set {packet.table_set}, the bundle has 0 to {table_sets - 1}")
    if packet.rows < 1 or packet.cols < 1:
        raise PacketGrid(f"latent grid of {packet.rows} x {packet.cols}, expected at least 1 x 1")
    symbols = packet.symbols(channels)
    if symbols > max_symbols:
        raise PacketGrid(
            f"latent grid of {packet.rows} x {packet.cols} x {channels} channels is {symbols} symbols, at most "
            f"{max_symbols} are allowed; send a smaller picture"
        )
    if max(packet.rows, packet.cols) > max_grid:
        raise PacketGrid(
            f"latent grid of {packet.rows} x {packet.cols}, at most {max_grid} rows and as many columns are allowed; "
            "send a picture of shorter sides"
        )
