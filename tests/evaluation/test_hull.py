from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitcodec.evaluation.hull import bd_accuracy, bd_rate, bytes_at, upper_hull

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


def test_bytes_at_a_score_are_read_off_in_a_straight_line() -> None:
    hull = upper_hull(CURVE)
    assert bytes_at(hull, 74.0) == pytest.approx(700.0)
    assert bytes_at(hull, 87.5) == pytest.approx(6000.0)
    assert bytes_at(hull, 69.9) is None
    assert bytes_at(hull, 87.6) is None
    assert bytes_at(upper_hull([]), 50.0) is None


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_a_curve_of_a_fixed_ratio_of_bytes_has_that_bd_rate(factor: float) -> None:
    other = [(factor * size, score) for size, score in CURVE]
    rate = bd_rate(upper_hull(CURVE), upper_hull(other), teacher=88.0)
    assert rate == pytest.approx(100 * (factor - 1))


def test_bd_rate_looks_no_further_than_15_to_half_a_point_below_the_teacher() -> None:
    ours = [(size / 2, score) for size, score in CURVE]
    ours[0] = (1.0, 70.0)  # far cheaper, but 30 points below this teacher
    inside = bd_rate(upper_hull(CURVE), upper_hull(ours), teacher=100.0)
    whole = bd_rate(upper_hull(CURVE), upper_hull(ours), teacher=85.0)
    assert inside is not None
    assert whole is not None
    assert -60 < inside < -45
    assert whole < inside


def test_a_curve_so_many_points_higher_has_that_bd_accuracy() -> None:
    higher = [(size, score + 3) for size, score in CURVE]
    assert bd_accuracy(upper_hull(CURVE), upper_hull(higher)) == pytest.approx(3.0)
    assert bd_accuracy(upper_hull(higher), upper_hull(CURVE)) == pytest.approx(-3.0)
    assert bd_accuracy(upper_hull(CURVE), upper_hull(CURVE)[:3]) is None
    assert bd_accuracy(upper_hull(CURVE), upper_hull([(100 * size, score) for size, score in CURVE])) is None


def test_there_is_no_bd_rate_from_three_points_nor_without_overlap() -> None:
    hull = upper_hull(CURVE)
    assert bd_rate(hull, hull[:3], teacher=88.0) is None
    assert bd_rate(hull[:3], hull, teacher=88.0) is None
    below = upper_hull([(size, score - 40) for size, score in CURVE])
    assert bd_rate(hull, below, teacher=88.0) is None
    assert bd_rate(hull, hull, teacher=70.0) is None
    assert math.isclose(bd_rate(hull, hull, teacher=88.0) or 0.0, 0.0, abs_tol=1e-9)
