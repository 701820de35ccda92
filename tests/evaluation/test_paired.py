from __future__ import annotations

import numpy as np
import pytest

from splitcodec.evaluation.paired import difference


def test_equal_answers_differ_by_nothing_for_certain() -> None:
    right = np.array([True, False, True, True])
    assert difference(right, right) == (0.0, 0.0, 0.0)


def test_the_interval_is_that_of_the_paired_difference() -> None:
    random = np.random.default_rng(0)
    teacher = random.random(2000) < 0.88
    ours = teacher & (random.random(2000) < 0.97)
    gap = difference(ours, teacher)
    assert gap.top1 == pytest.approx(100 * (ours.mean() - teacher.mean()))
    spread = 100 * (ours.astype(float) - teacher.astype(float)).std() / np.sqrt(2000)
    assert gap.low == pytest.approx(gap.top1 - 1.96 * spread, abs=0.1)
    assert gap.high == pytest.approx(gap.top1 + 1.96 * spread, abs=0.1)
    assert difference(teacher, ours).top1 == pytest.approx(-gap.top1)
    assert difference(ours, teacher) == gap


def test_the_interval_is_the_middle_95_per_cent() -> None:
    """Of so many pictures that a step is nothing: the middle 90 % would be a sixth narrower."""
    images = 400_000
    ours, theirs = np.zeros(images, bool), np.zeros(images, bool)
    ours[:30_000], theirs[30_000:40_000] = True, True  # better at 30,000 of them, worse at 10,000
    gap = difference(ours, theirs)
    spread = 100 * np.sqrt((0.1 - 0.05**2) / images)
    assert gap.top1 == pytest.approx(5.0)
    assert gap.low == pytest.approx(5.0 - 1.96 * spread, abs=0.08 * spread)
    assert gap.high == pytest.approx(5.0 + 1.96 * spread, abs=0.08 * spread)
