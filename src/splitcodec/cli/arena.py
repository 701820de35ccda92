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
    if task is not TaskChoice.classify:
        if memory:
            raise SettingsError(f"--memory is for --task classify; leave it out for {task.value}")
        _evaluate_task(bundle, data, task, split, codecs, sweep, rival, points, out, threads, json_=json_)
        return
    if split is not None:
        raise SettingsError(
            f"--split {split!r:.40} is for --task detect and segment, whose data sets say which picture is in which "
            "split; for classify give the split's own folder as --data"
        )
    from splitcodec.evaluation.rate import evaluate as measure
    from splitcodec.evaluation.report import markdown, write_report
    from splitcodec.evaluation.rivals import parse_rival
    from splitcodec.evaluation.sweep import full_sweep, lean_sweep

    _make_ready(out)
    with progress() as bar:
        shown = bar.add_task("evaluating", total=None, note="")

        def tell(done: int, total: int) -> None:
            bar.update(shown, completed=done, total=total)

        report = measure(
            bundle,
            data,
            codecs=[name.strip() for name in codecs.split(",") if name.strip()],
            sweep=full_sweep if sweep is SweepChoice.full else lean_sweep,
            rivals=[one for text in rival or [] for one in parse_rival(text)],
            points_files=points or [],
            memory_file=memory,
            progress=tell,
            threads=threads,
        )
    skipped = [f"{name}: {reason}" for name, reason in report.skipped]
    _tell(report, out, skipped=skipped, words=markdown, write=write_report, json_=json_)


def _evaluate_task(
    bundle: str,
    data: Path,
    task: TaskChoice,
    split: str | None,
    codecs: str,
    sweep: SweepChoice,
    rival: list[str] | None,
    points: list[Path] | None,
    out: Path | None,
    threads: int | None,
    *,
    json_: bool,
) -> None:
    from splitcodec.evaluation.rivals import parse_rival
    from splitcodec.evaluation.task_report import task_markdown, write_task_report
    from splitcodec.evaluation.tasks import evaluate_task

    _make_ready(out)
    with progress() as bar:
        bar_task = bar.add_task("evaluating", total=None, note="")
        report = evaluate_task(
            bundle,
            data,
            task="detect" if task is TaskChoice.detect else "segment",
            split="val" if split is None else split,
            codecs=[name.strip() for name in codecs.split(",") if name.strip()],
            sweep="full" if sweep is SweepChoice.full else "lean",
            rivals=[one for text in rival or [] for one in parse_rival(text)],
            points_files=points or [],
            progress=lambda done, total: bar.update(bar_task, completed=done, total=total),
            threads=threads,
        )
    _tell(report, out, skipped=report.skipped, words=task_markdown, write=write_task_report, json_=json_)


def _make_ready(out: Path | None) -> None:
    """Refuse now what would lose the run at its end. Raises OutputError, MissingExtra."""
    from splitcodec.evaluation.drawing import check_plots
    from splitcodec.wire.durable import made_folder

    if out is not None:
        check_plots()
        made_folder(out)


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
