"""All pictures together: a point per setting, overhead, differences with their intervals.   used by: rate.py"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import final

import numpy as np

from splitcodec.evaluation.bench import Read
from splitcodec.evaluation.hull import upper_hull
from splitcodec.evaluation.paired import difference
from splitcodec.evaluation.resampled import Resampled
from splitcodec.evaluation.result import OURS, TEACHER, Contrast, Point
from splitcodec.evaluation.rivals import Entrant
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
        self._bytes_ns = np.stack([one.bytes_s for one in reads])
        self._bytes_s = self._bytes_ns.mean(axis=0)
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

    def resampled(self) -> Resampled:
        """Return the photographs drawn again, a thousand times."""
        methods = [setting.method for setting in self._settings]
        return Resampled(self._right_ns, self._bytes_ns, self._teacher_n, methods=methods, floors=self._floors)

    def contrasts(self) -> list[Contrast]:
        """Return every level against the teacher, and against the nearest in bytes of what is on each other's hull."""
        levels = [s for s, setting in enumerate(self._settings) if setting.method == OURS]
        best = self._best([s for s, setting in enumerate(self._settings) if setting.method != OURS])
        found = []
        for s in levels:
            gap = difference(self._right_ns[:, s], self._teacher_n)
            found.append(Contrast(self._name(s), TEACHER, float(self._bytes_s[s]), None, *gap))
            found += [self._nearest(s, group) for group in best]
        return found

    def contrasts_of_kin(self) -> list[Contrast]:
        """Return every level of our other bundles against the nearest in bytes on the hull of what is not ours."""
        sources = enumerate(setting.source for setting in self._settings)
        ours = [s for s, source in sources if isinstance(source, Entrant) and source.ours]
        best = self._best([s for s in range(len(self._settings)) if s not in ours])
        kin = [s for s in ours if self._method(s) != OURS]
        return [self._nearest(s, group) for s in kin for group in best]

    def _best(self, settings: Sequence[int]) -> list[list[int]]:
        """Return per method those of its settings that are on its hull."""
        return [self._on_hull(list(group)) for _, group in itertools.groupby(settings, key=self._method)]

    def _nearest(self, s: int, group: Sequence[int]) -> Contrast:
        r = min(group, key=lambda one: abs(np.log(self._bytes_s[one] / self._bytes_s[s])))
        gap = difference(self._right_ns[:, s], self._right_ns[:, r])
        sizes = float(self._bytes_s[s]), float(self._bytes_s[r])
        return Contrast(self._name(s), self._name(r), *sizes, *gap, method_b=self._method(r))

    def _on_hull(self, group: Sequence[int]) -> list[int]:
        points = {(float(self._bytes_s[s]), self._top1(s)): s for s in group}
        return [points[size, top1] for size, top1 in upper_hull(points).tolist()]

    def _top1(self, s: int) -> float:
        return 100.0 * float(self._right_ns[:, s].mean())

    def _method(self, s: int) -> str:
        return self._settings[s].method

    def _name(self, s: int) -> str:
        return f"{self._settings[s].method} {self._settings[s].words}"
