"""All pictures together: a point per setting, overhead, differences with their intervals.   used by: rate.py"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import final

import numpy as np

from splitcodec.evaluation.bench import Read
from splitcodec.evaluation.hull import upper_hull
from splitcodec.evaluation.paired import difference
from splitcodec.evaluation.result import OURS, TEACHER, Contrast, Point
from splitcodec.evaluation.sweep import Setting


@final
class Measured:
    """All pictures together: points, overhead, and differences with their intervals."""

    def __init__(
        self,
        settings: Sequence[Setting],
        reads: Sequence[Read],
        encode_ms: Sequence[float],
        *,
        floors: Sequence[int],
        crop: int,
    ) -> None:
        self._settings = settings
        self._floors = floors
        self._crop = crop
        self._encode_ms = encode_ms
        self._teacher_n = np.array([one.teacher for one in reads])
        self._right_ns = np.stack([one.right_s for one in reads])
        self._bytes_s = np.stack([one.bytes_s for one in reads]).mean(axis=0)
        self._overhead_l = np.stack([one.overhead_l for one in reads]).mean(axis=0)
        self.teacher_top1 = 100.0 * float(self._teacher_n.mean())

    def points(self) -> list[Point]:
        """Return one point per setting."""
        points = []
        for s, setting in enumerate(self._settings):
            gap = difference(self._right_ns[:, s], self._teacher_n)
            size = float(self._bytes_s[s])
            point = Point(
                setting.method,
                setting.words,
                size,
                self._top1(s),
                self._encode_ms[s],
                (gap.low, gap.high),
                payload_mean=size - self._floors[s],
                resolution=setting.side or self._crop,
            )
            points.append(point)
        return points

    def overhead(self) -> list[float]:
        """Return the mean of packet bytes minus ideal code length, per level."""
        return [float(extra) for extra in self._overhead_l]

    def contrasts(self) -> list[Contrast]:
        """Return every level against the teacher, and against the nearest in bytes of what is on each other's hull."""
        levels = [s for s, setting in enumerate(self._settings) if setting.method == OURS]
        rivals = [s for s, setting in enumerate(self._settings) if setting.method != OURS]
        best = [self._on_hull(list(group)) for _, group in itertools.groupby(rivals, key=self._method)]
        found = []
        for s in levels:
            gap = difference(self._right_ns[:, s], self._teacher_n)
            found.append(Contrast(self._name(s), TEACHER, float(self._bytes_s[s]), None, *gap))
            for group in best:
                r = min(group, key=lambda one: abs(np.log(self._bytes_s[one] / self._bytes_s[s])))
                gap = difference(self._right_ns[:, s], self._right_ns[:, r])
                sizes = float(self._bytes_s[s]), float(self._bytes_s[r])
                found.append(Contrast(self._name(s), self._name(r), *sizes, *gap, method_b=self._method(r)))
        return found

    def _on_hull(self, group: Sequence[int]) -> list[int]:
        points = {(float(self._bytes_s[s]), self._top1(s)): s for s in group}
        return [points[size, top1] for size, top1 in upper_hull(points).tolist()]

    def _top1(self, s: int) -> float:
        return 100.0 * float(self._right_ns[:, s].mean())

    def _method(self, s: int) -> str:
        return self._settings[s].method

    def _name(self, s: int) -> str:
        return f"{self._settings[s].method} {self._settings[s].words}"
