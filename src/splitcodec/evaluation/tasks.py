"""Boxes and label maps against bytes: every level through real packets, the task teacher, image codecs.   as: rate.py

The device's letterbox is what everybody starts from: the student gets it in packets, codecs get the same scaled picture
without its grey margin (video codecs with even sides), and what they decode goes into the uncompressed task teacher
(head, backbone, `teacher_<task>`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitcodec.ahead import ahead, cores
from splitcodec.device.image import load_picture
from splitcodec.device.placed import Letterbox, place_bhwc
from splitcodec.edge.tasks import Tasks, TaskTail
from splitcodec.errors import DataError, PictureError, SettingsError
from splitcodec.evaluation.codecs import Codec, codecs_named
from splitcodec.evaluation.result import OURS
from splitcodec.evaluation.rivals import Rival
from splitcodec.evaluation.scores import LEAST, Confusion, Seen, Tally, Truth, coco_package, seen_in
from splitcodec.evaluation.task_entrants import Entrant, entrants_of
from splitcodec.evaluation.task_result import SCORES, TaskPoint, TaskReport, check_once, read_earlier, with_earlier
from splitcodec.evaluation.video import VideoCodec
from splitcodec.layouts.find import read_split
from splitcodec.layouts.sample import DataSet, Sample
from splitcodec.session import Graph
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.packet import unpack

CHUNK: Final = 12
SHARES: Final = {"lean": (5 / 7, 1 / 2), "full": (5 / 7, 1 / 2, 5 / 14)}
"""Lower resolutions at which codecs are tried as well, in units of the letterbox."""
Progress = Callable[[int, int], None]
Said = Seen | Confusion
"""What was found in one picture: boxes in its own pixels, or its label map held against the true one."""
_TEACHER: Final = ("teacher", "")
_LIKE: Final = ("task", "data", "split", "side", "images")


def evaluate_task(
    bundle: str | Path | Bundle,
    data: str | Path,
    *,
    task: Literal["detect", "segment"],
    split: str = "val",
    codecs: Sequence[str] = (),
    sweep: Literal["lean", "full"] = "lean",
    rivals: Sequence[Rival] = (),
    points_files: Sequence[str | Path] = (),
    progress: Progress | None = None,
    threads: int | None = None,
) -> TaskReport:
    """Score a task of a bundle on a split of a labelled data set (see `layouts.find`).

    `points_files` are earlier reports on the same pictures; of the methods that this run does not measure, their points
    are shown as well, with the commit that measured them. A rival counts as trained if its run says that its validation
    loss had levelled off and its task has had as many epochs as ours. `threads` groups of pictures are read at a time
    (none: as many as there are cores), each graph on one thread. Pictures that cannot be read, or whose label map
    cannot, are left out and listed.
    Raises SettingsError, DataError, TaskError, BundleError (BundlePart without the task's teacher), GraphError,
    MissingExtra.
    """
    if threads is not None and threads < 1:
        raise SettingsError(f"threads {threads}; expected at least 1")
    begin = time.monotonic()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    chosen = codecs_named(codecs)
    if task == "detect":
        coco_package()  # which scores boxes, at the end of hours
    labelled = read_split(data, split=split, task=task)
    entrants = entrants_of(opened, rivals, task=task, taken=[codec.name for codec in chosen])
    bench = _Bench(opened, labelled, entrants, codecs=chosen, shares=SHARES[sweep], task=task)
    earlier = [read_earlier(Path(file), names=SCORES[task], keys=_LIKE) for file in points_files]
    measured = [OURS, *(one.method for one in entrants), *(codec.name for codec in chosen)]
    check_once(points_files, earlier, measured=measured)
    like = {"task": task, "data": labelled.name, "split": split, "side": bench.side}
    for one in earlier:
        one.check(like)  # what can be told now is not told after hours
    tallies, truth, skipped = _score(bench, labelled, threads=threads or cores(), tell=progress or (lambda *_: None))
    teacher = tallies.pop(_TEACHER).scores(truth)
    report = TaskReport(
        task=task,
        teacher=teacher,
        points=tuple(TaskPoint(*key, tally.bytes_mean, tally.scores(truth)) for key, tally in tallies.items()),
        bundle=opened.ident,
        data=labelled.name,
        split=split,
        images=len(truth),
        side=bench.side,
        skipped=tuple(skipped),
        seconds=time.monotonic() - begin,
        trained={one.method: one.trained for one in entrants if one.method != OURS},
    )
    for one in earlier:
        one.check({"images": len(truth)}, teacher=teacher)
        report = with_earlier(report, one)
    return report


def _score(
    bench: _Bench, data: DataSet, *, threads: int, tell: Progress
) -> tuple[dict[tuple[str, str], Tally], list[Truth], list[str]]:
    """Return what adds up to scores by method and setting, the truth, and which pictures cannot be read."""
    tallies, truth, skipped = dict[tuple[str, str], Tally](), list[Truth](), list[str]()
    tell(0, len(data.samples))
    chunks = [data.samples[at : at + CHUNK] for at in range(0, len(data.samples), CHUNK)]
    for found, broken in ahead(bench.read, chunks, threads=threads):
        for read in found:
            truth.append(read.truth)
            for key, said in read.said.items():
                tallies.setdefault(key, Tally(len(data.classes))).add(said, size=read.sizes.get(key, 0))
        skipped += broken
        tell(len(truth) + len(skipped), len(data.samples))
    if not truth:
        raise DataError(f"none of {len(data.samples)} pictures can be read; the first: {skipped[0]}")
    return tallies, truth, skipped


class _Read(NamedTuple):
    """One picture: the truth of its boxes, what was said of it by method and setting, and bytes."""

    truth: Truth
    said: dict[tuple[str, str], Said]
    sizes: dict[tuple[str, str], int]


class _Loaded(NamedTuple):
    picture: Image.Image
    truth_hw: NDArray[np.uint8] | None
    scaled_hwc: NDArray[np.uint8]
    place: Letterbox


@final
class _Bench:
    """What is done to one picture after another; safe to share between threads."""

    def __init__(
        self,
        main: Bundle,
        data: DataSet,
        entrants: Sequence[Entrant],
        *,
        codecs: Sequence[Codec],
        shares: Sequence[float],
        task: Literal["detect", "segment"],
    ) -> None:
        self._data, self._entrants, self._codecs, self._shares, self._task = data, entrants, codecs, shares, task
        spec = main.task(task)
        if spec.classes != data.classes:
            raise SettingsError(
                f"{main.ident} knows {len(spec.classes)} classes for {task} ({', '.join(spec.classes[:3])}, ...), "
                f"{data.name} has {len(data.classes)} ({', '.join(data.classes[:3])}, ...); give the data set it is for"
            )
        self.side = spec.side
        self._head = Graph(main.graph("head"), name=f"{main.ident}: head.onnx", threads=1)
        self._teachers = Tasks(main, threads=1, teacher=True)

    def read(self, samples: Sequence[Sample]) -> tuple[list[_Read], list[str]]:
        """Do all there is to some pictures; also says which could not be read."""
        reads: list[_Read] = []
        broken: list[str] = []
        loaded: list[_Loaded] = []
        device = self._entrants[0].device
        for sample in samples:
            try:
                picture = load_picture(sample.path)
                sample.check_size(picture.size)
                truth_hw = self._true_map(sample, picture)
                image_bhwc, place = device.view(picture, fit="letterbox", side=self.side)
            except (PictureError, DataError) as error:
                broken.append(f"{sample.path.name}: {error}")
                continue
            scaled_hwc = image_bhwc[0, : place.high, : place.wide]
            one = _Loaded(picture, truth_hw, scaled_hwc, place)
            loaded.append(one)
            truth = Truth(sample.box_n4, sample.label_n, sample.spare_n)
            reads.append(_Read(truth, {_TEACHER: self._by_teacher(scaled_hwc, one)}, {}))
        for one, read in zip(loaded, reads, strict=True):
            for entrant in self._entrants:
                self._packets(entrant, one, read)
        for codec in self._codecs:
            for value, share in self._settings(codec):
                self._codec(codec, value, share, loaded, reads)
        return reads, broken

    def _true_map(self, sample: Sample, picture: Image.Image) -> NDArray[np.uint8] | None:
        """Return the true label map, None where boxes are looked for. Raises DataError."""
        if self._task != "segment":
            return None
        truth_hw = sample.mask_hw(classes=len(self._data.classes))
        if truth_hw.shape != picture.size[::-1]:
            raise DataError(f"{sample.mask}: {truth_hw.shape} label map, another size than its picture")
        return truth_hw

    def _settings(self, codec: Codec) -> list[tuple[int, float]]:
        return [(value, 1.0) for value in codec.sweep] + [
            (value, share) for share in self._shares for value in codec.few
        ]

    def _packets(self, entrant: Entrant, one: _Loaded, read: _Read) -> None:
        """Send a picture at every level: one encoder run, a real packet each, the edge's own reading of it."""
        tables = entrant.device.bundle.tables[0]
        image_bhwc, place = entrant.device.view(one.picture, fit="letterbox", side=self.side)
        latent_chw = entrant.device.encoder.latent_chw(image_bhwc)
        for level in range(tables.levels):
            packet = entrant.device.pack_latent(latent_chw, level=level)
            symbols_chw = entrant.decoder.symbols(unpack(packet))
            decoded_bchw = entrant.decoder.latent_chw(symbols_chw, level)[None]
            feature_bchw = entrant.decoder.features_bchw(decoded_bchw)
            maps = entrant.tasks.maps(self._task, feature_bchw, latent_bchw=decoded_bchw)
            key = (entrant.method, f"{entrant.prefix}level {level}")
            read.sizes[key] = len(packet)
            read.said[key] = self._said(entrant.tasks.heads[self._task], maps, one, place)

    def _codec(self, codec: Codec, value: int, share: float, loaded: Sequence[_Loaded], reads: Sequence[_Read]) -> None:
        """Code pictures of one size together, and show what comes out to the task teacher."""
        words = f"{codec.dial} {value}" + ("" if share == 1.0 else f", {round(share * self.side)} px")
        groups: dict[tuple[int, int], list[int]] = {}
        for index, one in enumerate(loaded):
            groups.setdefault(_coded_size(one.place, codec, share), []).append(index)
        for size, members in groups.items():
            for at in range(0, len(members), codec.at_once):
                some = members[at : at + codec.at_once]
                files = codec.encode([_resized(loaded[index].scaled_hwc, size) for index in some], value)
                for index, data, image_hwc in zip(some, files, codec.decode(files), strict=True):
                    place = loaded[index].place
                    reads[index].sizes[codec.name, words] = len(data)
                    back_hwc = _resized(image_hwc, (place.wide, place.high))
                    reads[index].said[codec.name, words] = self._by_teacher(back_hwc, loaded[index])

    def _by_teacher(self, scaled_hwc: NDArray[np.uint8], one: _Loaded) -> Said:
        feature_bchw = self._head(place_bhwc(scaled_hwc, one.place))
        maps = self._teachers.maps(self._task, feature_bchw)
        return self._said(self._teachers.heads[self._task], maps, one, one.place)

    def _said(self, tail: TaskTail, maps: Sequence[NDArray[np.float32]], one: _Loaded, place: Letterbox) -> Said:
        if one.truth_hw is not None:
            confusion = Confusion(len(self._data.classes))
            confusion.add(one.truth_hw, place.mask_in_picture(tail.label_maps(maps)[0]))
            return confusion
        found = tail.boxes(maps, least=LEAST)[0]
        return seen_in(found, place, size=tail.size(maps))


def _coded_size(place: Letterbox, codec: Codec, share: float) -> tuple[int, int]:
    """Return width and height of what a codec codes of a scaled picture; video codecs alone want even ones."""
    step = 2 if isinstance(codec, VideoCodec) else 1
    wide, high = (max(step, step * round(side * share / step)) for side in (place.wide, place.high))
    return wide, high


def _resized(image_hwc: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if (image_hwc.shape[1], image_hwc.shape[0]) == size:
        return np.ascontiguousarray(image_hwc)
    return np.asarray(Image.fromarray(image_hwc).resize(size, Image.Resampling.BICUBIC), dtype=np.uint8)
