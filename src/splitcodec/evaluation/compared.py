"""Methods against each other, read off their hulls, with intervals.   before: resampled.py   used by: rate.py"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import final

from splitcodec.evaluation.bd import Bd, Delta, Interval, bd_accuracy, bd_rate
from splitcodec.evaluation.hull import Hull, bytes_at, upper_hull
from splitcodec.evaluation.resampled import Resampled
from splitcodec.evaluation.result import OURS, EqualScore, Point

BELOW_TEACHER = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0)


@final
class Compared:
    """The hulls of all points, and what is read off them; methods out of a file of points have no intervals.

    `teacher` is the uncompressed teacher's top-1 in per cent.
    """

    def __init__(self, points: Sequence[Point], resampled: Resampled, *, teacher: float) -> None:
        groups: dict[str, list[Point]] = {}
        for one in points:
            groups.setdefault(one.method, []).append(one)
        self._whole = {name: upper_hull((one.bytes_mean, one.top1) for one in group) for name, group in groups.items()}
        self._bare = {name: _payload_hull(group) for name, group in groups.items()}
        self._resampled = resampled
        self._teacher = teacher

    def against(self, anchor: str) -> dict[str, float | None]:
        """Return every method's BD-rate against one in per cent, without intervals; empty if that has no points."""
        return {name: self._rate(anchor, name).value for name in self._whole if anchor in self._whole}

    def matrix(self, methods: Collection[str]) -> dict[str, dict[str, Delta]]:
        """Return the BD-rate of each of these methods against every other, in the order of the points."""
        return {
            name: {
                other: _within(self._rate(other, name), self._resampled.rate, other, name)
                for other in self._whole
                if other != name
            }
            for name in self._whole
            if name in methods
        }

    def ours(self, rates: dict[str, Delta]) -> dict[str, Bd]:
        """Return ours against every other method, with its row of the matrix, `rates`."""
        found = {}
        for name, rate in rates.items():
            payload = bd_rate(self._bare[name], self._bare[OURS], teacher=self._teacher)
            accuracy = bd_accuracy(self._whole[name], self._whole[OURS])
            found[name] = Bd(
                rate,
                _within(payload, self._resampled.payload, name, OURS),
                _within(accuracy, self._resampled.accuracy, name, OURS),
            )
        return found

    def equal_score(self) -> tuple[EqualScore, ...]:
        """Return the bytes that each hull needs so many points below the teacher."""
        rows = []
        for below in BELOW_TEACHER:
            score = self._teacher - below
            sizes = {name: bytes_at(hull, score) for name, hull in self._whole.items()}
            intervals = {
                name: None if size is None else self._resampled.bytes_at(name, below) for name, size in sizes.items()
            }
            rows.append(EqualScore(below, score, sizes, intervals))
        return tuple(rows)

    def _rate(self, anchor: str, test: str) -> Delta:
        return bd_rate(self._whole[anchor], self._whole[test], teacher=self._teacher)


def _within(found: Delta, interval: Callable[[str, str], Interval | None], anchor: str, test: str) -> Delta:
    """Return a figure with its interval; what is no figure has none."""
    return found if found.value is None else found._replace(interval=interval(anchor, test))


def _payload_hull(points: Sequence[Point]) -> Hull:
    """Return the hull over payloads, of at least one byte; an empty one if any point does not say its payload."""
    payloads = [one.payload_mean for one in points]
    if None in payloads:
        return upper_hull([])
    return upper_hull((max(size or 0.0, 1.0), one.top1) for size, one in zip(payloads, points, strict=True))
