"""The coder: round trips, the two implementations bit for bit, and every payload accounted for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitcodec.errors import MissingExtra, PacketPayload, TablesError
from splitcodec.wire import coder as module
from splitcodec.wire.coder import Coder
from splitcodec.wire.tables import TOTAL, Tables
from tests.wire.strategies import coded

HAS_FAST = not Coder(
    Tables(
        freq_ks=np.array([[TOTAL // 2] * 2], np.uint32),
        size_k=np.array([2], np.int32),
        offset_k=np.zeros(1, np.int32),
        table_of_lxc=np.zeros((1, 1, 1), np.int32),
        gain_lc=np.ones((1, 1), np.float32),
    )
).plain
needs_fast = pytest.mark.skipif(not HAS_FAST, reason="constriction has no wheel for this platform")
KINDS = [pytest.param(True, id="plain"), pytest.param(False, id="constriction", marks=needs_fast)]


@pytest.fixture
def dice() -> Tables:
    """Two channels: a fair coin with symbols 0, 1, and a rare pair around 0."""
    return Tables(
        freq_ks=np.array([[TOTAL // 2, TOTAL // 2, 0], [1, TOTAL - 2, 1]], np.uint32),
        size_k=np.array([2, 3], np.int32),
        offset_k=np.array([0, -1], np.int32),
        table_of_lxc=np.array([[[0, 1]]], np.int32),
        gain_lc=np.ones((1, 2), np.float32),
    )


@given(coded())
def test_plain_round_trip(case: tuple[Tables, int, NDArray[np.int32]]) -> None:
    tables, level, symbols = case
    coder = Coder(tables, plain=True)
    payload = coder.encode(symbols, level)
    again = coder.decode(payload, symbols.shape, level=level)
    assert again.dtype == np.int32
    assert np.array_equal(again, symbols)
    assert len(payload) <= tables.bits(symbols, level) / 8 + 5


@needs_fast
@given(coded())
def test_the_two_coders_agree_bit_for_bit(case: tuple[Tables, int, NDArray[np.int32]]) -> None:
    tables, level, symbols = case
    plain, fast = Coder(tables, plain=True), Coder(tables, plain=False)
    payload = plain.encode(symbols, level)
    assert fast.encode(symbols, level) == payload
    assert np.array_equal(fast.decode(payload, symbols.shape, level=level), symbols)


@given(coded(), st.binary(min_size=1, max_size=40))
def test_any_payload_is_refused_or_the_only_one_of_its_symbols(case: Any, payload: bytes) -> None:
    tables, level, symbols = case
    outcomes: list[bytes | None] = []
    for plain in (True, False) if HAS_FAST else (True,):
        coder = Coder(tables, plain=plain)
        try:
            decoded = coder.decode(payload, symbols.shape, level=level)
        except PacketPayload:
            outcomes.append(None)
            continue
        assert coder.encode(decoded, level) == payload
        outcomes.append(decoded.tobytes())
    assert len(set(outcomes)) == 1


@given(coded(), st.data())
def test_a_changed_payload_never_decodes_to_the_same_symbols(case: Any, data: st.DataObject) -> None:
    tables, level, symbols = case
    coder = Coder(tables, plain=True)
    payload = bytearray(coder.encode(symbols, level))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = coder.decode(bytes(payload), symbols.shape, level=level)
    except PacketPayload:
        return
    assert not np.array_equal(decoded, symbols)


@pytest.mark.parametrize("plain", KINDS)
def test_an_empty_stream_is_one_zero_byte(dice: Tables, plain: bool) -> None:
    only_first = Tables(
        freq_ks=np.array([[TOTAL - 1, 1]], np.uint32),
        size_k=np.array([2], np.int32),
        offset_k=np.array([5], np.int32),
        table_of_lxc=np.zeros((1, 1, 3), np.int32),
        gain_lc=np.ones((1, 3), np.float32),
    )
    coder = Coder(only_first, plain=plain)
    assert coder.encode(np.full((3, 2, 2), 5), 0) == b"\0"
    assert coder.decode(b"\0", (3, 2, 2), level=0).tolist() == np.full((3, 2, 2), 5).tolist()
    assert Coder(dice, plain=plain).decode(b"\1", (2, 1, 1), level=0).tolist() == [[[0]], [[0]]]


@pytest.mark.parametrize("plain", KINDS)
@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "0 bytes for 2 symbols"),
        (b"\1\2\3\4\5\6\7", "7 bytes for 2 symbols, expected 1 to 6"),
        (b"\1\0", "trailing zero"),
        (b"\0\0", "trailing zero"),
        (b"\1\2\3\4\5\6", "the coder is not empty after 2 symbols"),
    ],
)
def test_payloads_that_no_encoder_writes_are_refused(dice: Tables, plain: bool, payload: bytes, message: str) -> None:
    with pytest.raises(PacketPayload, match=message):
        Coder(dice, plain=plain).decode(payload, (2, 1, 1), level=0)


@pytest.mark.parametrize("plain", KINDS)
def test_the_longest_payload_is_admitted(dice: Tables, plain: bool) -> None:
    symbols = np.stack([np.ones((5, 5)), np.ones((5, 5))]).astype(np.int32)
    coder = Coder(dice, plain=plain)
    assert np.array_equal(coder.decode(coder.encode(symbols, 0), symbols.shape, level=0), symbols)


@pytest.mark.parametrize("plain", KINDS)
def test_what_the_tables_do_not_hold_is_refused(dice: Tables, plain: bool) -> None:
    coder = Coder(dice, plain=plain)
    with pytest.raises(TablesError, match="clip first"):
        coder.encode(np.array([[[2]], [[0]]]), 0)
    with pytest.raises(TablesError, match="level 1"):
        coder.encode(np.zeros((2, 1, 1), int), 1)
    with pytest.raises(TablesError, match="level 1"):
        coder.decode(b"\1", (2, 1, 1), level=1)
    with pytest.raises(TablesError, match="expected \\(2"):
        coder.decode(b"\1", (3, 1, 1), level=0)


@pytest.mark.parametrize("plain", KINDS)
def test_other_integer_types_and_memory_orders_give_the_same_bytes(dice: Tables, plain: bool) -> None:
    symbols = np.random.default_rng(3).integers(0, 2, (2, 6, 4)).astype(np.int32)
    coder = Coder(dice, plain=plain)
    payload = coder.encode(symbols, 0)
    for other in (
        symbols.astype(np.int64),
        symbols.astype(np.uint8),
        np.asfortranarray(symbols),
        symbols[:, ::-1][:, ::-1],
    ):
        assert coder.encode(other, 0) == payload


def test_without_constriction_the_plain_coder_takes_over(dice: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(module, "import_module", missing)
    assert Coder(dice).plain
    with pytest.raises(MissingExtra, match="constriction"):
        Coder(dice, plain=False)


def test_insisting_on_the_plain_coder(dice: Tables) -> None:
    assert Coder(dice, plain=True).plain


@needs_fast
def test_a_state_of_exactly_32_bits_takes_no_word(dice: Tables) -> None:
    """By chance once in billions of symbols; here the coin's first one takes the state from 2^33 to 2^32."""
    payload = np.array([0x9E3779B9, 0x7F4A7C15, 0, 2], "<u4").tobytes().rstrip(b"\0")
    plain, fast = (
        Coder(dice, plain=kind).reader(payload, 0, symbols=99).take(0, 99).tolist() for kind in (True, False)
    )
    assert plain == fast
    assert set(plain) == {0, 1}
