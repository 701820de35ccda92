"""A `TaskReport` -> Markdown, JSON and a plot."""

from __future__ import annotations

import json
from pathlib import Path

from splitcodec.evaluation.drawing import figure, plain_numbers, png, words
from splitcodec.evaluation.output import legible, write_whole
from splitcodec.evaluation.result import OURS, UNDERTRAINED
from splitcodec.evaluation.task_result import TaskReport

_WORDS = {"map50": "mAP@.5", "map": "mAP@[.5:.95]", "miou": "mIoU", "pixel_accuracy": "pixel accuracy"}

_CROWDED = 5  # methods above which the legend goes beside the axes


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
        lines.append(f"| {report.label(point.method)} | {point.setting} | {point.bytes_mean:,.0f} | {scores} |")
    methods = list(dict.fromkeys(point.method for point in report.points))
    lines += ["", f"Bytes at equal {_WORDS[report.score]} (upper hulls):", ""]
    lines += [
        f"| below the teacher | {' | '.join(report.label(one) for one in methods)} |",
        "|---" * (1 + len(methods)) + "|",
    ]
    for row in report.equal_score():
        cells = ["-" if row["bytes"][name] is None else f"{row['bytes'][name]:,.0f}" for name in methods]
        lines.append(f"| {row['below']:g} points | {' | '.join(cells)} |")
    weak = [one for one in methods if report.trained.get(one) == UNDERTRAINED]
    if weak:
        lines += ["", f"Undertrained, so nothing is claimed against them: {', '.join(weak)}."]
    if report.other_runs:
        places = "; ".join(f"{name} at commit {where[:12]}" for name, where in report.other_runs.items())
        lines += ["", f"Measured by an earlier run on the same pictures and task teacher: {places}."]
    return legible("\n".join(lines))


def write_task_report(report: TaskReport, folder: Path) -> list[Path]:
    """Write `<task>.json`, `<task>.md` and `<task>.png` and return their paths.

    Each file appears whole or not at all. Raises OutputError, MissingExtra without matplotlib.
    """
    files = {
        f"{report.task}.json": (json.dumps(report.to_json(), indent=1) + "\n").encode(),
        f"{report.task}.md": (task_markdown(report) + "\n").encode(),
        f"{report.task}.png": _plot(report),
    }
    return write_whole(folder, files)


def _plot(report: TaskReport) -> bytes:
    crowded = len({point.method for point in report.points}) > _CROWDED
    drawn_on = figure(9.5 if crowded else 7, 4.5)
    axes = drawn_on.subplots()
    for method in dict.fromkeys(point.method for point in report.points):
        some = sorted((one.bytes_mean, one.scores[report.score]) for one in report.points if one.method == method)
        weak = report.trained.get(method) == UNDERTRAINED
        style = "o-" if method == OURS else "D--" if weak else "."
        sizes, scores = [size for size, _ in some], [score for _, score in some]
        axes.plot(sizes, scores, style, fillstyle="none" if weak else "full", label=words(report.label(method)))
    axes.axhline(report.teacher[report.score], color="grey", linestyle="--", label="task teacher, uncompressed")
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set_xlabel("bytes per picture")
    axes.set_ylabel(f"{_WORDS[report.score]}, %")
    where = words(f"{report.data} ({report.split}, {report.images} pictures)")
    axes.set_title(f"{report.bundle}: {report.task} on {where}")
    if crowded:
        drawn_on.legend(loc="outside right upper", frameon=False, fontsize=9)
    else:
        axes.legend()
    return png(drawn_on)
