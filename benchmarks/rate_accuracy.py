"""Rate and accuracy of our bundles, of rivals trained here and of image codecs, in one run on the same crops.

    python benchmarks/rate_accuracy.py --data DIR --out reports/rate_accuracy

The first of --bundles is the main one ("splitcodec", and the teacher); the others are ours under their own names.
Rivals are all bundles in a folder: FOLDER/NAME/, FOLDER/NAME/bundle/ (a run with its export in it) or FOLDER/NAME.zip;
names that differ only in the rate behind the last "_" are one method: paper_beta20 and paper_beta80 are "paper".
What --bundles names is no rival besides. Ablations (recipes/ablations) are runs measured the same way:

    python benchmarks/rate_accuracy.py --data DIR --bundles runs/ablations/whole/bundle --rivals runs/ablations
        --codecs jpeg --out reports/ablations

What image codecs gave is kept in --memory, so a run that was killed goes on where it was; bundles are measured anew.
Writes rd.json, rd.png, frontier.png and report.md, whole and at the end, and prints the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from outcome import exit_code

from results import summary_table
from splitcodec.cli.show import complain, progress
from splitcodec.evaluation.drawing import check_plots
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.report import write_report
from splitcodec.evaluation.rivals import Rival, rivals_below
from splitcodec.evaluation.sweep import full_sweep, lean_sweep
from splitcodec.wire.bundle import zoo_names
from splitcodec.wire.durable import made_folder

CODECS = "jpeg,jpeg444,webp,avif,jp2,jxl,hevc,hevc444,vvc"
MAIN = "efficientnet-lite0"
RIVALS = Path("runs/rivals")
MEMORY = Path("runs/rate_accuracy.codecs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    options = _options(arguments)
    return exit_code(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> None:
    check_plots()
    made_folder(options.out)  # before the work rather than after it
    first, *others = _names(options.bundles) or _zoo()
    rivals = [Rival((name,), ours=True) for name in others]
    folder = options.rivals or (RIVALS if RIVALS.is_dir() else None)
    if folder is not None:
        found, left_out = rivals_below(folder)
        chosen = {Path(name).resolve() for name in (first, *others)}
        rivals += [one for one in found if not chosen & {Path(str(bundle)).resolve() for bundle in one.bundles}]
        if left_out:
            complain(f"{folder}: no bundle in {', '.join(left_out)}; left out")
    with progress() as bar:
        task = bar.add_task("evaluating", total=None, note="")
        report = evaluate(
            first,
            options.data,
            codecs=_names(options.codecs),
            sweep=full_sweep if options.sweep == "full" else lean_sweep,
            rivals=rivals,
            points_files=options.points,
            memory_file=options.memory,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            threads=options.threads,
        )
    report = replace(report, command=_command(options))
    written = write_report(report, options.out)
    print(summary_table(report.to_json()))
    print(f"\nwritten: {', '.join(str(path) for path in written)}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled photographs, as `evaluate`")
    parser.add_argument("--out", type=Path, default=Path("reports/rate_accuracy"), metavar="DIR")
    parser.add_argument("--codecs", default=CODECS, help="default: all")
    parser.add_argument("--bundles", default="", metavar="B,...", help=f"default: {MAIN} and its kin in the zoo")
    parser.add_argument("--rivals", type=Path, metavar="FOLDER", help=f"default: {RIVALS}, if it is there")
    parser.add_argument("--points", type=Path, action="append", default=[], metavar="FILE", help="repeatable")
    parser.add_argument("--sweep", choices=("lean", "full"), default="lean", help="settings and resolutions per codec")
    parser.add_argument("--memory", type=Path, default=MEMORY, metavar="FILE", help=f"default: {MEMORY}")
    parser.add_argument("--threads", type=int, help="pictures at a time; default: all cores")
    return parser.parse_args(arguments)


def _zoo() -> list[str]:
    """Return the main bundle and its kin, as far as they ship."""
    shipped = {name.partition("@")[0] for name in zoo_names()}
    return [MAIN, *sorted(name for name in shipped if name.startswith(f"{MAIN}-"))]


def _command(options: argparse.Namespace) -> str:
    """Return what repeats the run; folders outside the checkout are the reader's own."""
    out = "OUT" if options.out.is_absolute() else options.out.as_posix()
    words = [f"python benchmarks/rate_accuracy.py --data DIR --out {out}"]
    words += [f"--codecs {options.codecs}"] if options.codecs != CODECS else []
    words += [f"--bundles {','.join(_told(Path(one)) for one in _names(options.bundles))}"] if options.bundles else []
    words += [f"--rivals {_told(options.rivals, 'FOLDER')}"] if options.rivals else []
    words += [f"--points {_told(path)}" for path in options.points]
    words += [f"--sweep {options.sweep}"] if options.sweep != "lean" else []
    return " ".join(words)


def _told(path: Path, name: str = "") -> str:
    """Return a place as a command of this checkout tells it, of one outside the name alone."""
    return (name or path.name) if path.is_absolute() else path.as_posix()


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    sys.exit(main())
