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
