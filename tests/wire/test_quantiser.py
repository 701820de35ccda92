"""The quick way from a latent to columns gives what the plain one gives, whatever the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from splitcodec.errors import TablesError
from splitcodec.wire.coder import Coder
from splitcodec.wire.quantiser import Quantiser
from splitcodec.wire.tables import TOTAL, Tables
from tests.wire.strategies import tables

floats = st.floats(width=32, allow_nan=False) | st.integers(-40, 40).map(lambda n: n / 2) | st.floats(-9, 9, width=32)


@st.composite
def latents(draw: st.DrawFn) -> tuple[Tables, Any, int]:
    found = draw(tables())
    shape = (found.channels, draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    return found, draw(arrays.arrays(np.float32, shape, elements=floats)), draw(st.integers(0, found.levels - 1))


@given(latents())
@np.errstate(over="ignore", invalid="ignore")
def test_columns_are_those_of_the_symbols(given_: tuple[Tables, Any, int]) -> None:
    found, latent_chw, level = given_
    columns_cn = Quantiser(found, level).columns(latent_chw)
    expected_cn = found.columns(found.quantise(latent_chw, level), level)
    assert columns_cn.dtype == np.int32
    assert columns_cn.flags.c_contiguous
    assert np.array_equal(columns_cn, expected_cn)


@pytest.fixture
def wide() -> Tables:
    """Return tables of one channel with symbols -5 to 5 and gain 1."""
    freq = np.full((1, 11), 1, np.uint32)
    freq[0, 5] = TOTAL - 10
    return Tables(
        freq_ks=freq,
        size_k=np.array([11], np.int32),
        offset_k=np.array([-5], np.int32),
        table_of_lxc=np.zeros((1, 1, 1), np.int32),
        gain_lc=np.ones((1, 1), np.float32),
    )


def test_halves_go_to_even_and_the_range_is_kept(wide: Tables) -> None:
    values = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 5.49, -5.49, 0.49999997, -0.0]
    latent_chw = np.array(values, np.float32).reshape(1, 2, 5)
    assert (Quantiser(wide, 0).columns(latent_chw) - 5).ravel().tolist() == [0, 2, 2, 0, -2, -2, 5, -5, 0, 0]


@pytest.mark.parametrize("far", [6.0, 2.0**22, 2.0**23, 12582912.0, 3e38, float("inf")])
def test_what_is_outside_is_clipped(wide: Tables, far: float) -> None:
    for one, column in ((far, 10), (-far, 0)):  # each by itself: one alone must be noticed
        latent_chw = np.array([one, 1.0], np.float32).reshape(1, 1, 2)
        assert Quantiser(wide, 0).columns(latent_chw).ravel().tolist() == [column, 6]


def test_no_number_is_refused(wide: Tables) -> None:
    with pytest.raises(TablesError, match="NaN"):
        Quantiser(wide, 0).columns(np.array([[[1.0, np.nan]]], np.float32))


def test_other_shapes_levels_and_types(wide: Tables) -> None:
    with pytest.raises(TablesError, match="shape"):
        Quantiser(wide, 0).columns(np.zeros((2, 1, 1), np.float32))
    with pytest.raises(TablesError, match="level 1"):
        Quantiser(wide, 1)
    assert Quantiser(wide, 0).columns(np.full((1, 1, 1), 2.0)).tolist() == [[7]]
    assert Quantiser(wide, 0).columns(np.zeros((1, 0, 3), np.float32)).shape == (1, 0)


@pytest.mark.parametrize("plain", [False, True])
def test_a_coder_gives_the_same_payload(wide: Tables, plain: bool) -> None:
    coder = Coder(wide, plain=plain)
    latent_chw = np.random.default_rng(3).normal(0, 2, (1, 9, 9)).astype(np.float32)
    payload = coder.encode_latent(latent_chw, 0)
    assert payload == coder.encode(wide.quantise(latent_chw, 0), 0)
    assert np.array_equal(coder.decode(payload, (1, 9, 9), level=0), wide.quantise(latent_chw, 0))
