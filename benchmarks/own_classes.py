"""Classes of a user's own at several rates: packets into a last layer learned for them, against image codecs.

    python benchmarks/own_classes.py --photos DIR --out reports/own_classes.json

DIR has a folder of pictures for each class; one picture in five is only measured. Ours is what `splitcodec
learn-classes` makes. Image codecs come into the same network, whose last layer learned from uncompressed pictures
alone: better for them than one that learned from packets as well. Each is taken at its best setting and resolution.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outcome import exit_code

from pages.classes import compared
from report import at_least_one, ready, write
from splitcodec.ahead import cores
from splitcodec.cli.show import print_table, progress
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.result import OURS
from splitcodec.training.class_vectors import Picture, apart, class_folders, see
from splitcodec.training.own_classes import fit, with_classes
from splitcodec.wire.bundle import Bundle, open_bundle, write_folder

CODECS = "jpeg,webp,avif"
MEMORY = Path("runs/own_classes.seen")
_EVERY = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Learn, measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--photos", type=Path, action="append", required=True, metavar="DIR", help="repeatable")
    parser.add_argument("--codecs", default=CODECS, help=f"default: {CODECS}")
    parser.add_argument("--threads", type=int, metavar="N", help="pictures at a time; default: all cores")
    parser.add_argument("--out", type=Path, default=Path("reports/own_classes.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    at_least_one("--threads", options.threads)
    ready(options.out)
    with tempfile.TemporaryDirectory() as folder:
        report = _measure(options, Path(folder))
    told = argparse.Namespace(**{**vars(options), "photos": " --photos ".join(["DIR"] * len(options.photos))})
    write(report, options.out, name="own_classes.py", options=told)
    _show(report)


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    begin, bundle, threads = time.monotonic(), open_bundle(options.bundle), options.threads or cores()
    found = class_folders(options.photos)
    learned, held = apart(found, every=_EVERY)
    classes, data = list(found), _folder_of(held, list(found), folder / "held")
    with progress() as bar:
        looking, measuring = (bar.add_task(what, total=None, note="") for what in ("looking", "measuring"))
        seen = see(
            bundle,
            learned,
            threads=threads,
            memory=MEMORY,
            progress=lambda done, of: bar.update(looking, completed=done, total=of),
        )
        learnt = time.monotonic() - begin
        layers = {"ours": fit(seen, classes=len(classes))}
        layers["uncompressed"] = fit(seen.of_view(bundle.manifest.levels), classes=len(classes))
        made = {
            name: write_folder(
                with_classes(bundle, layer, classes=classes, name=name, version=1, note={}), folder / name
            )
            for name, layer in layers.items()
        }
        points = _points(made["ours"], data, codecs=[], threads=threads)
        rivals = _points(
            made["uncompressed"],
            data,
            codecs=[one.strip() for one in options.codecs.split(",") if one.strip()],
            threads=threads,
            tell=lambda done, of: bar.update(measuring, completed=done, total=of),
        )
    MEMORY.unlink(missing_ok=True)
    return {
        "bundle": bundle.ident,
        "data": " and ".join(one.resolve().name for one in options.photos),
        "classes": len(classes),
        "learned_from": len(set(seen.picture_n.tolist())),
        "held_out": len(held),
        "seconds_to_look": round(learnt, 1),
        "weight_decay": {name: layer.decay for name, layer in layers.items()},
        "top1_uncompressed": {"ours": points["teacher"], "uncompressed": rivals["teacher"]},
        "levels": points["points"][OURS],
        "codecs": {method: found for method, found in rivals["points"].items() if method != OURS},
    }


def _folder_of(held: Sequence[Picture], classes: Sequence[str], folder: Path) -> Path:
    """Return a folder of links to the pictures held out, one folder a class, as `evaluate` reads it."""
    for number, one in enumerate(held):
        place = folder / classes[one.index] / f"{number:06}{one.path.suffix.lower()}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(one.path.resolve())
    return folder


def _points(bundle: Bundle, data: Path, *, codecs: Sequence[str], threads: int, tell: Any = None) -> dict[str, Any]:
    report = evaluate(bundle, data, codecs=codecs, threads=threads, progress=tell)
    points: dict[str, list[dict[str, Any]]] = {}
    for point in report.points:
        points.setdefault(point.method, []).append(
            {"setting": point.setting, "bytes_mean": round(point.bytes_mean, 2), "top1": round(point.top1, 3)}
        )
    return {"teacher": round(report.teacher_top1, 3), "points": points}


def _show(report: dict[str, Any]) -> None:
    title = f"{report['bundle']}, {report['classes']} classes of {report['data']}, {report['held_out']} held out"
    print_table(title, *compared(report), left=0)


if __name__ == "__main__":
    sys.exit(main())
