"""Top-1 against bytes: every level of a bundle, its teacher, rivals, image codecs, on one folder of labelled pictures.

`bench.py` says what happens to one picture. This is the pass over all of them, several at a time, and what is made of
it: points, BD-rate over upper hulls, bytes at equal score, paired intervals.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from splitcodec.ahead import ahead, cores
from splitcodec.device.client import Device
from splitcodec.errors import DataError, PictureError, SettingsError
from splitcodec.evaluation.bd import FEWEST, curves_package
from splitcodec.evaluation.bench import Bench, Read
from splitcodec.evaluation.codecs import CODECS, HEVC, Codec, codecs_named
from splitcodec.evaluation.compared import Compared
from splitcodec.evaluation.labels import Labelled, labelled_pictures
from splitcodec.evaluation.machine import commit, machine
from splitcodec.evaluation.measured import Measured
from splitcodec.evaluation.memory import Memory
from splitcodec.evaluation.points import read_points
from splitcodec.evaluation.resampled import DRAWS, MOST_LACKING
from splitcodec.evaluation.result import OURS, Point, Report
from splitcodec.evaluation.rivals import Rival, costs, open_entrants
from splitcodec.evaluation.sweep import Setting, Sweep, lean_sweep
from splitcodec.evaluation.teachers import teachers
from splitcodec.evaluation.versions import codec_versions
from splitcodec.wire.bundle import Bundle, open_bundle

Progress = Callable[[int, int], None]

TIMED = 20  # pictures whose encoding is timed, one at a time, while nothing else runs
HELD = 3  # pictures whose packets are held against Device.encode
DATA_NOTE = (
    "The scores are of these pictures alone. On pictures of the training split, as the one-picture-per-class sample of "
    "ImageNet probably is, they are higher than on the validation split; differences and bytes are what to read."
)
PAYLOAD_NOTE = (
    "Bytes are the whole file or packet. Payload leaves out what carries no picture: of a codec's file, the bytes of a "
    "flat grey picture of that size at that setting (headers and container, which could be agreed on beforehand); of a "
    "packet, its 12 bytes of header and checksum."
)
INTERVAL_NOTE = (
    f"Intervals of BD-rate, BD-accuracy and bytes at equal score: the middle 95 % of {DRAWS:,} draws of the pictures "
    "with replacement, the same pictures for the teacher and every method; means, hulls and curves anew in each. None "
    f"where more than {100 * MOST_LACKING:g} % of the draws give no figure or, of bytes, where an end lies beyond the "
    "hull, and for methods read from a file."
)
RESOLUTION_NOTE = (
    "Settings with a size in pixels: the crop scaled down to it before coding and up again before the network, both "
    "bicubic. Hulls are over all settings and sizes of a codec; our own levels get no such help."
)
RIVAL_NOTE = (
    "Other bundles get the same crops and go through packets as ours do; one whose tail was tuned answers with its own "
    "tail. The teacher is the main bundle's. A rival counts as trained if its run says that its validation loss had "
    "levelled off, or if it saves 40 % against HEVC here. Networks: head and tail are the same files, or give the same "
    "answers to uncompressed pictures (cut elsewhere), or the head is ours, or made of our weights (tail tuned)."
)


def evaluate(
    bundle: str | Path | Bundle,
    data: str | Path,
    *,
    codecs: Sequence[str] = ("jpeg", "webp", "avif"),
    sweep: Sweep = lean_sweep,
    rivals: Sequence[Rival] = (),
    points_files: Sequence[str | Path] = (),
    memory_file: str | Path | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Report:
    """Measure a bundle on a folder of labelled pictures (see `labels.py`); `progress` is told (done, all).

    `threads` pictures are read at a time (none: as many as there are cores), each graph on one thread; scores and bytes
    do not depend on it. `sweep` says which settings and resolutions of a codec to try. `rivals` are bundles that are
    measured beside it on the same crops. Pictures that cannot be read are left out and listed. `points_files` add other
    scripts' points. What codecs gave is kept in `memory_file`, and taken from there.

    Raises SettingsError (also for rivals that cannot be compared), DataError, BundleError (BundlePart without head or
    tail), TaskError, MissingExtra, GraphError, OutputError.
    """
    if threads is not None and threads < 1:
        raise SettingsError(f"threads {threads}; expected at least 1")
    begin = time.monotonic()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    chosen = codecs_named(codecs)
    pictures = labelled_pictures(data, opened.manifest)
    entrants = open_entrants(opened, rivals, taken=[codec.name for codec in chosen])
    settings = [Setting(one, level) for one in entrants for level in range(one.bundle.manifest.levels)]
    settings += [setting for codec in chosen for setting in sweep(codec, opened.manifest.crop)]
    taken = list(dict.fromkeys(setting.method for setting in settings))
    workers, tell = threads or cores(), progress or (lambda *_: None)
    memory = None if memory_file is None else Memory(memory_file, teacher=opened)
    images = _readable(entrants[0].device, pictures, threads=workers) if points_files else len(pictures)
    foreign, foreign_costs = read_points(points_files, images=images, taken=taken)
    _check_curves(settings, foreign, [HEVC.name, *foreign_costs, *(one.method for one in entrants)])
    bench = Bench(entrants, settings, memory=memory)
    paths = [one.path for one in pictures]  # of which some are looked at now: at the end of hours they might be gone
    timed, networks = bench.crops(paths, most=TIMED), teachers(entrants, paths)
    reads, skipped = _read_all(bench, pictures, threads=workers, progress=tell)
    measured = Measured(settings, reads, bench.encode_ms(timed), floors=bench.floors(), crop=opened.manifest.crop)
    points = measured.points() + foreign
    compared = Compared(points, measured.resampled(), teacher=measured.teacher_top1)
    encoders = costs(entrants, foreign_costs, against_hevc=compared.against("hevc"), teachers=networks)
    matrix = compared.matrix(encoders)
    levels = [setting.words for setting in settings if setting.method == OURS]
    elsewhere = list(dict.fromkeys(point.method for point in foreign))
    recalled = memory.recalled if memory else 0
    return Report(
        bundle=opened.ident,
        data=Path(data).resolve().name,
        images=len(reads),
        teacher_top1=measured.teacher_top1,
        points=tuple(points),
        bd=compared.ours(matrix[OURS]),
        bd_rate_matrix=matrix,
        encoders=encoders,
        codecs=(*(codec.name for codec in chosen), *(codec.name for codec in CODECS if codec.name in elsewhere)),
        equal_score=compared.equal_score(),
        contrasts=tuple(measured.contrasts()),
        contrasts_of_kin=tuple(measured.contrasts_of_kin()),
        overhead_bytes=dict(zip(levels, measured.overhead(), strict=True)),
        skipped=tuple(skipped),
        notes=_notes(settings, chosen, elsewhere, timed=len(timed), recalled=recalled, rivals=len(entrants) > 1),
        machine={**machine(), "codecs": codec_versions()},
        commit=commit(),
        seconds=time.monotonic() - begin,
    )


def _readable(device: Device, pictures: Sequence[Labelled], *, threads: int) -> int:
    """Return how many pictures the run will measure, before hours of it."""

    def is_readable(picture: Labelled) -> bool:
        try:
            device.crop(picture.path)
        except PictureError:
            return False
        return True

    return sum(ahead(is_readable, pictures, threads=threads))


def _check_curves(settings: Sequence[Setting], foreign: Sequence[Point], compared: Sequence[str]) -> None:
    """Ask now for the package that compares curves, where there will be any. Raises MissingExtra."""
    sizes = Counter([setting.method for setting in settings] + [point.method for point in foreign])
    curved = {method for method, number in sizes.items() if number >= FEWEST}
    if len(curved) > 1 and not curved.isdisjoint(compared):
        curves_package()


def _notes(
    settings: Sequence[Setting],
    codecs: Sequence[Codec],
    elsewhere: Sequence[str],
    *,
    timed: int,
    recalled: int,
    rivals: bool,
) -> tuple[str, ...]:
    """Return what the report says of how it was measured."""
    notes = [DATA_NOTE, PAYLOAD_NOTE, INTERVAL_NOTE]
    if any(setting.side is not None for setting in settings):
        notes.append(RESOLUTION_NOTE)
    if rivals:
        notes.append(RIVAL_NOTE)
    notes.append(
        f"encode_ms: median of {timed} crops on one thread, without preprocessing; one at a time, but HEVC and VVC "
        "several to a process, whose start they share."
    )
    if recalled:
        notes.append(f"{recalled:,} results of codecs (one picture, one setting) are those of an earlier run here.")
    notes += [f"{codec.name}: {codec.note}." for codec in codecs]
    if elsewhere:
        notes.append(
            f"Not measured in this run, but read from a file of another one, encode_ms too: {', '.join(elsewhere)}."
        )
    return tuple(notes)


def _read_all(
    bench: Bench, pictures: Sequence[Labelled], *, threads: int, progress: Progress
) -> tuple[list[Read], list[tuple[str, str]]]:
    """Return what came of the pictures, and which cannot be read, with the reason."""
    reads, skipped = list[Read](), list[tuple[str, str]]()
    progress(0, len(pictures))
    step = max(1, min(bench.at_once, len(pictures) // threads))

    def read(start: int) -> list[Read | PictureError]:
        return bench.read(pictures[start : start + step], hold=max(0, HELD - start))

    found = itertools.chain.from_iterable(ahead(read, range(0, len(pictures), step), threads=threads))
    for done, (picture, one) in enumerate(zip(pictures, found, strict=True), 1):
        if isinstance(one, Read):
            reads.append(one)
        else:
            skipped.append((picture.path.name, str(one).removeprefix(f"{picture.path}: ")))
        progress(done, len(pictures))
    if not reads:
        raise DataError(f"none of {len(pictures)} pictures can be read; the first: {skipped[0][1]}")
    return reads, skipped
