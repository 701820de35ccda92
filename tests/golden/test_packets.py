"""Pinned literals: the same tables and symbols give the same words and bytes, or it is a new packet version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitcodec.wire.coder import BY_CHANNEL, Coder
from splitcodec.wire.packet import Packet, pack, unpack
from splitcodec.wire.tables import Tables

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "packets.json").read_text(encoding="utf-8"))


def tables_of(plain: dict[str, Any]) -> Tables:
    """Return Tables from lists; gains of 1 where there are none."""
    freq = plain["freq"]
    freq_ks = np.zeros((len(freq), max(map(len, freq))), np.uint32)
    for k, row in enumerate(freq):
        freq_ks[k, : len(row)] = row
    table_of = np.array(plain["table_of_lxc"], np.int32)
    return Tables(
        freq_ks=freq_ks,
        size_k=np.array([len(row) for row in freq], np.int32),
        offset_k=np.array(plain["offset"], np.int32),
        table_of_lxc=table_of,
        gain_lc=np.array(plain.get("gain_lc", np.ones((table_of.shape[0], table_of.shape[2]))), np.float32),
    )


@pytest.mark.parametrize("plain", [True, None], ids=["plain", "chosen"])
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=["level 0", "level 1"])
def test_pinned_words_and_bytes(case: dict[str, Any], plain: bool | None) -> None:
    symbols = np.array(case["symbols_chw"], np.int32)
    coder = Coder(tables_of(GOLDEN["tables"]), plain=plain)
    payload = coder.encode(symbols, case["level"])
    padded = payload + bytes(-len(payload) % 4)
    assert np.frombuffer(padded, "<u4").tolist() == case["words"]
    channels, rows, cols = symbols.shape
    fingerprint = bytes.fromhex(GOLDEN["fingerprint"])
    packet = Packet(case["level"], BY_CHANNEL, 0, fingerprint, rows=rows, cols=cols, payload=payload)
    assert pack(packet).hex() == case["packet"]
    got = unpack(bytes.fromhex(case["packet"]))
    decoded = coder.decode(got.payload, (channels, got.rows, got.cols), level=got.level)
    assert np.array_equal(decoded, symbols)
