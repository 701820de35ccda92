"""A `TaskReport` -> Markdown, JSON and a plot."""

from __future__ import annotations

import json
from pathlib import Path

from splitcodec.errors import MissingExtra, OutputError
from splitcodec.evaluation.result import OURS
from splitcodec.evaluation.tasks import TaskReport

_WORDS = {"map50": "mAP@.5", "map": "mAP@[.5:.95]", "miou": "mIoU", "pixel_accuracy": "pixel accuracy"}


def task_markdown(report: TaskReport) -> str:
    """Return the report for people."""
    names = list(report.teacher)
    teacher = ", ".join(f"{_WORDS[name]} {report.teacher[name]:.1f} %" for name in names)
    lines = [
        f"{report.bundle}, task {report.task}: {report.images} pictures of {report.data} ({report.split}), "
        f"longest side {report.side}. Uncompressed task teacher: {teacher}.",
        "",
        f"| method | setting | bytes | {' | '.join(_WORDS[name] + ', %' for name in names)} |",
        "|---" * (3 + len(names)) + "|",
    ]
    for point in report.points:
        scores = " | ".join(f"{point.scores[name]:.1f}" for name in names)
        lines.append(f"| {point.method} | {point.setting} | {point.bytes_mean:,.0f} | {scores} |")
    methods = list(dict.fromkeys(point.method for point in report.points))
    lines += ["", f"Bytes at equal {_WORDS[report.score]} (upper hulls):", ""]
    lines += [f"| below the teacher | {' | '.join(methods)} |", "|---" * (1 + len(methods)) + "|"]
    for row in report.equal_score():
        cells = ["-" if row["bytes"][name] is None else f"{row['bytes'][name]:,.0f}" for name in methods]
        lines.append(f"| {row['below']:g} points | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_task_report(report: TaskReport, folder: Path) -> None:
    """Write `<task>.json`, `<task>.md` and `<task>.png`. Raises OutputError, MissingExtra without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtra(f"plots need {error.name}; install it with: pip install 'splitcodec[eval]'") from None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for method in dict.fromkeys(point.method for point in report.points):
        some = sorted((one.bytes_mean, one.scores[report.score]) for one in report.points if one.method == method)
        style = "o-" if method == OURS else "."
        axes.plot([size for size, _ in some], [score for _, score in some], style, label=method)
    axes.axhline(report.teacher[report.score], color="grey", linestyle="--", label="task teacher, uncompressed")
    axes.set_xscale("log")
    axes.set_xlabel("bytes per picture")
    axes.set_ylabel(f"{_WORDS[report.score]}, %")
    axes.set_title(f"{report.bundle}: {report.task} on {report.data} ({report.split}, {report.images} pictures)")
    axes.legend()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{report.task}.json").write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
        (folder / f"{report.task}.md").write_text(task_markdown(report) + "\n", encoding="utf-8")
        figure.savefig(folder / f"{report.task}.png", dpi=120)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from None
