"""Box decoding and suppression."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from splitcodec.edge.boxes import MOST, MOST_BEFORE, find_boxes, overlaps, places, suppress


def test_places_are_the_middles_of_cells() -> None:
    got = places((24, 40), (8, 16))
    assert len(got) == 15 + 6
    assert got[:6].tolist() == [[4, 4], [12, 4], [20, 4], [28, 4], [36, 4], [4, 12]]
    assert got[15:].tolist() == [[8, 8], [24, 8], [40, 8], [8, 24], [24, 24], [40, 24]]


def test_one_object_comes_back() -> None:
    score = np.zeros((15, 3), np.float32)
    edges = np.ones((15, 4), np.float32)
    score[7, 2], score[8, 2], score[6, 1] = 0.9, 0.8, 0.02
    edges[7], edges[8] = (10, 4, 20, 8), (17.9, 4, 12, 8)
    found = find_boxes(score, edges, size=(24, 40), strides=(8,))
    assert found.box_n4.tolist() == [[10, 8, 40, 20]]  # (20, 12) and its edges; cut to the picture
    assert found.label_n.tolist() == [2]
    assert found.score_n.tolist() == pytest.approx([0.9])


def test_classes_do_not_suppress_each_other() -> None:
    box = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9]], np.float32)
    assert suppress(box, np.array([0, 1, 0]), overlap=0.5).tolist() == [0, 1]
    assert suppress(box[:0], np.zeros(0, np.int64), overlap=0.5).tolist() == []


def test_small_boxes_of_late_classes_are_suppressed_as_those_of_the_first() -> None:
    """Of 1,203 classes each on a plane of its own, two of a hundred small boxes were judged otherwise."""
    random = np.random.default_rng(0)
    corner = 1000 + random.uniform(0, 2, (200, 2))
    box = np.concatenate([corner, corner + random.uniform(4, 9, (200, 2))], axis=1).astype(np.float32)
    first = suppress(box, np.zeros(200, np.int64), overlap=0.6)
    assert suppress(box, np.full(200, 1202), overlap=0.6).tolist() == first.tolist()


def test_the_number_of_boxes_is_bounded() -> None:
    random = np.random.default_rng(1)
    count = 64 * 64
    found = find_boxes(
        random.random((count, 20), dtype=np.float32),
        np.full((count, 4), 2.0, np.float32),
        size=(512, 512),
        strides=(8,),
        least=0.0,
    )
    assert len(found.box_n4) == MOST < MOST_BEFORE
    assert (np.diff(found.score_n) <= 0).all()


def test_another_number_of_places_is_refused() -> None:
    with pytest.raises(ValueError, match="14 places, expected 15"):
        find_boxes(np.zeros((14, 1), np.float32), np.zeros((14, 4), np.float32), size=(24, 40), strides=(8,))


@given(arrays.arrays(np.float32, (6, 4), elements=st.floats(0, 50, width=32)))
def test_what_stays_overlaps_little(raw: np.ndarray) -> None:
    box = np.concatenate([raw[:, :2], raw[:, :2] + raw[:, 2:] + 1], axis=1).astype(np.float32)
    alive = suppress(box, np.zeros(6, np.int64), overlap=0.5)
    iou = overlaps(box[alive], box[alive])
    assert alive[0] == 0
    assert (iou[~np.eye(len(alive), dtype=bool)] <= 0.5).all()
    gone = np.setdiff1d(np.arange(6), alive)
    assert all((overlaps(box[[one]], box[alive]) > 0.5).any() for one in gone)
