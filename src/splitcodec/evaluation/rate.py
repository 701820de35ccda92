"""Top-1 against bytes: every level of a bundle, its teacher, rivals, image codecs, on one folder of labelled pictures.

`bench.py` says what happens to one picture. This is the pass over all of them, several at a time, and what is made of
it: points, BD-rate over upper hulls, bytes at equal score, paired intervals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from splitcodec.errors import DataError, SettingsError
from splitcodec.evaluation.bd import check_curves
from splitcodec.evaluation.bench import Bench, Read
from splitcodec.evaluation.codecs import CODECS, Codec, codecs_named
from splitcodec.evaluation.compared import Compared
from splitcodec.evaluation.labels import Labelled, labelled_pictures
from splitcodec.evaluation.machine import commit, cores, machine
from splitcodec.evaluation.measured import Measured
from splitcodec.evaluation.memory import Memory
from splitcodec.evaluation.points import read_points
from splitcodec.evaluation.resampled import DRAWS, MOST_LACKING
from splitcodec.evaluation.result import OURS, Report
from splitcodec.evaluation.rivals import Entrant, Rival, costs, open_entrants
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
    f"where more than {100 * MOST_LACKING:g} % of the draws give no figure, and for methods read from a file."
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
    if chosen or rivals or points_files:
        check_curves()
    pictures = labelled_pictures(data, opened.manifest)
    entrants = open_entrants(opened, rivals, taken=[codec.name for codec in chosen])
    settings = [Setting(one, level) for one in entrants for level in range(one.bundle.manifest.levels)]
    settings += [setting for codec in chosen for setting in sweep(codec, opened.manifest.crop)]
    taken = list(dict.fromkeys(setting.method for setting in settings))
    foreign, foreign_costs = read_points(points_files, images=len(pictures), taken=taken)
    memory = None if memory_file is None else Memory(memory_file, teacher=opened)
    bench = Bench(entrants, settings, memory=memory)
    timed = bench.crops((one.path for one in pictures), most=TIMED)  # at the end of hours they might be gone
    reads, skipped = _read_all(bench, pictures, workers=threads or cores(), progress=progress or (lambda *_: None))
    encode_ms = bench.encode_ms(timed)
    measured = Measured(settings, reads, encode_ms, floors=bench.floors(), crop=opened.manifest.crop)
    points = measured.points() + foreign
    compared = Compared(points, measured.resampled(), teacher=measured.teacher_top1)
    networks = teachers(entrants, [one.path for one in pictures])
    encoders = costs(entrants, foreign_costs, against_hevc=compared.against("hevc"), teachers=networks)
    matrix = compared.matrix(encoders)
    levels = [setting.words for setting in settings if setting.method == OURS]
    elsewhere = [codec.name for codec in CODECS if any(point.method == codec.name for point in foreign)]
    notes = _notes(settings, chosen, entrants, timed=len(timed), recalled=memory.recalled if memory else 0)
    if elsewhere:
        notes += (f"Not measured in this run, but read from a file of an earlier one: {', '.join(elsewhere)}.",)
    return Report(
        bundle=opened.ident,
        data=Path(data).resolve().name,
        images=len(reads),
        teacher_top1=measured.teacher_top1,
        points=tuple(points),
        bd=compared.ours(matrix[OURS]),
        bd_rate_matrix=matrix,
        encoders=encoders,
        codecs=(*(codec.name for codec in chosen), *elsewhere),
        equal_score=compared.equal_score(),
        contrasts=tuple(measured.contrasts()),
        contrasts_of_kin=tuple(measured.contrasts_of_kin()),
        overhead_bytes=dict(zip(levels, measured.overhead(), strict=True)),
        skipped=tuple(skipped),
        notes=notes,
        machine={**machine(), "codecs": codec_versions()},
        commit=commit(),
        seconds=time.monotonic() - begin,
    )


def _notes(
    settings: Sequence[Setting], codecs: Sequence[Codec], entrants: Sequence[Entrant], *, timed: int, recalled: int
) -> tuple[str, ...]:
    """Return what the report says of how it was measured."""
    notes = [DATA_NOTE, PAYLOAD_NOTE, INTERVAL_NOTE]
    if any(setting.side is not None for setting in settings):
        notes.append(RESOLUTION_NOTE)
    if len(entrants) > 1:
        notes.append(RIVAL_NOTE)
    notes.append(
        f"encode_ms: median of {timed} crops on one thread, without preprocessing; one at a time, but hevc and vvc "
        "several to a process, whose start they share."
    )
    if recalled:
        notes.append(f"{recalled:,} results of codecs (one picture, one setting) are those of an earlier run here.")
    return (*notes, *(f"{codec.name}: {codec.note}." for codec in codecs))


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
