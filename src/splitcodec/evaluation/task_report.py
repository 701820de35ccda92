"""A `TaskReport` -> Markdown, JSON and a plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from splitcodec.evaluation.drawing import CROWDED, Kind, Style, dress, figure, legend, plain_numbers, png, styles, words
from splitcodec.evaluation.hull import upper_hull
from splitcodec.evaluation.output import legible, write_whole
from splitcodec.evaluation.result import OURS, UNDERTRAINED
from splitcodec.evaluation.task_result import TaskReport

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
        f"{report.task}.png": plot(report),
    }
    return write_whole(folder, files)


def plot(report: TaskReport) -> bytes:
    """Draw upper hulls, as of classification: ours thick, with all its points; undertrained ones dashed and hollow."""
    methods = list(dict.fromkeys(point.method for point in report.points))
    crowded = len(methods) > CROWDED
    drawn_on = figure(9.5 if crowded else 7, 4.5)
    axes = drawn_on.subplots()
    kinds = _kinds(report, methods)
    for method in kinds:
        _curve(axes, report, method=method, style=styles(kinds)[method])
    best = report.teacher[report.score]
    label = f"task teacher, uncompressed: {best:.1f} %"
    axes.axhline(best, color="#555555", linewidth=1.2, linestyle=(0, (6, 3)), zorder=1, label=label)
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set_xlabel("bytes per picture (mean, log scale)")
    axes.set_ylabel(f"{_WORDS[report.score]}, %")
    where = f"{report.data} ({report.split}, {report.images} pictures)"
    dress(axes, title=f"{report.bundle}: {report.task} on {where}")
    legend(drawn_on, axes, crowded=crowded)
    return png(drawn_on)


def _kinds(report: TaskReport, methods: list[str]) -> dict[str, Kind]:
    """Return each method's kind, in the order of the legend: ours, image codecs by name, other bundles."""
    rivals = [one for one in methods if one in report.trained]
    codecs = sorted(one for one in methods if one != OURS and one not in rivals)
    kinds: dict[str, Kind] = {one: "ours" for one in methods if one == OURS}
    return kinds | dict.fromkeys(codecs, "codec") | dict.fromkeys(rivals, "rival")


def _curve(axes: Any, report: TaskReport, *, method: str, style: Style) -> None:
    some = [(one.bytes_mean, one.scores[report.score]) for one in report.points if one.method == method]
    weak, ours = report.trained.get(method) == UNDERTRAINED, method == OURS
    hull = upper_hull(some)
    axes.plot(
        hull[:, 0],
        hull[:, 1],
        color=style.colour,
        linewidth=2.4 if ours else 1.2,
        linestyle="--" if weak else "-",
        zorder=5 if ours else 3,
    )
    axes.plot(
        *zip(*(some if ours else hull.tolist()), strict=True),
        linestyle="none",
        marker=style.marker,
        markersize=6 if ours else 4.5,
        color=style.colour,
        markerfacecolor="white" if weak else style.colour,
        label=words(report.label(method)),
        zorder=6 if ours else 4,
    )
