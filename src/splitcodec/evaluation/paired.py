"""Paired bootstrap intervals for differences in top-1.   used by: measured.py

Two methods read the same pictures, so their difference varies less than either score; the pictures are drawn again,
10,000 times, and the middle 95 % of the differences are the interval (Efron and Tibshirani 1993, section 13.3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
SEED = 20_010


class Difference(NamedTuple):
    """A difference in top-1, a minus b, in points, and the ends of its 95 % interval."""

    top1: float
    low: float
    high: float


def difference(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> Difference:
    """Return the difference between two methods from whether each got each picture right, bool (images,) both.

    A picture adds +1, -1 or 0, so drawing pictures with replacement is one multinomial draw of these three counts.
    """
    images = len(right_a)
    better = int(np.count_nonzero(right_a & ~right_b))
    worse = int(np.count_nonzero(~right_a & right_b))
    shares = np.array([better, worse, images - better - worse], dtype=np.float64) / images
    count_r3 = np.random.default_rng(SEED).multinomial(images, shares, size=RESAMPLES)
    low, high = np.percentile(100.0 * (count_r3[:, 0] - count_r3[:, 1]) / images, (2.5, 97.5))
    return Difference(100.0 * (better - worse) / images, float(low), float(high))
