"""Coding id 2: whole numbers in floats, rows chosen by what came before, packets both ways by both coders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitcodec.errors import BundleFormat, PacketPayload, TablesError
from splitcodec.wire import context_coder, reading
from splitcodec.wire import contexts as contexts_py
from splitcodec.wire.context_coder import ContextCoder
from splitcodec.wire.contexts import Contexts, steps_of
from splitcodec.wire.reading import Reading, in_order, networks_of, places_of
from splitcodec.wire.tables import TOTAL, quantise_mass

REACH = 80


def contexts(
    seed: int = 1,
    *,
    groups: tuple[int, ...] = (2, 1, 3),
    passes: tuple[int, ...] | None = None,
    levels: int = 2,
    hidden: int = 5,
) -> Contexts:
    """Return contexts of small networks with weights of any sign, and rows of two widths."""
    random = np.random.default_rng(seed)
    passes = tuple((4, 1, 2)[g % 3] for g in range(len(groups))) if passes is None else passes
    channels = sum(groups)
    columns = np.arange(-REACH, REACH + 1)
    rows = [
        quantise_mass(np.exp(-np.abs(columns - (fraction - 4) / 8) / width) + 1e-6)
        for width in (0.3, 1.5)
        for fraction in range(8)
    ]
    steps = steps_of(groups, passes)
    later = sum(step.last - step.first for step in steps[1:])
    width = sum(
        2 * (sum(groups[:g]) + (count if many > 1 else 0))
        for g, (count, many) in enumerate(zip(groups, passes, strict=True))
    )

    def ints(low: int, high: int, *shape: int, dtype: Any = np.int32) -> Any:
        return random.integers(low, high, shape).astype(dtype)

    return Contexts(
        order_c=random.permutation(channels).astype(np.int32),
        group_g=np.array(groups, np.int32),
        passes_g=np.array(passes, np.int32),
        base_lkc=np.stack([ints(-20, 20, levels, groups[0]), ints(0, 2, levels, groups[0])], axis=1),
        into_lha=ints(-9, 10, levels, hidden, width, dtype=np.int8),
        into_bias_lsh=ints(-20, 90, levels, len(steps) - 1, hidden),
        out_lkcht=ints(-127, 128, levels, 2, later, hidden, 9, dtype=np.int8),
        out_bias_lkc=ints(-2000, 2000, levels, 2, later),
        freq_ks=np.stack(rows),
        size_k=np.full(len(rows), len(columns), np.int32),
        offset_k=np.full(len(rows), -REACH, np.int32),
    )


def in_whole_numbers(one: Contexts, level: int, symbols_chw: NDArray[np.int32]) -> list[tuple[Any, Any]]:
    """Return rows and what is taken off, step by step, as docs/wire-format.md says it, with Python's integers."""
    _, rows, cols = symbols_chw.shape
    ordered = symbols_chw[one.order_c].tolist()
    phases = [(0, 0), (1, 1), (0, 1), (1, 0)]
    found: list[tuple[Any, Any]] = []
    number, before, left, out_at = 0, 0, 0, 0
    for count, passes in zip(one.group_g.tolist(), one.passes_g.tolist(), strict=True):
        seen = before + (count if passes > 1 else 0)
        coded: set[tuple[int, int]] = set()
        for part in range(passes):
            mine = phases[part * 4 // passes : (part + 1) * 4 // passes]

            def hidden(h: int, i: int, j: int) -> int:
                total = int(one.into_bias_lsh[level, number - 1, h])  # noqa: B023
                inside = 0 <= i < rows and 0 <= j < cols
                for a in range(seen):  # noqa: B023
                    known = inside and (a < before or (i, j) in coded)  # noqa: B023
                    x = max(-7, min(7, ordered[a][i][j])) if known else 0
                    weights = one.into_lha[level, h, left + 2 * a : left + 2 * a + 2].tolist()  # noqa: B023
                    total += weights[0] * x + weights[1] * abs(x)
                return max(0, min(255, total))

            places = [(i, j) for down, right in mine for i in range(down, rows, 2) for j in range(right, cols, 2)]
            row_nc, whole_nc = np.zeros((2, len(places), count), int)
            for n, (i, j) in enumerate(places):
                near = [
                    [hidden(h, i + t // 3 - 1, j + t % 3 - 1) for t in range(9)] for h in range(one.into_lha.shape[1])
                ]
                for c in range(count):
                    if number == 0:
                        mean, width = (int(one.base_lkc[level, k, c]) for k in range(2))
                    else:
                        weights = one.out_lkcht[level, :, out_at + c].tolist()
                        mean, width = (
                            sum(
                                w * x
                                for ws, xs in zip(weights[k], near, strict=True)
                                for w, x in zip(ws, xs, strict=True)
                            )
                            + int(one.out_bias_lkc[level, k, out_at + c])
                            for k in range(2)
                        )
                        mean, width = (mean + 128) // 256, (width + 256) // 512
                    mean, width = max(-512, min(512, mean)), max(0, min(one.widths - 1, width))
                    whole_nc[n, c] = (mean + 4) // 8
                    row_nc[n, c] = 8 * width + mean - 8 * whole_nc[n, c] + 4
            found.append((row_nc, whole_nc))
            coded |= set(places)
            out_at += count if number else 0
            number += 1
        left += 2 * seen
        before += count
    return found


def some(one: Contexts, seed: int, grid: tuple[int, int], *, spread: float = 1.2) -> NDArray[np.int32]:
    random = np.random.default_rng(seed)
    return np.rint(random.normal(0, spread, (one.channels, *grid))).astype(np.int32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (2, 5)])
def test_floats_give_what_whole_numbers_give(seed: int, grid: tuple[int, int]) -> None:
    one = contexts(seed)
    symbols_chw = some(one, seed, grid, spread=5.0)
    symbols_nc = symbols_chw.reshape(one.channels, -1)[one.order_c].T[places_of(grid).raster_n]
    for level in range(one.levels):
        now = Reading(networks_of(one, level), grid)
        for row, whole in in_whole_numbers(one, level, symbols_chw):
            (row_nc,), (whole_nc,) = now.rows()
            assert np.array_equal(row_nc, row)
            assert np.array_equal(whole_nc, whole)
            now.put(symbols_nc[now.part][None])


@given(
    st.integers(0, 50),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([(2, 1, 3), (1,), (4, 4), (1, 1, 1, 1)]),
    st.lists(st.sampled_from((1, 2, 4)), min_size=4, max_size=4),
)
def test_what_is_encoded_is_decoded_by_either_coder(
    seed: int, rows: int, cols: int, groups: tuple[int, ...], passes: list[int]
) -> None:
    one = contexts(seed, groups=groups, passes=tuple(passes[: len(groups)]))
    symbols_chw = some(one, seed, (rows, cols))
    plain, other = ContextCoder(one, plain=True), ContextCoder(one)
    payload = plain.encode(symbols_chw, 1)
    assert other.encode(symbols_chw, 1) == payload
    for coder in (plain, other):
        assert np.array_equal(coder.decode(payload, symbols_chw.shape, level=1), symbols_chw)


@pytest.mark.parametrize("most", [1, 127])
def test_means_and_widths_end_where_the_norm_says(most: int) -> None:
    """Sums around -512 and 512 eighths and around the widths' ends, in the first step as in others."""
    one, random = contexts(8, groups=(3, 2)), np.random.default_rng(8)
    ends = random.choice([-512, 512], one.out_bias_lkc.shape[2]) * 256
    bias_lkc = np.stack(
        [
            ends + random.integers(-1500, 1500, (2, len(ends))),
            random.choice([-512, 0, 512, 1024], (2, len(ends))) + random.integers(-400, 400, (2, len(ends))),
        ],
        axis=1,
    )
    base_lkc = np.array([[[-517, -513, 514], [-1, 2, 1]], [[-512, 512, -515], [0, 1, 3]]])
    out_lkcht = np.clip(one.out_lkcht, -most, most)
    out_lkcht[:, :, :2] = 0
    bias_lkc[:, 0, :2] = (1 << 24) - 1537, 1537 - (1 << 24)  # the largest that are admitted
    one = replace(
        one,
        base_lkc=base_lkc.astype(np.int32),
        out_bias_lkc=bias_lkc.astype(np.int32),
        out_lkcht=out_lkcht.astype(np.int8),
    )
    found = set[int]()
    for level in range(2):
        symbols = some(one, 3, (5, 4))
        reading = Reading(networks_of(one, level), (5, 4))
        for row_nc, whole_nc in in_whole_numbers(one, level, symbols):
            (got_row,), (got_whole,) = reading.rows()
            assert np.array_equal(got_row, row_nc)
            assert np.array_equal(got_whole, whole_nc)
            found |= set(np.unique(whole_nc).tolist())
            reading.put(in_order(symbols, one)[reading.part][None])
    assert {-64, 64} <= found


def test_side_by_side_as_one_by_one_and_a_wrong_one_fails_alone() -> None:
    one = contexts()
    for plain in (True, None):
        coder = ContextCoder(one, plain=plain)
        symbols = [some(one, seed, (5, 4)) for seed in range(130)]
        payloads = [coder.encode(symbols_chw, 1) for symbols_chw in symbols]
        payloads[3], payloads[7], payloads[9] = payloads[3][:-1] + b"\1\2\3", b"", payloads[9] + bytes(3)
        found = coder.decode_many(payloads, (6, 5, 4), level=1)
        assert {number for number, got in enumerate(found) if isinstance(got, PacketPayload)} == {3, 7, 9}
        right = [(got, symbols[n]) for n, got in enumerate(found) if not isinstance(got, PacketPayload)]
        assert all(np.array_equal(got, expected) for got, expected in right)
    assert coder.decode_many([], (6, 5, 4), level=1) == []
    assert len(coder.decode_many([b""], (6, 5, 4), level=1)) == 1


def test_a_payload_that_no_symbols_have_is_refused_by_its_size() -> None:
    (found,) = ContextCoder(contexts()).decode_many([b"\1" * (3 * 6 * 2 * 3 + 1)], (6, 2, 3), level=0)
    assert isinstance(found, PacketPayload)
    assert "109 bytes for 36 symbols, expected 1 to 108" in str(found)


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
    for level in (-1, 2):
        with pytest.raises(TablesError, match=f"level {level}"):
            ContextCoder(one).encode(np.zeros((6, 2, 2), np.int32), level)
    with pytest.raises(TablesError, match="expected integers"):
        ContextCoder(one).decode_many([b"\0"], (5, 2, 2), level=0)


def test_a_grid_of_more_places_than_are_decoded_side_by_side() -> None:
    coder, grid = ContextCoder(contexts(groups=(1, 1))), (47, 46)
    assert grid[0] * grid[1] > context_coder._TOGETHER
    symbols_chw = some(contexts(groups=(1, 1)), 1, grid)
    assert np.array_equal(coder.decode(coder.encode(symbols_chw, 0), (2, *grid), level=0), symbols_chw)


def test_up_to_the_ends_of_its_row_a_symbol_is_coded_and_no_further() -> None:
    coder, refused = ContextCoder(contexts()), set[bool]()
    for value in (*range(-100, -60), *range(60, 100)):
        symbols_chw = np.zeros((6, 1, 1), np.int32)
        symbols_chw[3] = value
        try:
            payload = coder.encode(symbols_chw, 0)
        except TablesError:
            refused.add(value < 0)
        else:
            assert np.array_equal(coder.decode(payload, (6, 1, 1), level=0), symbols_chw)
    assert refused == {False, True}


@pytest.mark.parametrize("keys", [9, 1 << 16, (1 << 16) + 2])
def test_keys_are_sorted_by_their_whole_size(keys: int) -> None:
    key_n = np.array([keys - 1, 3, 0, keys - 1, 1, 3], np.int32)
    at_n, runs = context_coder._sorted(key_n)
    assert at_n.tolist() == [2, 4, 1, 5, 0, 3]
    assert runs == [(0, 1), (1, 1), (3, 2), (keys - 1, 2)]


@pytest.mark.parametrize("far", [np.int64(1 << 32), np.int64(-(1 << 40)), np.uint32(0xFFFFFFFF), np.int32(-(1 << 31))])
def test_wide_integers_do_not_wrap_into_other_symbols(far: np.integer[Any]) -> None:
    """2^32 was coded as 0."""
    symbols_chw = np.zeros((6, 2, 2), far.dtype)
    symbols_chw[3, 1, 0] = far
    with pytest.raises(TablesError):
        ContextCoder(contexts()).encode(symbols_chw, 0)


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
        ({"group_g": np.array([3, 3], np.int32)}, "passes_g"),
        ({"passes_g": np.array([4, 1, 3], np.int32)}, "passes_g"),
        ({"passes_g": np.array([4, 2, 2], np.int32)}, "shape"),
        ({"base_lkc": np.zeros((2, 2, 2), np.int64)}, "base_lkc: dtype int64"),
        ({"base_lkc": big((2, 2, 2), 1 << 25, np.int32)}, "base_lkc: numbers"),
        ({"base_lkc": big((2, 2, 2), (1 << 24) - 1536, np.int32)}, "base_lkc: numbers"),
        ({"into_lha": np.zeros((17, 5, 20), np.int8)}, "17 levels"),
        ({"into_lha": np.zeros((2, 257, 20), np.int8)}, "2 levels, 257 hidden numbers; expected 1 to 16, 1 to 256"),
        (
            {
                "freq_ks": np.full((4104, 2), TOTAL // 2, np.uint32),
                "size_k": np.full(4104, 2, np.int32),
                "offset_k": np.zeros(4104, np.int32),
            },
            "4104 rows; expected 8 for every width, at most 4096",
        ),
        ({"into_bias_lsh": big((2, 6, 5), (1 << 24) - 5, np.int32)}, "into_lha: sums may reach"),
        ({"out_bias_lkc": big((2, 2, 13), 1 << 24, np.int32)}, "out_lkcht: sums may reach"),
        ({"base_lkc": big((2, 2, 2), (1 << 24) - 1000, np.int32)}, "base_lkc: numbers"),
        (
            {
                "out_lkcht": np.zeros((2, 2, 13, 5, 9), np.int8),
                "out_bias_lkc": big((2, 2, 13), (1 << 24) - 1000, np.int32),  # half a symbol more would not be exact
            },
            "out_lkcht: sums may reach",
        ),
        ({"size_k": np.full(15, 161, np.int32)}, "15 rows"),
        ({"offset_k": np.full(15, -80, np.int32)}, "must agree"),
        ({"offset_k": np.array([-80] * 15 + [-79], np.int32)}, "several sizes or offsets"),
        ({"freq_ks": np.full((16, 161), TOTAL // 161, np.uint32)}, "sums to"),
        ({"out_lkcht": np.zeros((2, 2, 13), np.int8)}, "3 dimensions"),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(TablesError, match=message):
        replace(contexts(), **changed)


def test_networks_that_take_a_gigabyte_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 64 MiB took four times as much, and as much again, for its first packet."""
    wide: dict[str, Any] = {
        "order_c": np.arange(900, dtype=np.int32),
        "group_g": np.array([900], np.int32),
        "passes_g": np.array([4], np.int32),
        "base_lkc": np.zeros((1, 2, 900), np.int32),
        "into_lha": np.zeros((1, 200, 1800), np.int8),
        "into_bias_lsh": np.zeros((1, 3, 200), np.int32),
        "out_lkcht": np.zeros((1, 2, 2700, 200, 9), np.int8),
        "out_bias_lkc": np.zeros((1, 2, 2700), np.int32),
    }
    with pytest.raises(TablesError, match="10080000 weights for each level; expected at most 8388608"):
        replace(contexts(), **wide)
    monkeypatch.setattr(contexts_py, "_MOST_ENTRIES", 16 * 161 - 1)
    with pytest.raises(TablesError, match="freq_ks: 2576 frequencies; expected at most 2575"):
        contexts()


@pytest.mark.parametrize("grid", [(1, 9), (6, 5)])
def test_a_grid_in_pieces_is_told_the_same(grid: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    one = contexts(4)
    symbols_chw = some(one, 4, grid, spread=5.0)
    symbols_nc, taken = symbols_chw.reshape(one.channels, -1)[one.order_c].T[places_of(grid).raster_n], list[int]()
    real = reading._multiply

    def watched(left: Any, right: Any, out: Any) -> None:
        taken.append(len(left))
        real(left, right, out)

    def told() -> list[Any]:
        found, now = list[Any](), Reading(networks_of(one, 1), grid)
        for _ in one.steps():
            found += now.told()
            now.put(symbols_nc[now.part][None])
        return found

    whole = told()
    monkeypatch.setattr(reading, "_PIECE", 2)
    monkeypatch.setattr(reading, "_multiply", watched)
    assert all(np.array_equal(one, other) for one, other in zip(told(), whole, strict=True))
    assert taken.count(2) > 9


@pytest.mark.parametrize("passes", [(4, 1, 2), (1, 2, 4), (2, 1, 1)])
def test_each_steps_bias_is_held_against_its_own_groups_weights(passes: tuple[int, ...]) -> None:
    one = contexts(passes=passes)
    for number, step in enumerate(one.steps()[1:]):
        begin, width = one.columns()[step.group]
        weights = int(np.abs(one.into_lha[1, 2, begin : begin + width].astype(int)).sum())
        most = (1 << 24) - contexts_py._ADDED - 1 - contexts_py.LARGEST * weights
        for bias, sign in ((most, 1), (-most, -1)):
            biases_lsh = one.into_bias_lsh.copy()
            biases_lsh[1, number, 2] = bias
            replace(one, into_bias_lsh=biases_lsh)
            biases_lsh[1, number, 2] += sign
            with pytest.raises(TablesError, match="into_lha: sums may reach"):
                replace(one, into_bias_lsh=biases_lsh)


def test_weights_of_means_and_widths_are_held_against_hidden_numbers_at_their_largest() -> None:
    one = contexts()
    weights_lkcht, biases_lkc = one.out_lkcht.copy(), one.out_bias_lkc.copy()
    weights_lkcht[1, 0, 4] = -128  # whose magnitude no int8 has
    most = (1 << 24) - contexts_py._ADDED - 1 - 255 * 128 * weights_lkcht[1, 0, 4].size
    biases_lkc[1, 0, 4] = most
    replace(one, out_lkcht=weights_lkcht, out_bias_lkc=biases_lkc)
    biases_lkc[1, 0, 4] += 1
    with pytest.raises(TablesError, match="out_lkcht: sums may reach"):
        replace(one, out_lkcht=weights_lkcht, out_bias_lkc=biases_lkc)


def test_weights_are_summed_once_for_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for each of its passes: a file of thousands of steps took three times as long to open."""
    one, shapes, real = contexts(), list[tuple[int, ...]](), contexts_py._sum

    def noted(weights: NDArray[np.int8]) -> NDArray[np.int64]:
        shapes.append(weights.shape)
        return real(weights)

    monkeypatch.setattr(contexts_py, "_sum", noted)
    replace(one)
    assert shapes == [(2, 5, 4), (2, 5, 4), (2, 5, 12), one.out_lkcht.shape]
