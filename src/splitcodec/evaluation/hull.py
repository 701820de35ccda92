"""Curves of score against bytes: upper hull, bytes at equal score, BD-rate, BD-accuracy.   used by: rate.py

The hull is what a user gets who picks the best setting, and may mix two of them from picture to picture: mixing moves
along the straight line between two points, so the hull is taken, and read, in plain bytes. BD-rate averages in log
bytes, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import MissingExtra

WIDEST, NEAREST = 15.0, 0.5  # points below the teacher between which BD-rate looks
FEWEST = 4  # hull points under which there is no BD-rate
INTERPOLATION = "pchip"  # as JVET does: it passes through the points and never overshoots them, as a hull must not

Hull = NDArray[np.float64]


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
    if len(hull) == 0 or not hull[0, 1] <= score <= hull[-1, 1]:
        return None
    return float(np.interp(score, hull[:, 1], hull[:, 0]))


def bd_rate(anchor: Hull, test: Hull, *, teacher: float) -> float | None:
    """Return how many per cent more bytes `test` needs than `anchor`, on average over equal scores; negative is fewer.

    Bjontegaard (VCEG-M33, 2001) with piecewise cubic interpolation of log bytes over the score, from 15 to 0.5 points
    below the teacher or as much of that as both hulls cover. None where a hull has fewer than 4 points, or no overlap.
    """
    if min(len(anchor), len(test)) < FEWEST:
        return None
    low = max(teacher - WIDEST, anchor[0, 1], test[0, 1])
    high = min(teacher - NEAREST, anchor[-1, 1], test[-1, 1])
    if high - low < 1e-9:
        return None
    curve_anchor, curve_test = _curves(anchor, test, of=_package().bd_rate)
    difference = (curve_test.integrate(low, high) - curve_anchor.integrate(low, high)) / (high - low)
    percent = 100.0 * (10.0 ** float(difference) - 1.0)
    return percent if math.isfinite(percent) else None


def bd_accuracy(anchor: Hull, test: Hull) -> float | None:
    """Return how many points more `test` scores than `anchor`, on average over equal bytes; negative is fewer.

    As `bd_rate`, but piecewise cubic in the score over log bytes, over all the bytes that both hulls cover.
    """
    if min(len(anchor), len(test)) < FEWEST:
        return None
    low, high = (float(np.log10(end)) for end in (max(anchor[0, 0], test[0, 0]), min(anchor[-1, 0], test[-1, 0])))
    if high - low < 1e-9:
        return None
    curve_anchor, curve_test = _curves(anchor, test, of=_package().bd_psnr)
    points = (curve_test.integrate(low, high) - curve_anchor.integrate(low, high)) / (high - low)
    return float(points) if math.isfinite(points) else None


def _package() -> Any:
    try:
        import bjontegaard
    except ModuleNotFoundError as error:
        raise MissingExtra(f"BD-rate needs {error.name}; install it with: pip install 'splitcodec[eval]'") from None
    return bjontegaard


def _curves(anchor: Hull, test: Hull, *, of: Callable[..., Any]) -> tuple[Any, Any]:
    """Return both curves `of` a function of the package, which averages over all the overlap; we may want a part."""
    _, curve_anchor, curve_test = of(
        anchor[:, 0],
        anchor[:, 1],
        test[:, 0],
        test[:, 1],
        method=INTERPOLATION,
        require_matching_points=False,
        interpolators=True,
        min_overlap=0,
    )
    return curve_anchor, curve_test


def _turns_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Say whether b lies on or under the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])
