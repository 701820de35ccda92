"""Top-1 against bytes: every level of a bundle, its teacher, and image codecs, on one folder of labelled pictures.

`bench.py` says what happens to one picture. This is the pass over all of them, several at a time, and what is made of
it: points, BD-rate over upper hulls, bytes at equal score, paired intervals.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import final

import numpy as np

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import DataError, PictureError, SettingsError
from splitcodec.evaluation.bench import Bench, Read, Setting
from splitcodec.evaluation.codecs import codecs_named
from splitcodec.evaluation.hull import bd_rate, bytes_at, upper_hull
from splitcodec.evaluation.labels import Labelled, labelled_pictures
from splitcodec.evaluation.machine import commit, cores, machine
from splitcodec.evaluation.paired import difference
from splitcodec.evaluation.result import OURS, TEACHER, Contrast, EqualScore, Point, Report, read_points
from splitcodec.wire.bundle import Bundle, open_bundle

Progress = Callable[[int, int], None]

TIMED = 20  # pictures whose encoding is timed, one at a time, while nothing else runs
HELD = 3  # pictures whose packets are held against Device.encode
BELOW_TEACHER = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0)
DATA_NOTE = (
    "The scores are of these pictures alone. On pictures of the training split, as the one-picture-per-class sample of "
    "ImageNet probably is, they are higher than on the validation split; differences and bytes are what to read."
)


def evaluate(
    bundle: str | Path | Bundle,
    data: str | Path,
    *,
    codecs: Sequence[str] = ("jpeg", "webp", "avif"),
    points_files: Sequence[str | Path] = (),
    progress: Progress | None = None,
    threads: int | None = None,
) -> Report:
    """Measure a bundle on a folder of labelled pictures (see `labels.py`); `progress` is told (done, all).

    `threads` pictures are read at a time (none: as many as there are cores), each graph on one thread; scores and bytes
    do not depend on it. Pictures that cannot be read are left out and listed. `points_files` add other scripts' points.

    Raises SettingsError, DataError, BundleError (BundlePart without head or tail), TaskError, MissingExtra, GraphError.
    """
    if threads is not None and threads < 1:
        raise SettingsError(f"threads {threads}; expected at least 1")
    begin = time.monotonic()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    settings = [Setting(None, level) for level in range(opened.manifest.levels)]
    settings += [Setting(codec, value) for codec in codecs_named(codecs) for value in codec.sweep]
    pictures = labelled_pictures(data, opened.manifest)
    taken = list(dict.fromkeys(setting.method for setting in settings))
    foreign = read_points(points_files, images=len(pictures), taken=taken)
    bench = Bench(Device(opened, threads=1), Edge(opened, threads=1), settings)
    reads, skipped = _read_all(bench, pictures, workers=threads or cores(), progress=progress or (lambda *_: None))
    encode_ms = bench.encode_ms([one.path for one in reads[:TIMED]])
    measured = _Measured(settings, reads, encode_ms)
    points = measured.points() + foreign
    hulls = {
        method: upper_hull((one.bytes_mean, one.top1) for one in points if one.method == method)
        for method in dict.fromkeys(one.method for one in points)
    }
    teacher = measured.teacher_top1
    levels = [setting.words for setting in settings if setting.codec is None]
    fixed = [f"{codec.name}: {codec.note}." for codec in codecs_named(codecs)]
    timing = f"encode_ms: median of {min(TIMED, len(reads))} crops, one at a time on one thread, without preprocessing."
    return Report(
        bundle=opened.ident,
        data=Path(data).resolve().name,
        images=len(reads),
        teacher_top1=teacher,
        points=tuple(points),
        bd_rate={name: bd_rate(hulls[name], hulls[OURS], teacher=teacher) for name in hulls if name != OURS},
        equal_score=tuple(
            EqualScore(below, teacher - below, {name: bytes_at(hull, teacher - below) for name, hull in hulls.items()})
            for below in BELOW_TEACHER
        ),
        contrasts=tuple(measured.contrasts()),
        overhead_bytes=dict(zip(levels, measured.overhead(), strict=True)),
        skipped=tuple(skipped),
        notes=(DATA_NOTE, timing, *fixed),
        machine=machine(),
        commit=commit(),
        seconds=time.monotonic() - begin,
    )


def _read_all(
    bench: Bench, pictures: Sequence[Labelled], *, workers: int, progress: Progress
) -> tuple[list[Read], list[tuple[str, str]]]:
    reads: dict[int, Read] = {}
    skipped: dict[int, tuple[str, str]] = {}
    progress(0, len(pictures))
    with ThreadPoolExecutor(workers) as pool:
        place_of = {pool.submit(bench.read, one, hold=k < HELD): k for k, one in enumerate(pictures)}
        try:
            for done, future in enumerate(as_completed(place_of), start=1):
                place = place_of[future]
                try:
                    reads[place] = future.result()
                except PictureError as error:
                    path = pictures[place].path
                    skipped[place] = (path.name, str(error).removeprefix(f"{path}: "))
                progress(done, len(pictures))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if not reads:
        raise DataError(f"none of {len(pictures)} pictures can be read; the first: {skipped[0][1]}")
    return [reads[place] for place in sorted(reads)], [skipped[place] for place in sorted(skipped)]


@final
class _Measured:
    """All pictures together: points, overhead, and differences with their intervals."""

    def __init__(self, settings: Sequence[Setting], reads: Sequence[Read], encode_ms: Sequence[float]) -> None:
        self._settings = settings
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
            size, top1 = float(self._bytes_s[s]), 100.0 * float(self._right_ns[:, s].mean())
            point = Point(setting.method, setting.words, size, top1, self._encode_ms[s], (gap.low, gap.high))
            points.append(point)
        return points

    def overhead(self) -> list[float]:
        """Return the mean of packet bytes minus ideal code length, per level."""
        return [float(extra) for extra in self._overhead_l]

    def contrasts(self) -> list[Contrast]:
        """Return every level against the teacher, and against the setting of each codec that is nearest in bytes."""
        levels = [s for s, setting in enumerate(self._settings) if setting.codec is None]
        rivals = [s for s, setting in enumerate(self._settings) if setting.codec is not None]
        found = []
        for s in levels:
            gap = difference(self._right_ns[:, s], self._teacher_n)
            found.append(Contrast(self._name(s), TEACHER, float(self._bytes_s[s]), None, *gap))
            for _, group in itertools.groupby(rivals, key=lambda r: self._settings[r].method):
                r = min(group, key=lambda one: abs(np.log(self._bytes_s[one] / self._bytes_s[s])))
                gap = difference(self._right_ns[:, s], self._right_ns[:, r])
                sizes = float(self._bytes_s[s]), float(self._bytes_s[r])
                found.append(Contrast(self._name(s), self._name(r), *sizes, *gap))
        return found

    def _name(self, s: int) -> str:
        return f"{self._settings[s].method} {self._settings[s].words}"
