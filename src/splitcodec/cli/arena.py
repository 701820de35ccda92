"""Commands that measure: evaluate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from splitcodec.cli.show import (
    DEFAULT_BUNDLE,
    BundleOption,
    JsonOption,
    PicturesAtATimeOption,
    complain,
    counter,
    print_json,
    progress,
)
from splitcodec.errors import SettingsError


class SweepChoice(StrEnum):
    """How much of a codec's settings and resolutions to try: full takes about twice the time of lean."""

    lean = "lean"
    full = "full"


class TaskChoice(StrEnum):
    """What a bundle may be scored for."""

    classify = "classify"
    detect = "detect"
    segment = "segment"


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("evaluate", rich_help_panel="Measuring")(evaluate)


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Labelled photographs: <class index>_*.jpg, or folders by wnid or class; VOC, COCO, CamVid.",
        ),
    ],
    task: Annotated[TaskChoice, typer.Option("--task", help="What is scored.")] = TaskChoice.classify,
    split: Annotated[
        str | None, typer.Option("--split", help="Of VOC, COCO or CamVid: which split. Default: val.")
    ] = None,
    bundle: BundleOption = DEFAULT_BUNDLE,
    codecs: Annotated[
        str,
        typer.Option(
            "--codecs",
            help="Image codecs to measure beside it: jpeg,jpeg444,webp,avif,jp2,jxl,hevc,hevc444,vvc. Default: none.",
        ),
    ] = "",
    sweep: Annotated[
        SweepChoice,
        typer.Option("--sweep", help="Settings and resolutions to try per codec; full takes twice as long."),
    ] = SweepChoice.lean,
    rival: Annotated[
        list[str] | None,
        typer.Option(
            "--rival",
            metavar="[METHOD=]B[,B...]",
            help="A bundle to measure beside it, or several, one per rate, as one METHOD; repeatable.",
        ),
    ] = None,
    points: Annotated[
        list[Path] | None,
        typer.Option(
            "--points", metavar="FILE", help="Points of other programs, or of earlier runs of a task; repeatable."
        ),
    ] = None,
    memory: Annotated[
        Path | None, typer.Option("--memory", metavar="FILE", help="Keeps what codecs gave, for the next run.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Writes rd.json, rd.png, frontier.png, report.md; of a task TASK.json, .md, .png.",
        ),
    ] = None,
    threads: PicturesAtATimeOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure scores against bytes: every level through real packets, the uncompressed teacher, rivals, image codecs.

    Top-1 for classification, mAP for --task detect, mIoU for --task segment. Pictures that cannot be read are left out;
    the report lists them under "skipped".
    """
    classifies = task is TaskChoice.classify
    if memory and not classifies:
        raise SettingsError(f"--memory is for --task classify; leave it out for {task.value}")
    if split is not None and classifies:
        raise SettingsError(
            f"--split {split!r:.40} is for --task detect and segment, whose data sets say which picture is in which "
            "split; for classify give the split's own folder as --data"
        )
    from splitcodec.evaluation import rate, report, task_report, tasks
    from splitcodec.evaluation.rivals import parse_rival
    from splitcodec.evaluation.sweep import full_sweep, lean_sweep

    _make_ready(out)
    with progress() as bar:
        asked: dict[str, Any] = {
            "codecs": [name.strip() for name in codecs.split(",") if name.strip()],
            "rivals": [one for text in rival or [] for one in parse_rival(text)],
            "points_files": points or [],
            "progress": counter(bar, "evaluating"),
            "threads": threads,
        }
        if classifies:
            swept = full_sweep if sweep is SweepChoice.full else lean_sweep
            found = rate.evaluate(bundle, data, sweep=swept, memory_file=memory, **asked)
        else:
            asked |= {"split": "val" if split is None else split, "sweep": sweep.value}
            scored = tasks.evaluate_task(
                bundle, data, task="detect" if task is TaskChoice.detect else "segment", **asked
            )
    if classifies:
        skipped = [f"{name}: {reason}" for name, reason in found.skipped]
        _tell(found, out, skipped=skipped, words=report.markdown, write=report.write_report, json_=json_)
    else:
        write = task_report.write_task_report
        _tell(scored, out, skipped=scored.skipped, words=task_report.task_markdown, write=write, json_=json_)


def _make_ready(out: Path | None) -> None:
    """Refuse now what would lose the run at its end. Raises OutputError, MissingExtra."""
    from splitcodec.evaluation.drawing import check_plots
    from splitcodec.wire.durable import check_folder

    if out is not None:
        check_plots()
        check_folder(out)


def _tell(
    report: Any,
    out: Path | None,
    *,
    skipped: Sequence[str],
    words: Callable[[Any], str],
    write: Callable[[Any, Path], object],
    json_: bool,
) -> None:
    """Print a report, say what was left out, and only then write it: disks get full."""
    if json_:
        print_json(report.to_json())
    else:
        print(words(report))
    if skipped:
        pictures = "picture" if len(skipped) == 1 else "pictures"
        complain(f"{len(skipped)} {pictures} left out, {report.images} measured; the first: {skipped[0]}")
    if out is not None:
        write(report, out)
