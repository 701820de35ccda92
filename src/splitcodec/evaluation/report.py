"""An evaluation on disk: rd.json, rd.png, report.md.   before: rate.py"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from splitcodec.errors import MissingExtra, OutputError
from splitcodec.evaluation.hull import FEWEST, NEAREST, WIDEST, upper_hull
from splitcodec.evaluation.result import OURS, TEACHER, Report

_OURS_COLOUR = "#d1495b"
# legible on white, also in print; two lists of unlike length, so that colour and marker come together only once
_COLOURS = ("#30638e", "#2e933c", "#7d5ba6", "#b07d12", "#3d3d3d", "#00798c", "#8c5a3c", "#c04a8f")
_MARKERS = ("s", "^", "D", "v", "P", "X", "<")


def write_report(report: Report, folder: str | Path) -> list[Path]:
    """Write rd.json, rd.png and report.md into `folder` and return their paths; each appears whole or not at all.

    Raises OutputError, MissingExtra without matplotlib.
    """
    root = Path(folder)
    files = {
        "rd.json": (json.dumps(report.to_json(), indent=1) + "\n").encode(),
        "rd.png": plot(report),
        "report.md": markdown(report).encode(),
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror or error}); give another folder") from None
    for name, data in files.items():
        _write(root / name, data)
    return [root / name for name in files]


def plot(report: Report) -> bytes:
    """Return a PNG: top-1 over bytes (log scale), hulls drawn through, 95 % intervals as thin bars."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the plot needs {error.name}; install it with: pip install 'splitcodec[eval]'") from None
    figure = Figure(figsize=(8, 5.2), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axhline(report.teacher_top1, color="#555555", linewidth=1.2, linestyle=(0, (6, 3)))
    label = f"teacher, uncompressed: {report.teacher_top1:.1f} %"
    axes.annotate(
        label, (0.01, report.teacher_top1), xycoords=("axes fraction", "data"), va="bottom", fontsize=9, zorder=5
    )
    for k, method in enumerate(sorted(report.methods, key=lambda name: name != OURS)):
        colour = _OURS_COLOUR if method == OURS else _COLOURS[(k - 1) % len(_COLOURS)]
        marker = "o" if method == OURS else _MARKERS[(k - 1) % len(_MARKERS)]
        _curve(axes, report, method=method, colour=colour, marker=marker)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low = min([report.teacher_top1, *(one.top1 for one in report.points)])
    axes.set_ylim(max(low - 3, -2), min(report.teacher_top1 + 6, 104))
    axes.set_xlabel("bytes per picture (mean, log scale)")
    axes.set_ylabel("top-1, %")
    axes.set_title(f"{report.bundle} on {report.images} pictures of {report.data}", fontsize=11, loc="left")
    axes.grid(which="major", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _curve(axes: Any, report: Report, *, method: str, colour: str, marker: str) -> None:
    points = report.of(method)
    hull = upper_hull((one.bytes_mean, one.top1) for one in points)
    width = 2.2 if method == OURS else 1.3
    axes.plot(hull[:, 0], hull[:, 1], color=colour, linewidth=width, zorder=3)
    bars = [one for one in points if one.top1_ci95 is not None]
    if bars:
        gaps = [one.top1 - report.teacher_top1 for one in bars]
        lows = [max(gap - one.top1_ci95[0], 0.0) for gap, one in zip(gaps, bars, strict=True) if one.top1_ci95]
        highs = [max(one.top1_ci95[1] - gap, 0.0) for gap, one in zip(gaps, bars, strict=True) if one.top1_ci95]
        where = [one.bytes_mean for one in bars], [one.top1 for one in bars]
        axes.errorbar(*where, yerr=[lows, highs], fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.55, zorder=2)
    sizes, scores = [one.bytes_mean for one in points], [one.top1 for one in points]
    axes.plot(sizes, scores, linestyle="none", marker=marker, markersize=5.5, color=colour, label=method, zorder=4)


def markdown(report: Report) -> str:
    """Return the report as Markdown tables."""
    lines = [
        f"# {report.bundle}: top-1 against bytes",
        "",
        f"{report.images} pictures of `{report.data}`; top-1 of the uncompressed teacher: {report.teacher_top1:.2f} %.",
        "",
        "![top-1 over bytes](rd.png)",
        "",
        "## Every setting",
        "",
        "Differences from the teacher are paired, with bootstrap 95 % intervals (10,000 resamples).",
        "",
        *_table(
            ("method", "setting", "bytes", "payload", "top-1 %", "minus teacher", "encode ms"),
            (
                (
                    one.method,
                    one.setting,
                    f"{one.bytes_mean:,.0f}",
                    "" if one.payload_mean is None else f"{one.payload_mean:,.0f}",
                    f"{one.top1:.2f}",
                    _gap(one.top1 - report.teacher_top1, one.top1_ci95),
                    "" if one.encode_ms is None else f"{one.encode_ms:.1f}",
                )
                for method in report.methods
                for one in report.of(method)
            ),
        ),
        "",
        "## Bytes at equal score",
        "",
        "Read off the upper hulls by linear interpolation; a dash where a hull does not reach.",
        "",
        *_table(
            ("below teacher", "top-1 %", *report.methods),
            (
                (f"{row.below_teacher:g}", f"{row.top1:.2f}", *(_bytes(row.bytes_of[one]) for one in report.methods))
                for row in report.equal_score
            ),
        ),
        "",
        "## BD-rate and BD-accuracy",
        "",
        f"Bytes of {OURS} against each method over equal scores, from {WIDEST:g} to {NEAREST:g} points below the",
        "teacher or the overlap of the hulls; log bytes, piecewise cubic (PCHIP). Negative: fewer bytes. A dash: fewer",
        f"than {FEWEST} points on a hull, or no overlap. Payload: the same without headers and container.",
        f"BD-accuracy: points of top-1 that {OURS} scores more at equal bytes, on average over the bytes (log) that",
        "both hulls cover.",
        "",
        *_table(
            ("against", "bytes", "payload", "top-1"),
            (
                (
                    name,
                    _signed(rate, " %"),
                    _signed(report.bd_rate_payload[name], " %"),
                    _signed(report.bd_accuracy[name]),
                )
                for name, rate in report.bd_rate.items()
            ),
        ),
        "",
        "## Against the codec setting nearest in bytes",
        "",
        *_table(
            ("ours", "bytes", "theirs", "bytes", "top-1 difference"),
            (
                (one.a, f"{one.bytes_a:,.0f}", one.b, _bytes(one.bytes_b), _gap(one.top1, (one.low, one.high)))
                for one in report.contrasts
                if one.b != TEACHER
            ),
        ),
        "",
        "## Overhead",
        "",
        "Mean of packet bytes minus the ideal code length under the integer tables.",
        "",
        *_table(("level", "bytes"), ((name, f"{extra:.2f}") for name, extra in report.overhead_bytes.items())),
        "",
        "## How it was measured",
        "",
        *(f"- {note}" for note in report.notes),
        *(f"- left out: {name} ({reason})" for name, reason in report.skipped),
        f"- machine: {json.dumps(report.machine)}",
        f"- commit: {report.commit or 'not known (no checkout)'}; {report.seconds:.0f} s",
        "",
    ]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    ruled = "|" + "|".join("---" if k == 0 else "---:" for k in range(len(head))) + "|"
    return [f"| {' | '.join(head)} |", ruled, *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _gap(points: float, interval: tuple[float, float] | None) -> str:
    return f"{points:+.2f}" + ("" if interval is None else f" [{interval[0]:+.2f}, {interval[1]:+.2f}]")


def _signed(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:+.1f}{unit}"


def _bytes(size: float | None) -> str:
    return "-" if size is None else f"{size:,.0f}"


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); give another folder") from None
