from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitcodec.edge.decoder import Decoder
from splitcodec.errors import BundlePart, PacketGrid, PacketPayload, SplitcodecError
from splitcodec.wire.bundle import Bundle, split_device
from splitcodec.wire.coder import Coder
from splitcodec.wire.packet import Packet


def packet_of(tiny: Bundle, rows: int = 4, cols: int = 4) -> Packet:
    payload = Coder(tiny.tables[0]).encode(np.zeros((4, rows, cols), np.int32), 1)
    return Packet(
        level=1, coding=0, table_set=0, fingerprint=tiny.fingerprint[:4], rows=rows, cols=cols, payload=payload
    )


def test_symbols_come_back_and_become_features(tiny: Bundle) -> None:
    decoder = Decoder(tiny, threads=1)
    symbols = decoder.symbols(packet_of(tiny))
    assert np.array_equal(symbols, np.zeros((4, 4, 4)))
    assert symbols.dtype == np.int32
    feature = decoder.feature_bchw(symbols, 1)
    assert feature.shape == (1, 8, 8, 8)
    assert feature.dtype == np.float32


def test_the_smaller_limit_on_symbols_counts(tiny: Bundle) -> None:
    with pytest.raises(PacketGrid, match="at most 63"):
        Decoder(tiny, threads=1, max_symbols=63).symbols(packet_of(tiny))
    assert Decoder(tiny, threads=1, max_symbols=64).symbols(packet_of(tiny)).size == 64
    with pytest.raises(PacketGrid, match="at most 16384"):
        Decoder(tiny, threads=1, max_symbols=10**9).symbols(replace(packet_of(tiny), rows=255, cols=255))


@pytest.mark.parametrize(("rows", "cols"), [(255, 16), (16, 255), (65, 1), (1, 65)])
def test_no_side_may_be_longer_than_the_largest_pictures(tiny: Bundle, rows: int, cols: int) -> None:
    assert rows * cols * 4 <= tiny.manifest.max_symbols  # symbols alone would let it in
    strip = replace(packet_of(tiny), rows=rows, cols=cols, payload=b"\x01")
    with pytest.raises(PacketGrid, match=f"{rows} x {cols}, at most 64 rows"):
        Decoder(tiny, threads=1).check(strip)
    assert Decoder(tiny, threads=1).symbols(packet_of(tiny, 64, 64)).shape == (4, 64, 64)


def test_an_encoder_that_gains_a_row_and_a_column_may(tiny: Bundle) -> None:
    gaining = replace(tiny, manifest=replace(tiny.manifest, max_symbols=4 * 65 * 65))
    assert Decoder(gaining, threads=1).check(packet_of(tiny, 65, 65)) == 4 * 65 * 65
    with pytest.raises(PacketGrid, match="at most 65 rows"):
        Decoder(gaining, threads=1).check(packet_of(tiny, 66, 1))


@pytest.mark.parametrize("field", ["level", "coding", "table_set", "rows", "fingerprint"])
def test_fields_beyond_the_bundle_are_refused(tiny: Bundle, field: str) -> None:
    packet = packet_of(tiny)
    wrong = {"fingerprint": b"none", "rows": 0}.get(field, 9)
    with pytest.raises(SplitcodecError, match=r"bundle|grid"):
        Decoder(tiny, threads=1).symbols(replace(packet, **{field: wrong}))  # type: ignore[arg-type]


def test_a_payload_that_does_not_end_is_refused(tiny: Bundle) -> None:
    with pytest.raises(PacketPayload):
        Decoder(tiny, threads=1).symbols(replace(packet_of(tiny), payload=b"\x01" * 64))


def test_a_devices_half_has_no_decoder(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundlePart, match="decoder"):
        Decoder(split_device(tiny, tmp_path / "half"))
