"""Coding id 1: whole numbers in floats, rows chosen by what came before, packets both ways by both coders."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitcodec.errors import BundleFormat, PacketPayload, TablesError
from splitcodec.wire.context_coder import ContextCoder
from splitcodec.wire.contexts import Contexts, Reading
from splitcodec.wire.tables import TOTAL, quantise_mass

REACH = 80


def contexts(seed: int = 1, *, groups: tuple[int, ...] = (2, 1, 3), levels: int = 2, hidden: int = 5) -> Contexts:
    """Return contexts of small networks with weights of any sign, and rows of two widths."""
    random = np.random.default_rng(seed)
    channels, starts = sum(groups), np.cumsum([0, *groups])
    columns = np.arange(-REACH, REACH + 1)
    rows = [
        quantise_mass(np.exp(-np.abs(columns - (fraction - 4) / 8) / width) + 1e-6)
        for width in (0.3, 1.5)
        for fraction in range(8)
    ]
    later = channels - groups[0]

    def ints(low: int, high: int, *shape: int, dtype: Any = np.int32) -> Any:
        return random.integers(low, high, shape).astype(dtype)

    return Contexts(
        order_c=random.permutation(channels).astype(np.int32),
        group_g=np.array(groups, np.int32),
        base_lkc=np.stack([ints(-20, 20, levels, channels), ints(0, 2, levels, channels)], axis=1),
        into_lha=ints(-127, 128, levels, hidden, 2 * int(sum(starts[1:-1])), dtype=np.int8),
        into_bias_lgh=ints(-200, 200, levels, len(groups) - 1, hidden),
        taps_lght=ints(-127, 128, levels, len(groups) - 1, hidden, 9, dtype=np.int8),
        taps_bias_lgh=ints(-2000, 2000, levels, len(groups) - 1, hidden),
        out_lkch=ints(-127, 128, levels, 2, later, hidden, dtype=np.int8),
        out_bias_lkc=ints(-2000, 2000, levels, 2, later),
        freq_ks=np.stack(rows),
        size_k=np.full(len(rows), len(columns), np.int32),
        offset_k=np.full(len(rows), -REACH, np.int32),
    )


def in_whole_numbers(one: Contexts, level: int, symbols_chw: NDArray[np.int32]) -> list[tuple[Any, Any]]:
    """Return rows and what is taken off, group by group, as docs/wire-format.md says it, with Python's integers."""
    _, rows, cols = symbols_chw.shape
    ordered = symbols_chw[one.order_c].astype(object)
    starts = [0, *np.cumsum(one.group_g).tolist()]
    found, begin = [], 0
    for group, (first, last) in enumerate(pairwise(starts)):
        mean = np.full((last - first, rows, cols), 0, object)
        width = mean.copy()
        if group:
            seen = np.clip(ordered[:first], -7, 7)
            both = np.concatenate([seen, np.abs(seen)])
            weights = one.into_lha[level, :, begin : begin + 2 * first].astype(object)
            begin += 2 * first
            hidden = []
            for h in range(len(weights)):
                total = sum(int(w) * plane for w, plane in zip(weights[h], both, strict=True))
                total = total + int(one.into_bias_lgh[level, group - 1, h]) + 1
                hidden.append(np.clip(total // 2, 0, 255))
            mixed = []
            for h, plane in enumerate(hidden):
                padded = np.pad(plane, 1)
                total = np.full((rows, cols), int(one.taps_bias_lgh[level, group - 1, h]) + 32, object)
                for tap in range(9):
                    down, right = divmod(tap, 3)
                    part = padded[down : down + rows, right : right + cols]
                    total = total + int(one.taps_lght[level, group - 1, h, tap]) * part
                mixed.append(np.clip(total // 64, 0, 255))
            for c in range(last - first):
                at = first + c - starts[1]
                sums = [
                    sum(int(w) * plane for w, plane in zip(one.out_lkch[level, k, at], mixed, strict=True))
                    + int(one.out_bias_lkc[level, k, at])
                    for k in range(2)
                ]
                mean[c], width[c] = (sums[0] + 64) // 128, (sums[1] + 128) // 256
        for c in range(last - first):
            mean[c] = np.clip(mean[c] + int(one.base_lkc[level, 0, first + c]), -512, 512)
            width[c] = np.clip(width[c] + int(one.base_lkc[level, 1, first + c]), 0, one.widths - 1)
        whole = (mean + 4) // 8
        found.append((8 * width + mean - 8 * whole + 4, whole))
    return found


def some(one: Contexts, seed: int, grid: tuple[int, int], *, spread: float = 1.2) -> NDArray[np.int32]:
    random = np.random.default_rng(seed)
    return np.rint(random.normal(0, spread, (one.channels, *grid))).astype(np.int32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grid", [(1, 1), (3, 5)])
def test_floats_give_what_whole_numbers_give(seed: int, grid: tuple[int, int]) -> None:
    one = contexts(seed)
    symbols_chw = some(one, seed, grid, spread=5.0)
    for level in range(one.levels):
        reading = Reading(one, level, one.networks(level), grid)
        expected = in_whole_numbers(one, level, symbols_chw)
        for channel_c, (row, whole) in zip(reading.groups(), expected, strict=True):
            row_cn, whole_cn = reading.rows()
            assert np.array_equal(row_cn, row.reshape(row_cn.shape).astype(int))
            assert np.array_equal(whole_cn, whole.reshape(row_cn.shape).astype(int))
            reading.put(symbols_chw[channel_c].reshape(len(channel_c), -1))


@given(
    st.integers(0, 50), st.integers(1, 4), st.integers(1, 4), st.sampled_from([(2, 1, 3), (1,), (4, 4), (1, 1, 1, 1)])
)
def test_what_is_encoded_is_decoded_by_either_coder(seed: int, rows: int, cols: int, groups: tuple[int, ...]) -> None:
    one = contexts(seed, groups=groups)
    symbols_chw = some(one, seed, (rows, cols))
    plain, other = ContextCoder(one, plain=True), ContextCoder(one)
    payload = plain.encode(symbols_chw, 1)
    assert other.encode(symbols_chw, 1) == payload
    for coder in (plain, other):
        assert np.array_equal(coder.decode(payload, symbols_chw.shape, level=1), symbols_chw)


def test_payloads_of_others_are_refused_or_give_symbols() -> None:
    one = contexts()
    coder, random = ContextCoder(one), np.random.default_rng(5)
    refused = 0
    for _ in range(300):
        try:
            coder.decode(random.bytes(int(random.integers(1, 60))), (6, 3, 3), level=0)
        except PacketPayload:
            refused += 1
    assert refused > 250


def test_what_no_row_holds_is_refused() -> None:
    one = contexts()
    far_chw = np.full((6, 2, 2), 190, np.int32)
    with pytest.raises(TablesError, match="outside its row's range"):
        ContextCoder(one).encode(far_chw, 0)
    for wrong in (np.zeros((5, 2, 2), np.int32), np.zeros((6, 2), np.int32), np.zeros((6, 2, 2))):
        with pytest.raises(TablesError, match="expected integers"):
            ContextCoder(one).encode(wrong, 0)
    with pytest.raises(TablesError, match="level 2"):
        ContextCoder(one).encode(np.zeros((6, 2, 2), np.int32), 2)


def test_a_file_holds_them() -> None:
    one = contexts()
    again = Contexts.load(one.dump())
    assert again.shared_bytes() == one.shared_bytes()
    assert contexts(2).shared_bytes() != one.shared_bytes()
    with pytest.raises(BundleFormat, match=r"contexts\.npz"):
        Contexts.load(one.dump()[:-30])


def big(shape: tuple[int, ...], value: int, dtype: Any) -> Any:
    return np.full(shape, value, dtype)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"order_c": np.array([0, 1, 2, 3, 4, 4], np.int32)}, "order_c"),
        ({"group_g": np.array([2, 1, 4], np.int32)}, "group_g"),
        ({"group_g": np.array([6, 0], np.int32)}, "group_g"),
        ({"group_g": np.array([3, 3], np.int32)}, "shape"),
        ({"base_lkc": np.zeros((2, 2, 6), np.int64)}, "base_lkc: int64"),
        ({"base_lkc": big((2, 2, 6), 1 << 25, np.int32)}, "base_lkc: numbers"),
        ({"base_lkc": np.zeros((17, 2, 6), np.int32)}, "17 levels"),
        ({"into_bias_lgh": big((2, 2, 5), (1 << 24) - 5, np.int32)}, "into_lha: sums may reach"),
        ({"taps_bias_lgh": big((2, 2, 5), -(1 << 24), np.int32)}, "taps_lght: sums may reach"),
        ({"out_bias_lkc": big((2, 2, 4), 1 << 24, np.int32)}, "out_lkch: sums may reach"),
        ({"size_k": np.full(15, 161, np.int32)}, "15 rows"),
        ({"offset_k": np.full(15, -80, np.int32)}, "must agree"),
        ({"freq_ks": np.full((16, 161), TOTAL // 161, np.uint32)}, "sums to"),
        ({"out_lkch": np.zeros((2, 2, 4), np.int8)}, "3 dimensions"),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(TablesError, match=message):
        replace(contexts(), **changed)
