"""Curves of score against bytes: upper hull, bytes at equal score.   used by: bd.py, compared.py and all that draws

The hull is what a user gets who picks the best setting, and may mix two of them from picture to picture: mixing moves
along the straight line between two points, so the hull is taken, and read, in plain bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Hull = NDArray[np.float64]
_TIE = 1e-9  # points of score; shares of pictures that are equal, and their differences, need not be so as floats


def upper_hull(points: Iterable[tuple[float, float]]) -> Hull:
    """Return the upper convex hull of (bytes, score) points, float64 (N, 2): both columns strictly increase.

    Settings that cost more than another and score no better are not on it.
    """
    kept: list[tuple[float, float]] = []
    for size, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if kept and score <= kept[-1][1]:
            continue
        while len(kept) >= 2 and _turns_up(kept[-2], kept[-1], (size, score)):
            kept.pop()
        kept.append((size, score))
    return np.array(kept, dtype=np.float64).reshape(-1, 2)


def bytes_at(hull: Hull, score: float) -> float | None:
    """Return the bytes that the hull needs for a score, by linear interpolation; None where it does not reach."""
    if len(hull) == 0 or not hull[0, 1] - _TIE <= score <= hull[-1, 1] + _TIE:
        return None
    return float(np.interp(score, hull[:, 1], hull[:, 0]))


def _turns_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Say whether b lies on or under the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])
