"""Bytes saved by asking twice where the first answer is unsure: `ask --sure P`, for our bundles and for image codecs.

    python benchmarks/escalation.py --choose DIR --data DIR --out reports/escalation.json

A small packet is sent; only where the best guess's probability is below P a larger one follows. Which two levels, and
which P, are chosen on the photographs of --choose, without labels: those pairs that no other beats in bytes and
agreement with the uncompressed teacher. They are then measured on the labelled photographs of --data, beside single
levels, both by the hull of what was measured. Codecs get the same: every setting of their sweep, two of them, and P.
`make results` turns the report into docs/device.md's table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, final

from outcome import exit_code

import numpy as np
from numpy.typing import NDArray

from pages.device import ESCALATION, escalation_rows
from report import at_least_one, ready, write
from splitcodec.cli.show import complain, print_table, progress
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import DataError, PictureError
from splitcodec.evaluation.bd import bd_rate
from splitcodec.evaluation.calibrate import shuffled
from splitcodec.evaluation.codecs import Codec, codecs_named
from splitcodec.evaluation.hull import bytes_at, upper_hull
from splitcodec.evaluation.labels import labelled_pictures
from splitcodec.evaluation.machine import cores
from splitcodec.evaluation.resampled import Resampled
from splitcodec.evaluation.sweep import Setting, lean_sweep, scaled

BELOW = (2.0, 3.0, 4.0, 6.0, 8.0, 10.0)  # points below the teacher
SURE = tuple(round(0.05 * k, 2) for k in range(1, 20))


class Answers(NamedTuple):
    """What N photographs got at S settings: bytes, index of the best guess, its probability; and the teacher's."""

    bytes_ns: NDArray[np.int64]
    index_ns: NDArray[np.int64]
    p_ns: NDArray[np.float64]
    teacher_n: NDArray[np.int64]


class Pair(NamedTuple):
    """Settings by their places, `then` dearer than `first`, and how sure the first answer must be."""

    first: int
    then: int
    sure: float

    def asked_again(self, answers: Answers) -> NDArray[np.bool_]:
        """Say for which photographs the dearer one is sent."""
        return answers.p_ns[:, self.first] < self.sure

    def bytes_n(self, answers: Answers) -> NDArray[np.int64]:
        """Return the bytes of each photograph's packets, int64 (N,)."""
        return answers.bytes_ns[:, self.first] + self.asked_again(answers) * answers.bytes_ns[:, self.then]

    def index_n(self, answers: Answers) -> NDArray[np.int64]:
        """Return the class that each photograph gets in the end, int64 (N,)."""
        return np.where(self.asked_again(answers), answers.index_ns[:, self.then], answers.index_ns[:, self.first])


@final
class Method:
    """One bundle or one codec: photographs through all of its settings."""

    def __init__(self, name: str, device: Device, edge: Edge, codec: Codec | None) -> None:
        self.name, self.device, self.edge, self._codec = name, device, edge, codec
        crop, levels = device.bundle.manifest.crop, device.bundle.manifest.levels
        self._swept: list[Setting] = [] if codec is None else lean_sweep(codec, crop)
        self.settings = [one.words for one in self._swept] or [f"level {level}" for level in range(levels)]

    @property
    def bundle(self) -> str | None:
        """Return name and version of the bundle; None for a codec."""
        return self.device.bundle.ident if self._codec is None else None

    def answers(self, paths: Sequence[Path], *, note: str) -> tuple[Answers, list[int]]:
        """Return the answers, and which of the photographs could be read. Raises DataError if none could."""
        rows: dict[int, list[tuple[int, int, float]]] = {}
        with progress() as bar, ThreadPoolExecutor(cores()) as pool:
            task = bar.add_task(f"{self.name}, {note}", total=len(paths), note="")
            for k, row in enumerate(pool.map(self._one, paths)):
                bar.advance(task)
                if isinstance(row, PictureError):
                    complain(row)
                else:
                    rows[k] = row
        if not rows:
            raise DataError(f"none of {len(paths)} photographs to {note} on can be read; give others")
        table_nsk = np.array(list(rows.values()))
        size_ns, index_ns, p_ns = table_nsk[:, 1:, 0], table_nsk[:, 1:, 1], table_nsk[:, 1:, 2]
        return Answers(size_ns.astype(np.int64), index_ns.astype(np.int64), p_ns, table_nsk[:, 0, 1].astype(int)), [
            *rows
        ]

    def _one(self, path: Path) -> list[tuple[int, int, float]] | PictureError:
        try:
            image_bhwc = self.device.crop(path)
        except PictureError as error:
            return error
        row = [(0, *self._seen(image_bhwc))]
        if self._codec is None:
            latent_chw = self.device.encoder.latent_chw(image_bhwc)
            for level in range(len(self.settings)):
                packet = self.device.pack_latent(latent_chw, level=level)
                guess = self.edge.answer(packet, tasks=["classify"], top=1)["answers"]["classify"][0]
                row.append((len(packet), guess["index"], guess["p"]))
        else:
            for one in self._swept:
                (file,) = self._codec.encode(scaled([image_bhwc[0]], one.side), one.value)
                (back_hwc,) = scaled(self._codec.decode([file]), None if one.side is None else image_bhwc.shape[1])
                row.append((len(file), *self._seen(back_hwc[None])))
        return row

    def _seen(self, image_bhwc: NDArray[np.uint8]) -> tuple[int, float]:
        guess = self.edge.picture_answer(image_bhwc, top=1)["answers"]["classify"][0]
        return guess["index"], guess["p"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", default="efficientnet-lite0,efficientnet-lite0-large", metavar="B,...")
    parser.add_argument("--codecs", default="avif,webp", metavar="C,...", help="may be empty")
    parser.add_argument("--choose", type=Path, required=True, metavar="DIR", help="photographs to choose on")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled photographs to measure on")
    parser.add_argument("--most", type=int, default=500, metavar="N", help="photographs of either")
    parser.add_argument("--out", type=Path, default=Path("reports/escalation.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    at_least_one("--most", options.most)
    ready(options.out)
    report = measure(options)
    write(report, options.out, name="escalation.py", options=options)
    print_table(f"bytes at equal top-1, {report['photographs']} photographs", ESCALATION, escalation_rows(report))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the report. Photographs that cannot be read are left out, and complained of."""
    methods = _methods(options)
    first = methods[0]
    labelled = labelled_pictures(options.data, first.device.bundle.manifest)[: options.most]
    choosing = shuffled([options.choose])[: options.most]
    found, teacher_top1, photographs = [], 0.0, 0
    for method in methods:
        chosen = pairs(method.answers(choosing, note="choose")[0])
        answers, read = method.answers([one.path for one in labelled], note="measure")
        label_n = np.array([labelled[k].index for k in read])
        teacher_top1, photographs = 100 * float((answers.teacher_n == label_n).mean()), len(read)
        found.append(_summary(method, chosen, answers, label_n))
    return {
        "photographs": photographs,
        "data": options.data.name,
        "chosen_on": len(choosing),
        "teacher_top1": teacher_top1,
        "methods": found,
    }


def pairs(answers: Answers) -> list[Pair]:
    """Return the pairs that are on the hull of mean bytes and agreement with the teacher, fewest bytes first."""
    order = np.argsort(answers.bytes_ns.mean(axis=0), kind="stable").tolist()
    of_point: dict[tuple[float, float], Pair] = {}
    for k, first in enumerate(order):
        for pair in (Pair(first, then, sure) for then in order[k + 1 :] for sure in SURE):
            agreed = float((pair.index_n(answers) == answers.teacher_n).mean())
            of_point.setdefault((float(pair.bytes_n(answers).mean()), 100 * agreed), pair)
    return [of_point[size, score] for size, score in upper_hull(of_point).tolist()]


def _summary(method: Method, chosen: Sequence[Pair], answers: Answers, label_n: NDArray[np.int64]) -> dict[str, Any]:
    """Return one method's part of the report: single settings, pairs, and what the pairs save."""
    size_ns = np.column_stack([answers.bytes_ns, *(pair.bytes_n(answers) for pair in chosen)])
    index_ns = np.column_stack([answers.index_ns, *(pair.index_n(answers) for pair in chosen)])
    right_ns, teacher_n = index_ns == label_n[:, None], answers.teacher_n == label_n
    single = len(method.settings)
    names = ["single"] * single + ["escalated"] * len(chosen)
    points = [*zip(size_ns.mean(axis=0).tolist(), (100 * right_ns.mean(axis=0)).tolist(), strict=True)]
    hulls = {"single": upper_hull(points[:single]), "escalated": upper_hull(points[single:])}
    drawn = Resampled(right_ns, size_ns, teacher_n, methods=names, floors=[0] * len(names))
    teacher = 100 * float(teacher_n.mean())
    rate = bd_rate(hulls["single"], hulls["escalated"], teacher=teacher)
    return {
        "method": method.name,
        "bundle": method.bundle,
        "single": [
            {"setting": words, "bytes_mean": size, "top1": top1}
            for words, (size, top1) in zip(method.settings, points, strict=False)
        ],
        "escalated": [
            {
                "first": method.settings[pair.first],
                "then": method.settings[pair.then],
                "sure": pair.sure,
                "asked_again": 100 * float(pair.asked_again(answers).mean()),
                "bytes_mean": size,
                "top1": top1,
            }
            for pair, (size, top1) in zip(chosen, points[single:], strict=True)
        ],
        "bytes_at_equal_score": [
            {"top1_minus_teacher": -below, **{name: bytes_at(hull, teacher - below) for name, hull in hulls.items()}}
            for below in BELOW
        ],
        "bd_rate": rate.value,
        "bd_rate_ci95": drawn.rate("single", "escalated"),
    }


def _methods(options: argparse.Namespace) -> list[Method]:
    ours = [Method(name, Device(name, threads=1), Edge(name, threads=1), None) for name in options.bundles.split(",")]
    codecs = codecs_named([name for name in options.codecs.split(",") if name])
    return [*ours, *(Method(codec.name, ours[0].device, ours[0].edge, codec) for codec in codecs)]


if __name__ == "__main__":
    sys.exit(main())
