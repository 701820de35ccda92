"""Label maps as PNG: read back by Pillow."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from splitcodec.wire.png import palette, write_png


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_round_trip(index_hw: np.ndarray) -> None:
    with Image.open(io.BytesIO(write_png(index_hw, palette(256)))) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), index_hw)


def test_colours_are_those_of_voc() -> None:
    assert palette(4).tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert len({tuple(colour) for colour in palette(256).tolist()}) == 256


def test_plain_maps_are_small() -> None:
    index_hw = np.zeros((360, 480), np.uint8)
    index_hw[100:, 50:] = 3
    assert len(write_png(index_hw, palette(11))) < 700


def test_a_map_of_a_large_picture_is_held_once_more_and_no_oftener() -> None:
    index_hw = np.zeros((2000, 2000), np.uint8)
    tracemalloc.start()
    write_png(index_hw, palette(256))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * index_hw.size
