"""BD-rate and BD-accuracy: one curve against another, on average.   before: hull.py   used by: compared.py

Bjontegaard (VCEG-M33, 2001), with log bytes. Curves of four or more points are interpolated by PCHIP, as JVET does: it
passes through the points and never overshoots them, as a hull must not. Fewer points say nothing of a curve between
them, so both curves are then straight lines from point to point; of one point there is no curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import MissingExtra
from splitcodec.evaluation.hull import Hull

WIDEST, NEAREST = 15.0, 0.5  # points below the teacher between which BD-rate looks
FEWEST = 4  # hull points for piecewise cubic curves; fewer are joined by straight lines

Method = Literal["pchip", "linear"]
Interval = tuple[float, float]  # ends of the middle 95 % of what resampled photographs give (`resampled.py`)


class Delta(NamedTuple):
    """One curve against another: per cent or points, by which curves; or None, and why."""

    value: float | None
    method: Method | None = None
    span: tuple[float, float] | None = None
    """The scores (per cent) or bytes over which it is the average."""
    reason: str | None = None
    """Why there is none."""
    interval: Interval | None = None
    """Ends of its 95 % interval, in its unit."""


class Bd(NamedTuple):
    """Ours against one method: bytes at equal score, payload at equal score, and score at equal bytes."""

    rate: Delta
    payload: Delta
    accuracy: Delta


def bd_rate(anchor: Hull, test: Hull, *, teacher: float) -> Delta:
    """Return how many per cent more bytes `test` needs than `anchor`, on average over equal scores; negative is fewer.

    From 15 to 0.5 points below the teacher, or as much of that as both hulls cover.
    """
    if (lacks := _too_few(anchor, test)) is not None:
        return Delta(None, reason=lacks)
    low = max(teacher - WIDEST, anchor[0, 1], test[0, 1])
    high = min(teacher - NEAREST, anchor[-1, 1], test[-1, 1])
    if high - low < 1e-9:
        spans = " and ".join(f"{hull[0, 1]:.1f} to {hull[-1, 1]:.1f} %" for hull in (test, anchor))
        reason = f"no common scores from {teacher - WIDEST:.1f} to {teacher - NEAREST:.1f} %: {spans}"
        return Delta(None, reason=reason)
    method, mean = _mean(anchor[:, ::-1], test[:, ::-1], low=low, high=high, of="bd_rate")
    return Delta(100.0 * (10.0**mean - 1.0), method, (low, high))


def bd_accuracy(anchor: Hull, test: Hull) -> Delta:
    """Return how many points more `test` scores than `anchor`, on average over equal bytes; negative is fewer.

    As `bd_rate`, but the score over log bytes, over all the bytes that both hulls cover.
    """
    if (lacks := _too_few(anchor, test)) is not None:
        return Delta(None, reason=lacks)
    low, high = max(anchor[0, 0], test[0, 0]), min(anchor[-1, 0], test[-1, 0])
    if math.log10(high / low) < 1e-9:
        spans = " and ".join(f"{hull[0, 0]:,.0f} to {hull[-1, 0]:,.0f} bytes" for hull in (test, anchor))
        return Delta(None, reason=f"no common bytes: {spans}")
    method, mean = _mean(anchor, test, low=math.log10(low), high=math.log10(high), of="bd_psnr")
    return Delta(mean, method, (low, high))


def curves_package() -> Any:
    """Return the package of curves; who measures for hours asks for it first. Raises MissingExtra."""
    try:
        import bjontegaard
    except ModuleNotFoundError as error:
        raise MissingExtra(f"BD-rate needs {error.name}; install it with: pip install 'splitcodec[eval]'") from None
    return bjontegaard


def _too_few(anchor: Hull, test: Hull) -> str | None:
    for hull in (test, anchor):
        if len(hull) == 0:
            return "sizes are not known"
        if len(hull) == 1:
            return f"one point alone ({hull[0, 1]:.1f} % at {hull[0, 0]:,.0f} bytes) is no curve"
    return None


def _mean(
    anchor: NDArray[np.float64], test: NDArray[np.float64], *, low: float, high: float, of: str
) -> tuple[Method, float]:
    """Return the mean difference of two curves from low to high, and how they were interpolated."""
    if min(len(anchor), len(test)) >= FEWEST:
        curve_anchor, curve_test = _curves(anchor, test, of=of)
        return "pchip", float(curve_test.integrate(low, high) - curve_anchor.integrate(low, high)) / (high - low)
    # columns: bytes at equal score comes as (score, bytes), score at equal bytes as (bytes, score)
    (x_a, y_a), (x_t, y_t) = (_logged(points, rate=of == "bd_rate") for points in (anchor, test))
    knots = np.unique(np.concatenate(([low, high], x_a, x_t)).clip(low, high))
    gap = np.interp(knots, x_t, y_t) - np.interp(knots, x_a, y_a)
    return "linear", float(np.trapezoid(gap, knots)) / (high - low)


def _logged(points: NDArray[np.float64], *, rate: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = points[:, 0], points[:, 1]
    return (x, np.log10(y)) if rate else (np.log10(x), y)


def _curves(anchor: NDArray[np.float64], test: NDArray[np.float64], *, of: str) -> tuple[Any, Any]:
    """Return both curves of the package, which itself averages over all the overlap; we may want a part."""
    call: Callable[..., Any] = getattr(curves_package(), of)
    size, score = (1, 0) if of == "bd_rate" else (0, 1)
    _, curve_anchor, curve_test = call(
        anchor[:, size],
        anchor[:, score],
        test[:, size],
        test[:, score],
        method="pchip",
        require_matching_points=False,
        interpolators=True,
        min_overlap=0,
    )
    return curve_anchor, curve_test
