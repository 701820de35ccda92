"""Photographs drawn again: intervals of what is read off hulls.   before: measured.py, bd.py   used by: compared.py

A draw takes as many photographs as there are, with replacement, and the same ones for the teacher and every setting of
every method, so a comparison stays paired (Efron and Tibshirani 1993, section 13.3). Scores and bytes of a draw are its
means, and hulls, curves and the scores that they are compared at (points below the draw's own teacher) follow from
these as from the photographs themselves. The middle 95 % of what the draws give is the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from splitcodec.evaluation.bd import Interval, bd_accuracy, bd_rate
from splitcodec.evaluation.hull import Hull, bytes_at, upper_hull
from splitcodec.evaluation.paired import SEED

DRAWS = 1_000
MOST_LACKING = 0.05  # share of the draws that may give no figure; of more than that there is no interval
_AT_ONCE = 50  # draws whose counts of photographs are held in memory together


@final
class Resampled:
    """The hulls of every method in every draw, and the intervals of what is read off them.

    `right_ns` says whether each of N photographs was read right at each of S settings, `bytes_ns` its bytes,
    `teacher_n` whether the uncompressed teacher read it right; a setting's bytes are payload but for `floors`. None is
    returned for a method that has no settings here, where more than 5 % of the draws give no figure, and of bytes where
    an end lies beyond the hull.
    """

    def __init__(
        self,
        right_ns: NDArray[np.bool_],
        bytes_ns: NDArray[np.int64],
        teacher_n: NDArray[np.bool_],
        *,
        methods: Sequence[str],
        floors: Sequence[int],
    ) -> None:
        images = len(teacher_n)
        payload_ns = bytes_ns - np.asarray(floors, dtype=np.int64)
        settings = len(methods)
        sums_rk = _sums(np.column_stack([right_ns, bytes_ns, payload_ns, teacher_n]).astype(np.float64))
        right_rs, bytes_rs, payload_rs = (sums_rk[:, k * settings : (k + 1) * settings] / images for k in range(3))
        self._teacher_r = (100.0 * sums_rk[:, -1] / images).tolist()
        self._whole = _hulls(bytes_rs, 100.0 * right_rs, methods)
        self._bare = _hulls(payload_rs.clip(min=1.0), 100.0 * right_rs, methods)

    def rate(self, anchor: str, test: str) -> Interval | None:
        """Return the interval of `bd_rate` in per cent."""
        return self._rate(self._whole, anchor, test)

    def payload(self, anchor: str, test: str) -> Interval | None:
        """Return the interval of `bd_rate` over payloads in per cent."""
        return self._rate(self._bare, anchor, test)

    def accuracy(self, anchor: str, test: str) -> Interval | None:
        """Return the interval of `bd_accuracy` in points."""
        if not {anchor, test} <= self._whole.keys():
            return None
        pairs = zip(self._whole[anchor], self._whole[test], strict=True)
        return _interval([bd_accuracy(theirs, ours).value for theirs, ours in pairs])

    def bytes_at(self, method: str, below_teacher: float) -> Interval | None:
        """Return the interval of the bytes that the hull needs so many points below the teacher.

        A draw whose hull ends below that score needs more than all others, not nothing; None where an end is such.
        """
        if method not in self._whole:
            return None
        pairs = zip(self._whole[method], self._teacher_r, strict=True)
        sizes = [_size(hull, teacher - below_teacher) for hull, teacher in pairs]
        with np.errstate(invalid="ignore"):  # between two that are not finite
            low, high = np.percentile(sizes, (2.5, 97.5))
        return (float(low), float(high)) if np.isfinite([low, high]).all() else None

    def _rate(self, hulls: dict[str, list[Hull]], anchor: str, test: str) -> Interval | None:
        if not {anchor, test} <= hulls.keys():
            return None
        rows = zip(hulls[anchor], hulls[test], self._teacher_r, strict=True)
        return _interval([bd_rate(theirs, ours, teacher=teacher).value for theirs, ours, teacher in rows])


def _sums(values_nk: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums over each draw's photographs, float64 (draws, K): exact, for all values are integers."""
    random, images = np.random.default_rng(SEED), len(values_nk)
    sums = []
    for start in range(0, DRAWS, _AT_ONCE):
        count_rn = random.multinomial(images, np.full(images, 1 / images), size=min(_AT_ONCE, DRAWS - start))
        sums.append(count_rn.astype(np.float64) @ values_nk)
    return np.concatenate(sums)


def _hulls(
    bytes_rs: NDArray[np.float64], top1_rs: NDArray[np.float64], methods: Sequence[str]
) -> dict[str, list[Hull]]:
    """Return per method its upper hull in each draw."""
    found = {}
    for method in dict.fromkeys(methods):
        columns = [s for s, name in enumerate(methods) if name == method]
        rows = zip(bytes_rs[:, columns].tolist(), top1_rs[:, columns].tolist(), strict=True)
        found[method] = [upper_hull(zip(sizes, scores, strict=True)) for sizes, scores in rows]
    return found


def _size(hull: Hull, score: float) -> float:
    """Return the bytes at a score; infinitely many, or few, where the hull ends below or begins above it."""
    size = bytes_at(hull, score)
    return size if size is not None else float("inf") if score > hull[-1, 1] else float("-inf")


def _interval(values: Sequence[float | None]) -> Interval | None:
    """Return the ends of the middle 95 % of the draws' figures; None where more than 5 % of the draws have none."""
    known = [value for value in values if value is not None]
    if len(values) - len(known) > MOST_LACKING * len(values):
        return None
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)
