"""Tables: what is refused, quantising and rounding, the file, the canonical bytes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitcodec.errors import BundleFormat, OutputError, TablesError
from splitcodec.wire.tables import TOTAL, Tables, quantise_mass
from tests.wire.strategies import coded, tables

HALF = TOTAL // 2
PLAIN: dict[str, Any] = {
    "freq_ks": np.array([[HALF, HALF, 0], [1, TOTAL - 2, 1]], np.uint32),
    "size_k": np.array([2, 3], np.int32),
    "offset_k": np.array([0, -1], np.int32),
    "table_of_lxc": np.array([[[0, 1]], [[1, 1]]], np.int32),
    "gain_lc": np.array([[1, 2], [0.5, 4]], np.float32),
}


@pytest.fixture
def plain() -> Tables:
    return Tables(**PLAIN)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"freq_ks": np.array([[HALF, HALF, 0], [1, TOTAL - 3, 1]], np.uint32)}, "row 1 sums to"),
        ({"freq_ks": np.array([[2**32 - 1, TOTAL + 1, 0], [1, TOTAL - 2, 1]], np.uint32)}, "row 0 sums to"),
        ({"freq_ks": np.array([[HALF, HALF, 0], [0, TOTAL - 1, 1]], np.uint32)}, "at least 1"),
        ({"freq_ks": np.array([[HALF, HALF - 1, 1], [1, TOTAL - 2, 1]], np.uint32)}, "zero after the row's size"),
        ({"freq_ks": PLAIN["freq_ks"].astype(np.int64)}, "dtype int64"),
        ({"freq_ks": PLAIN["freq_ks"].tolist()}, "a list"),
        ({"freq_ks": PLAIN["freq_ks"][0]}, "1 dimensions"),
        ({"freq_ks": np.zeros((0, 3), np.uint32)}, "0 rows"),
        ({"size_k": np.array([1, 3], np.int32)}, "size_k"),
        ({"size_k": np.array([2, 4], np.int32)}, "size_k"),
        ({"size_k": np.array([2], np.int32)}, "must agree"),
        ({"offset_k": np.array([0, -32_769], np.int32)}, "outside -32768"),
        ({"offset_k": np.array([0, 32_766], np.int32)}, "to 32767"),
        ({"offset_k": np.array([0, 2**31 - 1], np.int32)}, "to 32767"),
        ({"table_of_lxc": np.array([[[0, 2]], [[1, 1]]], np.int32)}, "outside 0 to 1"),
        ({"table_of_lxc": np.array([[[0, -1]], [[1, 1]]], np.int32)}, "outside 0 to 1"),
        ({"table_of_lxc": np.zeros((17, 1, 2), np.int32)}, "1 to 16 levels"),
        ({"table_of_lxc": np.zeros((2, 0, 2), np.int32)}, "1 to 16 levels"),
        ({"gain_lc": np.ones((2, 3), np.float32)}, "gain_lc: shape"),
        ({"gain_lc": np.array([[1, 2], [0, 4]], np.float32)}, "a gain outside"),
        ({"gain_lc": np.array([[1, 2], [np.nan, 4]], np.float32)}, "a gain outside"),
        ({"gain_lc": np.array([[1, 2], [np.inf, 4]], np.float32)}, "a gain outside"),
        ({"gain_lc": np.array([[1, 2], [-1, 4]], np.float32)}, "a gain outside"),
        ({"gain_lc": np.array([[1, 2], [1, 4]], np.float64)}, "dtype float64"),
    ],
)
def test_broken_rules_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(TablesError, match=message):
        Tables(**{**PLAIN, **changed})


def test_arrays_are_copies_and_read_only(plain: Tables) -> None:
    mine = PLAIN["freq_ks"].copy()
    one = replace(plain, freq_ks=np.asfortranarray(mine))
    mine[:] = 0
    assert one.freq_ks.sum() == 2 * TOTAL
    assert one.freq_ks.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        one.freq_ks[0, 0] = 7


def test_shape_properties_and_ranges(plain: Tables) -> None:
    assert (plain.levels, plain.contexts, plain.channels) == (2, 1, 2)
    low, high = plain.range_of(0)
    assert low.tolist() == [0, -1]
    assert high.tolist() == [1, 1]


@pytest.mark.parametrize("level", [-1, 2])
def test_an_unknown_level_is_refused(plain: Tables, level: int) -> None:
    with pytest.raises(TablesError, match=f"level {level}: these tables have levels 0 to 1"):
        plain.range_of(level)


def test_quantise_rounds_half_to_even_and_clips(plain: Tables) -> None:
    latent = np.array([[[0.5, 1.5, -9, np.inf]], [[0.25, -0.26, 5, -np.inf]]], np.float32)
    assert plain.quantise(latent, 0).tolist() == [[[0, 1, 0, 1]], [[0, -1, 1, -1]]]
    assert plain.quantise(latent, 0).dtype == np.int32


def test_quantise_refuses_nan(plain: Tables) -> None:
    with pytest.raises(TablesError, match="NaN"):
        plain.quantise(np.full((2, 1, 1), np.nan, np.float32), 0)


def test_dequantise_divides_by_the_gain_of_the_level(plain: Tables) -> None:
    latent = plain.dequantise(np.array([[[1]], [[1]]], np.int32), 1)
    assert latent.dtype == np.float32
    assert latent.tolist() == [[[2.0]], [[0.25]]]


@pytest.mark.parametrize("shape", [(3, 1, 1), (2, 1), (1, 2, 1, 1)])
def test_another_shape_is_refused(plain: Tables, shape: tuple[int, ...]) -> None:
    for call in (plain.clip, plain.quantise, plain.dequantise, plain.bits, plain.columns):
        with pytest.raises(TablesError, match="expected \\(2, rows, columns\\)"):
            call(np.zeros(shape, np.int32), 0)


def test_symbols_out_of_range_and_of_other_kinds_are_refused(plain: Tables) -> None:
    with pytest.raises(TablesError, match="channel 1 holds symbols 2 to 2, its table at level 0 has -1 to 1"):
        plain.bits(np.array([[[0]], [[2]]]), 0)
    with pytest.raises(TablesError, match="channel 0 holds symbols -1 to 1, its table at level 0 has 0 to 1"):
        plain.bits(np.array([[[-1, 1]], [[0, 0]]]), 0)
    with pytest.raises(TablesError, match="dtype float32"):
        plain.columns(np.zeros((2, 1, 1), np.float32), 0)


def test_bits_are_the_ideal_code_length(plain: Tables) -> None:
    assert plain.bits(np.array([[[0, 1]], [[-1, 1]]], np.int32), 0) == pytest.approx(1 + 1 + 24 + 24)


@given(coded())
def test_dequantising_and_quantising_again_changes_nothing(case: Any) -> None:
    drawn, level, symbols = case
    assert np.array_equal(drawn.quantise(drawn.dequantise(symbols, level), level), symbols)


@given(coded(), st.integers(-100, 100))
def test_clip_is_idempotent_and_stays_in_range(case: Any, shift: int) -> None:
    drawn, level, symbols = case
    clipped = drawn.clip(symbols + shift, level)
    drawn.columns(clipped, level)
    assert np.array_equal(drawn.clip(clipped, level), clipped)
    if shift == 0:
        assert np.array_equal(clipped, symbols)


@given(tables())
def test_save_and_load_keep_every_bit_and_the_same_file(drawn: Tables) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    drawn.save(first)
    again = Tables.load(first.getvalue())
    again.save(second)
    assert first.getvalue() == second.getvalue()
    assert again.shared_bytes() == drawn.shared_bytes()


def test_files_are_little_endian_on_every_machine(plain: Tables) -> None:
    """A machine of the other order wrote a file that every machine refused."""
    one, file, same = replace(plain), io.BytesIO(), io.BytesIO()
    for name in PLAIN:
        array = getattr(one, name)
        object.__setattr__(one, name, array.astype(array.dtype.newbyteorder(">")))  # as it would hold them
    one.save(file)
    plain.save(same)
    assert file.getvalue() == same.getvalue()
    assert one.shared_bytes() == plain.shared_bytes()


def test_save_to_a_path_that_cannot_be_written(plain: Tables, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write the tables"):
        plain.save(tmp_path / "missing" / "tables.npz")


def test_load_names_the_broken_rule_and_the_broken_file(plain: Tables) -> None:
    with pytest.raises(BundleFormat, match=r"mine\.npz: not a readable .npz file"):
        Tables.load(b"PK\x03\x04 no", what="mine.npz")
    file = io.BytesIO()
    np.savez(file, **{**PLAIN, "size_k": np.array([1, 3], np.int32)})
    with pytest.raises(TablesError, match="size_k"):
        Tables.load(file.getvalue())


def test_shared_bytes_tell_every_array_apart(plain: Tables) -> None:
    others = [
        replace(plain, gain_lc=plain.gain_lc * np.float32(1.5)),
        replace(plain, offset_k=plain.offset_k + np.int32(1)),
        replace(plain, table_of_lxc=1 - plain.table_of_lxc),
        replace(plain, freq_ks=np.pad(plain.freq_ks, ((0, 0), (0, 1)))),
    ]
    assert len({one.shared_bytes() for one in (plain, *others)}) == 5
    assert plain.shared_bytes().startswith(b"freq_ks <u4 2,3\n" + HALF.to_bytes(4, "little"))


def test_quantise_mass_gives_what_is_left_to_the_largest_remainders_the_first_of_equal_ones() -> None:
    third = (TOTAL - 3) // 3 + 1
    assert quantise_mass([1, 1, 1]).tolist() == [third + 1, third, third]
    share = np.array([0.5, 0.3, 0.2]) * (TOTAL - 3)  # remainders of a half, 0.9 and 0.6
    assert quantise_mass([5, 3, 2]).tolist() == [int(share[0]) + 1, int(share[1]) + 2, int(share[2]) + 2]
    left = (TOTAL - 1000) % 1000
    assert np.flatnonzero(np.diff(quantise_mass(np.ones(1000)).astype(int))).tolist() == [left - 1]


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(0, 1e300)), min_size=2, max_size=300).filter(lambda mass: sum(mass) > 0)
)
def test_quantise_mass_sums_to_the_total_and_keeps_every_symbol(mass: list[float]) -> None:
    if not 1e-300 < sum(mass) < 1e308:
        return
    freq = quantise_mass(np.array(mass))
    assert freq.dtype == np.uint32
    assert int(freq.sum(dtype=np.uint64)) == TOTAL
    assert freq.min() >= 1
    exact = np.array(mass) / np.sum(mass) * (TOTAL - len(mass)) + 1
    assert np.abs(freq - exact).max() < 1.001


def test_quantise_mass_gives_what_is_left_to_the_largest_remainders() -> None:
    assert quantise_mass(np.array([1.0, 1.0, 1.0])).tolist() == [5592406, 5592405, 5592405]
    assert quantise_mass(np.array([1.0, 0.0])).tolist() == [TOTAL - 1, 1]
    assert len(quantise_mass(np.ones(65_536))) == 65_536


@pytest.mark.parametrize(
    "mass", [[1.0], [0.0, 0.0], [1.0, -0.1], [1.0, np.nan], [1.0, np.inf], [[1.0, 1.0]], [1.0] * 65_537, [1e308] * 3]
)
def test_quantise_mass_refuses(mass: Any) -> None:
    with pytest.raises(TablesError, match="mass"):
        quantise_mass(np.array(mass))
