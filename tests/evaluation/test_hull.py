from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitcodec.evaluation.hull import bytes_at, upper_hull

points = st.lists(
    st.tuples(st.floats(10, 1e5, allow_nan=False), st.floats(0, 100, allow_nan=False)), min_size=1, max_size=30
)
CURVE = [(500.0, 70.0), (900.0, 78.0), (1600.0, 83.0), (3000.0, 86.0), (6000.0, 87.5)]


def test_the_hull_leaves_out_what_another_setting_beats() -> None:
    hull = upper_hull([(200, 56), (100, 50), (300, 54), (300, 60), (400, 61), (350, 58), (900, 61)])
    assert hull.tolist() == [[100, 50], [200, 56], [300, 60], [400, 61]]


@given(points)
def test_the_hull_rises_bends_down_and_has_no_point_above_it(found: list[tuple[float, float]]) -> None:
    hull = upper_hull(found)
    assert (np.diff(hull, axis=0) > 0).all()
    slopes = np.diff(hull[:, 1]) / np.diff(hull[:, 0])
    assert (np.diff(slopes) <= 1e-9 * (1 + np.abs(slopes[1:]))).all()
    for size, score in found:
        assert score <= np.interp(size, hull[:, 0], hull[:, 1]) + 1e-6


@pytest.mark.parametrize("seed", range(60))
def test_the_hull_of_points_far_and_wide_bends_down(seed: int) -> None:
    """As above, with sizes and scores that differ as measured ones do, which drawn examples hardly ever have."""
    random = np.random.default_rng(seed)
    found = list(zip(random.uniform(10, 1e5, 8).tolist(), random.uniform(0, 100, 8).tolist(), strict=True))
    hull = upper_hull(found)
    slopes = np.diff(hull[:, 1]) / np.diff(hull[:, 0])
    assert (np.diff(slopes) < 0).all()
    assert all(score <= np.interp(size, hull[:, 0], hull[:, 1]) + 1e-9 for size, score in found)


def test_bytes_at_a_score_are_read_off_in_a_straight_line() -> None:
    hull = upper_hull(CURVE)
    assert bytes_at(hull, 74.0) == pytest.approx(700.0)
    assert bytes_at(hull, 87.5) == pytest.approx(6000.0)
    assert bytes_at(hull, 69.9) is None
    assert bytes_at(hull, 87.6) is None
    assert bytes_at(upper_hull([]), 50.0) is None


def test_a_score_that_is_just_reached_has_its_bytes() -> None:
    """427 of 500 pictures are two points below 437 of 500, but not as floats: a codec's bytes there were left out."""
    teacher, best = (100.0 * (right / 500) for right in (437, 427))
    assert teacher - 2.0 != best
    hull = upper_hull([(15_000.0, 84.0), (18_615.0, best)])
    assert bytes_at(hull, teacher - 2.0) == pytest.approx(18_615.0)
    below = upper_hull([(200.0, teacher - 2.0), (300.0, 86.0)])
    assert bytes_at(below, best) == pytest.approx(200.0)
