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
from splitcodec.errors import DataError, SettingsError
from splitcodec.evaluation.bench import Bench, Read
from splitcodec.evaluation.codecs import codecs_named
from splitcodec.evaluation.hull import Hull, bd_accuracy, bd_rate, bytes_at, upper_hull
from splitcodec.evaluation.labels import Labelled, labelled_pictures
from splitcodec.evaluation.machine import commit, cores, machine
from splitcodec.evaluation.paired import difference
from splitcodec.evaluation.result import OURS, TEACHER, Contrast, EqualScore, Point, Report, read_points
from splitcodec.evaluation.sweep import Setting, Sweep, lean_sweep
from splitcodec.wire.bundle import Bundle, open_bundle

Progress = Callable[[int, int], None]

TIMED = 20  # pictures whose encoding is timed, one at a time, while nothing else runs
HELD = 3  # pictures whose packets are held against Device.encode
BELOW_TEACHER = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0)
DATA_NOTE = (
    "The scores are of these pictures alone. On pictures of the training split, as the one-picture-per-class sample of "
    "ImageNet probably is, they are higher than on the validation split; differences and bytes are what to read."
)
PAYLOAD_NOTE = (
    "Bytes are the whole file or packet. Payload leaves out what carries no picture: of a codec's file, the bytes of a "
    "flat grey picture of that size at that setting (headers and container, which could be agreed on beforehand); of a "
    "packet, its 12 bytes of header and checksum."
)
RESOLUTION_NOTE = (
    "Settings with a size in pixels: the crop scaled down to it before coding and up again before the network, both "
    "bicubic. Hulls are over all settings and sizes of a codec; our own levels get no such help."
)


def evaluate(
    bundle: str | Path | Bundle,
    data: str | Path,
    *,
    codecs: Sequence[str] = ("jpeg", "webp", "avif"),
    sweep: Sweep = lean_sweep,
    points_files: Sequence[str | Path] = (),
    progress: Progress | None = None,
    threads: int | None = None,
) -> Report:
    """Measure a bundle on a folder of labelled pictures (see `labels.py`); `progress` is told (done, all).

    `threads` pictures are read at a time (none: as many as there are cores), each graph on one thread; scores and bytes
    do not depend on it. `sweep` says which settings and resolutions of a codec to try. Pictures that cannot be read are
    left out and listed. `points_files` add other scripts' points.

    Raises SettingsError, DataError, BundleError (BundlePart without head or tail), TaskError, MissingExtra, GraphError.
    """
    if threads is not None and threads < 1:
        raise SettingsError(f"threads {threads}; expected at least 1")
    begin = time.monotonic()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    settings = [Setting(None, level) for level in range(opened.manifest.levels)]
    rivals = codecs_named(codecs)
    settings += [setting for codec in rivals for setting in sweep(codec, opened.manifest.crop)]
    pictures = labelled_pictures(data, opened.manifest)
    taken = list(dict.fromkeys(setting.method for setting in settings))
    foreign = read_points(points_files, images=len(pictures), taken=taken)
    bench = Bench(Device(opened, threads=1), Edge(opened, threads=1), settings)
    reads, skipped = _read_all(bench, pictures, workers=threads or cores(), progress=progress or (lambda *_: None))
    encode_ms = bench.encode_ms([one.path for one in reads[:TIMED]])
    measured = _Measured(settings, reads, encode_ms, floors=bench.floors(), crop=opened.manifest.crop)
    points = measured.points() + foreign
    methods = list(dict.fromkeys(one.method for one in points))
    hulls = {name: upper_hull((one.bytes_mean, one.top1) for one in points if one.method == name) for name in methods}
    bare = {name: _payload_hull([one for one in points if one.method == name]) for name in methods}
    teacher = measured.teacher_top1
    levels = [setting.words for setting in settings if setting.codec is None]
    fixed = [f"{codec.name}: {codec.note}." for codec in rivals]
    timing = (
        f"encode_ms: median of {min(TIMED, len(reads))} crops on one thread, without preprocessing; one at a time, but "
        "hevc and vvc several to a process, whose start they share."
    )
    scaling = (RESOLUTION_NOTE,) if any(setting.side is not None for setting in settings) else ()
    return Report(
        bundle=opened.ident,
        data=Path(data).resolve().name,
        images=len(reads),
        teacher_top1=teacher,
        points=tuple(points),
        bd_rate={name: bd_rate(hulls[name], hulls[OURS], teacher=teacher) for name in methods if name != OURS},
        bd_rate_payload={name: bd_rate(bare[name], bare[OURS], teacher=teacher) for name in methods if name != OURS},
        bd_accuracy={name: bd_accuracy(hulls[name], hulls[OURS]) for name in methods if name != OURS},
        equal_score=tuple(
            EqualScore(below, teacher - below, {name: bytes_at(hull, teacher - below) for name, hull in hulls.items()})
            for below in BELOW_TEACHER
        ),
        contrasts=tuple(measured.contrasts()),
        overhead_bytes=dict(zip(levels, measured.overhead(), strict=True)),
        skipped=tuple(skipped),
        notes=(DATA_NOTE, PAYLOAD_NOTE, *scaling, timing, *fixed),
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
    step = max(1, min(bench.at_once, len(pictures) // workers))
    with ThreadPoolExecutor(workers) as pool:
        start_of = {
            pool.submit(bench.read, pictures[start : start + step], hold=max(0, HELD - start)): start
            for start in range(0, len(pictures), step)
        }
        try:
            for future in as_completed(start_of):
                for place, read in enumerate(future.result(), start=start_of[future]):
                    if isinstance(read, Read):
                        reads[place] = read
                    else:
                        path = pictures[place].path
                        skipped[place] = (path.name, str(read).removeprefix(f"{path}: "))
                    progress(len(reads) + len(skipped), len(pictures))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if not reads:
        raise DataError(f"none of {len(pictures)} pictures can be read; the first: {skipped[0][1]}")
    return [reads[place] for place in sorted(reads)], [skipped[place] for place in sorted(skipped)]


def _payload_hull(points: Sequence[Point]) -> Hull:
    """Return the hull over payloads, of at least one byte; an empty one if any point does not say its payload."""
    payloads = [one.payload_mean for one in points]
    if None in payloads:
        return upper_hull([])
    return upper_hull((max(size or 0.0, 1.0), one.top1) for size, one in zip(payloads, points, strict=True))


@final
class _Measured:
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
        """Return every level against the teacher, and against the nearest in bytes of what is on each codec's hull."""
        levels = [s for s, setting in enumerate(self._settings) if setting.codec is None]
        rivals = [s for s, setting in enumerate(self._settings) if setting.codec is not None]
        best = [self._on_hull(list(group)) for _, group in itertools.groupby(rivals, key=self._method)]
        found = []
        for s in levels:
            gap = difference(self._right_ns[:, s], self._teacher_n)
            found.append(Contrast(self._name(s), TEACHER, float(self._bytes_s[s]), None, *gap))
            for group in best:
                r = min(group, key=lambda one: abs(np.log(self._bytes_s[one] / self._bytes_s[s])))
                gap = difference(self._right_ns[:, s], self._right_ns[:, r])
                sizes = float(self._bytes_s[s]), float(self._bytes_s[r])
                found.append(Contrast(self._name(s), self._name(r), *sizes, *gap))
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
