"""The packet: its bytes, its size, and one test per refusal in their order."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from splitcodec.wire.packet import OVERHEAD, SMALLEST, Packet, admit, pack, unpack

ONE = Packet(level=3, coding=0, table_set=0, fingerprint=b"\xaa\xbb\xcc\xdd", rows=4, cols=5, payload=b"\1\2\3")
BUNDLE: dict[str, Any] = {
    "fingerprint": ONE.fingerprint + bytes(28),
    "levels": 4,
    "codings": (0,),
    "table_sets": 1,
    "channels": 2,
    "max_symbols": 40,
}
nibble, side = st.integers(0, 15), st.integers(0, 255)
fields = st.builds(
    Packet,
    level=nibble,
    coding=nibble,
    table_set=nibble,
    fingerprint=st.binary(min_size=4, max_size=4),
    rows=st.integers(1, 255),
    cols=st.integers(1, 255),
    payload=st.binary(min_size=1, max_size=50),
)


def signed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


def test_the_bytes_of_a_packet() -> None:
    data = pack(ONE)
    assert data[:-4].hex() == "1300aabbccdd0405010203"
    assert data == signed(data[:-4])


@given(fields)
def test_round_trip_and_overhead(packet: Packet) -> None:
    data = pack(packet)
    assert len(data) == OVERHEAD + len(packet.payload)
    assert unpack(data) == packet


@given(st.binary(max_size=64))
def test_any_bytes_are_refused_by_name_or_are_a_packet(data: bytes) -> None:
    for candidate in (data, signed(data)):
        try:
            packet = unpack(candidate)
            packed = pack(packet)
        except PacketError:
            continue
        assert packed == candidate


@given(fields, st.data())
def test_a_changed_byte_is_noticed(packet: Packet, data: st.DataObject) -> None:
    damaged = bytearray(pack(packet))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PacketChecksum):
        unpack(bytes(damaged))


@given(fields, st.integers(1, 12))
def test_a_cut_packet_is_noticed(packet: Packet, cut: int) -> None:
    with pytest.raises((PacketChecksum, PacketTooShort)):
        unpack(pack(packet)[:-cut])


@pytest.mark.parametrize("size", [0, 1, SMALLEST - 1])
def test_too_short_comes_first(size: int) -> None:
    with pytest.raises(PacketTooShort, match=f"{size} bytes, a packet has at least 13"):
        unpack(bytes(size))


def test_checksum_comes_before_version() -> None:
    with pytest.raises(PacketChecksum, match="checksum 00000000, expected"):
        unpack(b"\xf0" + bytes(20))


@pytest.mark.parametrize("version", [0, 2, 15])
def test_unknown_version(version: int) -> None:
    with pytest.raises(PacketVersion, match=f"packet version {version}, expected 1"):
        unpack(signed(bytes((version << 4,)) + bytes(10)))


def test_bytes_like_input_is_a_packet_too() -> None:
    assert unpack(bytearray(pack(ONE))) == ONE


def test_a_packet_that_fits_is_admitted() -> None:
    admit(ONE, **BUNDLE)
    assert ONE.symbols(2) == 40
    admit(ONE, **BUNDLE, max_grid=5)


@pytest.mark.parametrize("grid", [(1, 6), (6, 1)])
def test_one_long_side_is_refused_however_few_its_symbols(grid: tuple[int, int]) -> None:
    with pytest.raises(PacketGrid, match="at most 5 rows and as many columns"):
        admit(replace(ONE, rows=grid[0], cols=grid[1]), **BUNDLE, max_grid=5)


@pytest.mark.parametrize(
    ("changed", "refusal", "message"),
    [
        ({"fingerprint": b"\xaa\xbb\xcc\xde"}, PacketBundle, "fingerprint aabbccde, loaded here is aabbccdd"),
        ({"level": 4}, PacketLevel, "level 4, the bundle has 0 to 3"),
        ({"coding": 1}, PacketCoding, "coding id 1, the bundle has 0"),
        ({"table_set": 1}, PacketTableSet, "table set 1, the bundle has 0 to 0"),
        ({"rows": 0}, PacketGrid, "latent grid of 0 x 5"),
        ({"cols": 0}, PacketGrid, "latent grid of 4 x 0"),
        ({"cols": 6}, PacketGrid, "48 symbols, at most 40"),
    ],
)
def test_what_the_bundle_cannot_decode(changed: dict[str, Any], refusal: type[PacketError], message: str) -> None:
    with pytest.raises(refusal, match=message):
        admit(replace(ONE, **changed), **BUNDLE)


def test_refusals_come_in_their_order() -> None:
    wrong: dict[str, Any] = {"fingerprint": b"none", "level": 9, "coding": 9, "table_set": 9, "rows": 255}
    refusals = [PacketBundle, PacketLevel, PacketCoding, PacketTableSet, PacketGrid]
    for refusal, (name, _) in zip(refusals, list(wrong.items()), strict=True):
        with pytest.raises(refusal):
            admit(replace(ONE, **wrong), **BUNDLE)
        del wrong[name]
    admit(ONE, **BUNDLE)


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"level": 16}, PacketLevel),
        ({"level": -1}, PacketLevel),
        ({"coding": 16}, PacketCoding),
        ({"table_set": 16}, PacketTableSet),
        ({"fingerprint": bytes(32)}, PacketBundle),
        ({"rows": 0}, PacketGrid),
        ({"rows": 256}, PacketGrid),
        ({"cols": 0}, PacketGrid),
        ({"cols": 256}, PacketGrid),
        ({"payload": b""}, PacketPayload),
    ],
)
def test_fields_that_do_not_fit_are_not_packed(changed: dict[str, Any], refusal: type[PacketError]) -> None:
    with pytest.raises(refusal):
        pack(replace(ONE, **changed))
