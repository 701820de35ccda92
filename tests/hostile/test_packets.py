"""The table of hostile packets: each is refused by its name, by both coders, before anything large is allocated."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitcodec import errors
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.coder import BY_CHANNEL, Coder
from splitcodec.wire.packet import Packet, admit, pack, unpack

TABLE: list[dict[str, str]] = json.loads((Path(__file__).parent / "packets.json").read_text(encoding="utf-8"))[
    "packets"
]


def bytes_of(case: dict[str, str], *, fingerprint: bytes) -> bytes:
    body = bytes.fromhex(case["bytes"].replace("tiny", fingerprint[:4].hex()))
    if case["checksum"] == "right":
        return body + zlib.crc32(body).to_bytes(4, "little")
    return body + bytes.fromhex(case["checksum"])


def receive(data: bytes, bundle: Bundle, *, plain: bool | None) -> np.ndarray[Any, np.dtype[np.int32]]:
    """What an edge does with a packet before its network runs."""
    manifest, packet = bundle.manifest, unpack(data)
    admit(
        packet,
        fingerprint=bundle.fingerprint,
        levels=manifest.levels,
        codings=manifest.codings,
        table_sets=len(bundle.tables),
        channels=manifest.channels,
        max_symbols=manifest.max_symbols,
    )
    coder = Coder(bundle.tables[packet.table_set], plain=plain)
    return coder.decode(packet.payload, (manifest.channels, packet.rows, packet.cols), level=packet.level)


@pytest.mark.parametrize("plain", [True, None], ids=["plain", "chosen"])
@pytest.mark.parametrize("case", TABLE, ids=[case["name"] for case in TABLE])
def test_refused_by_name(case: dict[str, str], plain: bool | None, tiny: Bundle) -> None:
    data = bytes_of(case, fingerprint=tiny.fingerprint)
    refusal = getattr(errors, case["refusal"])
    tracemalloc.start()
    try:
        with pytest.raises(refusal) as refused:
            receive(data, tiny, plain=plain)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(refused.value) is refusal
    assert case["says"] in str(refused.value)
    assert "\n" not in str(refused.value)
    assert peak < 1_000_000


def test_half_of_the_table_reaches_what_lies_behind_the_checksum() -> None:
    right = [case for case in TABLE if case["checksum"] == "right"]
    assert len(right) * 2 >= len(TABLE)


def test_every_refusal_of_a_packet_is_in_the_table() -> None:
    names = {one.__name__ for one in errors.PacketError.__subclasses__()}
    assert {case["refusal"] for case in TABLE} == names


def test_a_good_packet_passes(tiny: Bundle) -> None:
    symbols = np.zeros((4, 4, 4), np.int32)
    payload = Coder(tiny.tables[0]).encode(symbols, 1)
    one = Packet(1, BY_CHANNEL, 0, tiny.fingerprint[:4], rows=4, cols=4, payload=payload)
    assert np.array_equal(receive(pack(one), tiny, plain=None), symbols)
