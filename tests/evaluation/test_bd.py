from __future__ import annotations

import numpy as np
import pytest

from splitcodec.evaluation.bd import bd_accuracy, bd_rate
from splitcodec.evaluation.hull import upper_hull

CURVE = [(500.0, 70.0), (900.0, 78.0), (1600.0, 83.0), (3000.0, 86.0), (6000.0, 87.5)]


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_a_curve_of_a_fixed_ratio_of_bytes_has_that_bd_rate(factor: float) -> None:
    other = [(factor * size, score) for size, score in CURVE]
    rate = bd_rate(upper_hull(CURVE), upper_hull(other), teacher=88.0)
    assert rate.value == pytest.approx(100 * (factor - 1))
    assert (rate.method, rate.span) == ("pchip", (73.0, 87.5))
    assert bd_rate(upper_hull(CURVE), upper_hull(other[-4:]), teacher=88.0).method == "pchip"


def test_bd_rate_looks_no_further_than_15_to_half_a_point_below_the_teacher() -> None:
    ours = [(size / 2, score) for size, score in CURVE]
    ours[0] = (1.0, 70.0)  # far cheaper, but 30 points below this teacher
    inside = bd_rate(upper_hull(CURVE), upper_hull(ours), teacher=100.0).value
    whole = bd_rate(upper_hull(CURVE), upper_hull(ours), teacher=85.0).value
    assert inside is not None
    assert whole is not None
    assert -60 < inside < -45
    assert whole < inside


def test_a_curve_so_many_points_higher_has_that_bd_accuracy() -> None:
    higher = [(size, score + 3) for size, score in CURVE]
    assert bd_accuracy(upper_hull(CURVE), upper_hull(higher)).value == pytest.approx(3.0)
    assert bd_accuracy(upper_hull(higher), upper_hull(CURVE)).value == pytest.approx(-3.0)
    hull = upper_hull(CURVE)
    for factor, span in ((0.5, (500.0, 3000.0)), (2.0, (1000.0, 6000.0))):  # bytes that both have
        assert bd_accuracy(hull, hull * [factor, 1.0]).span == span


@pytest.mark.parametrize("few", [2, 3])
def test_few_points_are_joined_by_straight_lines(few: int) -> None:
    hull = upper_hull(CURVE)
    some = hull[-few:] * [0.5, 1.0]
    rate = bd_rate(some, some * [0.8, 1.0], teacher=88.0)
    assert rate.value == pytest.approx(-20.0)
    assert (rate.method, rate.span) == ("linear", (some[0, 1], 87.5))
    assert bd_rate(hull, some, teacher=88.0).method == bd_rate(some, hull, teacher=88.0).method == "linear"
    gain = bd_accuracy(some, some + np.array([0.0, 1.5]))
    assert gain.value == pytest.approx(1.5)
    assert gain.span == (some[0, 0], some[-1, 0])


def test_straight_lines_give_the_area_between_them() -> None:
    anchor, test = np.array([[100.0, 70.0], [1000.0, 80.0]]), np.array([[100.0, 72.0], [1000.0, 76.0]])
    rate = bd_rate(anchor, test, teacher=80.0)
    # log bytes at 72: 2.2 and 2; at 76: 2.6 and 3; on average 0.1 more
    assert rate.value == pytest.approx(100 * (10**0.1 - 1))
    assert bd_accuracy(anchor, test).value == pytest.approx((2 - 4) / 2)


def test_straight_lines_bend_at_the_points_of_either_curve() -> None:
    anchor = np.array([[100.0, 70.0], [1000.0, 80.0]])
    test = np.array([[100.0, 70.0], [10**2.5, 78.0], [1000.0, 80.0]])
    # areas under log bytes from 70 to 80: 25, and 8 * 2.25 + 2 * 2.75; under the score over log bytes: 75 and 76.5
    assert bd_rate(anchor, test, teacher=85.0).value == pytest.approx(100 * (10**-0.15 - 1))
    assert bd_rate(test, anchor, teacher=85.0).value == pytest.approx(100 * (10**0.15 - 1))
    assert bd_accuracy(anchor, test).value == pytest.approx(1.5)
    assert bd_accuracy(test, anchor).value == pytest.approx(-1.5)


def test_where_there_is_no_difference_to_tell_the_reason_is_told() -> None:
    hull = upper_hull(CURVE)
    below = bd_rate(hull, upper_hull([(size, score - 40) for size, score in CURVE]), teacher=88.0)
    assert below.value is None
    assert below.reason == "no common scores from 73.0 to 87.5 %: 30.0 to 47.5 % and 70.0 to 87.5 %"
    assert bd_rate(hull, hull, teacher=70.0).value is None  # all of it above the scores that are looked at
    assert bd_rate(hull, hull[:1], teacher=88.0).reason == "one point alone (70.0 % at 500 bytes) is no curve"
    assert bd_rate(hull[:0], hull, teacher=88.0).reason == "sizes are not known"
    assert bd_accuracy(hull[:1], hull).reason == "one point alone (70.0 % at 500 bytes) is no curve"
    far = bd_accuracy(hull, hull * [100.0, 1.0])
    assert (far.value, far.reason) == (None, "no common bytes: 50,000 to 600,000 bytes and 500 to 6,000 bytes")
    assert bd_rate(hull, hull, teacher=88.0).value == pytest.approx(0.0, abs=1e-9)
