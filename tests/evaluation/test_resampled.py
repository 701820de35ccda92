from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from splitcodec.evaluation.bd import Interval
from splitcodec.evaluation.compared import Compared
from splitcodec.evaluation.hull import bytes_at
from splitcodec.evaluation.resampled import Resampled, _interval
from splitcodec.evaluation.result import OURS, Point

IMAGES = 400
CURVE = [(500, 0.70), (900, 0.78), (1600, 0.83), (3000, 0.86), (6000, 0.875)]  # mean bytes, share read right
TOP = 0.88


class Columns(NamedTuple):
    """One method: right and bytes of each photograph at each setting, (images, settings)."""

    right_ns: NDArray[np.bool_]
    bytes_ns: NDArray[np.int64]


def _columns(curve: list[tuple[int, float]], *, seed: int) -> Columns:
    """Return settings of those means, whose photographs differ in difficulty and bytes, bytes even."""
    random = np.random.default_rng(seed)
    difficulty_n = np.random.default_rng(0).random(IMAGES)  # of a photograph, for all methods
    rights, sizes = [], []
    for size, share in curve:
        rights.append(difficulty_n + random.normal(0, 0.05, IMAGES) < share)
        sizes.append(2 * np.rint(size * random.lognormal(0, 0.3, IMAGES) / 2).astype(np.int64))
    return Columns(np.stack(rights, axis=1), np.stack(sizes, axis=1))


def _compared(methods: dict[str, Columns], *, foreign: tuple[Point, ...] = (), floor: int = 0) -> Compared:
    right_ns = np.concatenate([one.right_ns for one in methods.values()], axis=1)
    bytes_ns = np.concatenate([one.bytes_ns for one in methods.values()], axis=1)
    names = [name for name, one in methods.items() for _ in range(one.right_ns.shape[1])]
    teacher_n = np.random.default_rng(0).random(IMAGES) < TOP
    points = [
        Point(name, f"{s}", size, 100 * share, None, payload_mean=size - floor)
        for s, (name, size, share) in enumerate(
            zip(names, bytes_ns.mean(axis=0).tolist(), right_ns.mean(axis=0).tolist(), strict=True)
        )
    ]
    resampled = Resampled(right_ns, bytes_ns, teacher_n, methods=names, floors=[floor] * len(names))
    return Compared([*points, *foreign], resampled, teacher=100 * float(teacher_n.mean()))


def _ends(interval: Interval | None) -> Interval:
    assert interval is not None
    return interval


def test_half_the_bytes_is_half_the_bytes_in_every_draw() -> None:
    """Each draw takes the same photographs for both, or the ends would lie apart."""
    jpeg = _columns(CURVE, seed=1)
    ours = Columns(jpeg.right_ns, jpeg.bytes_ns // 2)
    compared = _compared({OURS: ours, "jpeg": jpeg})
    matrix = compared.matrix([OURS, "jpeg"])
    assert matrix[OURS]["jpeg"].value == pytest.approx(-50)
    assert matrix[OURS]["jpeg"].interval == pytest.approx((-50, -50))
    assert matrix["jpeg"][OURS].interval == pytest.approx((100, 100))
    found = compared.ours(matrix[OURS])["jpeg"]
    assert found.rate == matrix[OURS]["jpeg"]
    assert found.payload.interval == pytest.approx((-50, -50))
    for row in compared.equal_score():
        if row.interval_of["jpeg"] is not None:
            assert row.interval_of[OURS] == pytest.approx(tuple(end / 2 for end in row.interval_of["jpeg"]))
    assert any(row.interval_of["jpeg"] is not None for row in compared.equal_score())


def test_a_method_against_itself_differs_by_nothing_for_certain() -> None:
    same = _columns(CURVE, seed=1)
    compared = _compared({OURS: same, "twin": same})
    found = compared.ours(compared.matrix([OURS])[OURS])["twin"]
    for delta in found:
        assert delta.value == pytest.approx(0, abs=1e-9)
        assert delta.interval == pytest.approx((0, 0), abs=1e-9)


def test_the_interval_lies_around_the_figure_and_is_the_same_again() -> None:
    ours, jpeg = _columns(CURVE, seed=1), _columns([(5 * size, share) for size, share in CURVE], seed=2)
    compared = _compared({OURS: ours, "jpeg": jpeg}, floor=12)
    found = compared.ours(compared.matrix([OURS])[OURS])["jpeg"]
    for delta in found:
        low, high = _ends(delta.interval)
        assert delta.value is not None
        assert low < delta.value < high
    assert _ends(found.rate.interval) != _ends(found.payload.interval)
    assert _ends(found.rate.interval)[1] < -70
    for row in compared.equal_score():
        for method, interval in row.interval_of.items():
            size = row.bytes_of[method]
            assert interval is None or (size is not None and interval[0] < size < interval[1])
    again = _compared({OURS: ours, "jpeg": jpeg}, floor=12)
    assert again.matrix([OURS]) == compared.matrix([OURS])


def test_the_interval_is_as_wide_as_chance_makes_it() -> None:
    """What other photographs of the same kind need on average falls into the interval about as often as it should."""
    random = np.random.default_rng(5)
    truth, inside, runs = 1000.0, 0, 40
    teacher_n = np.ones(200, dtype=np.bool_)
    for _ in range(runs):
        right_ns = np.stack([np.zeros(200, np.bool_), np.ones(200, np.bool_)], axis=1)
        sizes_n = random.normal(truth, 300, 200).astype(np.int64)
        bytes_ns = np.stack([sizes_n // 10, sizes_n], axis=1)
        made = Resampled(right_ns, bytes_ns, teacher_n, methods=["it", "it"], floors=[0, 0])
        low, high = _ends(made.bytes_at("it", 0.0))
        assert high - low == pytest.approx(2 * 1.96 * 300 / np.sqrt(200), rel=0.3)
        inside += low <= truth <= high
    assert inside >= 0.8 * runs


def test_where_there_is_no_figure_there_is_no_interval() -> None:
    ours = _columns(CURVE, seed=1)
    far = _columns([(9000, 0.1), (9900, 0.15), (12000, 0.2), (15000, 0.22)], seed=2)
    compared = _compared({OURS: ours, "far": far})
    found = compared.ours(compared.matrix([OURS])[OURS])["far"]
    assert all(delta.value is None and delta.interval is None for delta in found)
    assert all(row.interval_of["far"] is None for row in compared.equal_score())


def test_a_figure_that_many_draws_lack_has_no_interval() -> None:
    ours = _columns(CURVE, seed=1)
    compared = _compared({OURS: ours})
    reached = {row.below_teacher: (row.bytes_of[OURS], row.interval_of[OURS]) for row in compared.equal_score()}
    size, interval = reached[1.0]  # the hull ends about half a point below the teacher
    assert size is not None
    assert interval is None
    assert None not in reached[6.0]


def test_draws_that_do_not_reach_a_score_need_more_bytes_than_the_others() -> None:
    """They were left out, so that 95 % intervals ended too low where up to a twentieth of the draws did not reach."""
    images, random = 400, np.random.default_rng(2)
    right_ns = np.stack([np.arange(images) < share * images for share in (0.6, 0.83)], axis=1)
    bytes_ns = np.stack([random.integers(900, 1100, images), random.integers(1900, 2100, images)], axis=1)
    made = Resampled(right_ns, bytes_ns, np.ones(images, np.bool_), methods=["it", "it"], floors=[0, 0])
    lacking = {below: sum(hull[-1, 1] < 100 - below for hull in made._whole["it"]) for below in (20.4, 22.5)}
    assert 25 < lacking[20.4] <= 50
    assert made.bytes_at("it", 20.4) is None
    assert 0 < lacking[22.5] < 25
    low, high = _ends(made.bytes_at("it", 22.5))
    sizes = [bytes_at(hull, 77.5) for hull in made._whole["it"]]
    known = [size for size in sizes if size is not None]
    assert low == pytest.approx(np.percentile(known, 2.5), rel=0.01)
    assert high > np.percentile(known, 97.5)


def test_the_interval_is_the_middle_95_per_cent_of_the_draws() -> None:
    draws: list[float | None] = [float(k) for k in np.random.default_rng(0).permutation(1001)]
    assert _interval(draws) == pytest.approx((25.0, 975.0))


def test_a_twentieth_of_the_draws_may_lack_a_figure() -> None:
    known: list[float | None] = [1.0] * 950
    assert _interval([*known, *[None] * 50]) == (1.0, 1.0)
    assert _interval([*known[1:], *[None] * 51]) is None


def test_scores_of_a_draw_are_held_against_its_own_teacher() -> None:
    """Who reads what the teacher reads reaches it in every draw; against its mean, in half of them."""
    teacher_n = np.arange(300) < 240
    right_ns = np.stack([np.zeros(300, np.bool_), teacher_n], axis=1)
    bytes_ns = np.tile(np.array([100, 1000]), (300, 1))
    made = Resampled(right_ns, bytes_ns, teacher_n, methods=["it", "it"], floors=[0, 0])
    assert made.bytes_at("it", 0.0) == pytest.approx((1000, 1000))


def test_methods_of_which_only_means_are_known_have_no_interval() -> None:
    foreign = tuple(
        Point("paper", f"beta {k}", 4.0 * size, 100 * share, None, payload_mean=4.0 * size)
        for k, (size, share) in enumerate(CURVE)
    )
    compared = _compared({OURS: _columns(CURVE, seed=1)}, foreign=foreign)
    matrix = compared.matrix([OURS, "paper"])
    found = compared.ours(matrix[OURS])["paper"]
    assert all(delta.value is not None and delta.interval is None for delta in found)
    assert matrix["paper"][OURS].interval is None
    row = next(row for row in compared.equal_score() if row.below_teacher == 6.0)
    assert row.bytes_of["paper"] is not None
    assert row.interval_of["paper"] is None


def test_every_method_against_one_or_none() -> None:
    jpeg = _columns(CURVE, seed=1)
    compared = _compared({OURS: Columns(jpeg.right_ns, jpeg.bytes_ns // 2), "jpeg": jpeg})
    assert compared.against("jpeg") == pytest.approx({OURS: -50.0, "jpeg": 0.0})
    assert compared.against("hevc") == {}
