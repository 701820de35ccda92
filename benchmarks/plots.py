"""Draws the plots in reports/ anew out of the JSON beside them, as after a change of how they look. Measures nothing.

    python benchmarks/plots.py

Run by `make plots`, so that all plots draw a method alike, however old their reports are.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from outcome import exit_code

from latency_parts.plot import plot
from pages.reports import read_report
from splitcodec.evaluation.codecs import CODECS
from splitcodec.evaluation.output import write_whole
from splitcodec.evaluation.plots import curves, frontier
from splitcodec.evaluation.result import EncoderCost, Point, Report
from splitcodec.evaluation.task_report import plot as task_plot
from splitcodec.evaluation.task_result import SCORES, TaskPoint, TaskReport

REPORTS = Path(__file__).parent.parent / "reports"
ARENAS, TASKS, LATENCY = ("rate_accuracy", "ablations"), ("detect", "segment"), "latency.json"  # any may be missing


def main() -> int:
    """Draw them; returns the exit code: 0, 2 for a report that is none, 130."""
    return exit_code(_draw)


def _draw() -> None:
    for name in ARENAS:
        if (path := REPORTS / name / "rd.json").exists():
            report = arena(read_report(path))
            write_whole(path.parent, {"rd.png": curves(report), "frontier.png": frontier(report)})
    for name in TASKS:
        if (path := REPORTS / name / f"{name}.json").exists():
            write_whole(path.parent, {f"{name}.png": task_plot(task(read_report(path)))})
    if (path := REPORTS / LATENCY).exists():
        write_whole(path.parent, {path.with_suffix(".png").name: plot(read_report(path))})


def arena(body: dict[str, Any]) -> Report:
    """Return of an rd.json what the plots show."""
    points = tuple(
        Point(
            one["method"],
            one["setting"],
            one["bytes_mean"],
            one["top1"],
            None,
            None if (ends := one.get("top1_minus_teacher_ci95")) is None else (ends[0], ends[1]),
        )
        for one in body["points"]
    )
    costs = {
        method: EncoderCost(
            cost["macs"], cost["parameters"], cost["bytes"], None, None, ours=cost["ours"], trained=cost["trained"],
            teacher=cost.get("teacher"),
        )
        for method, cost in body["encoders"].items()
    }  # fmt: skip
    return Report(
        bundle=body["bundle"],
        data=body["data"],
        images=body["images"],
        teacher_top1=body["teacher_top1"],
        points=points,
        encoders=costs,
        codecs=tuple(one.name for one in CODECS),
        bd={},  # no plot shows this and what follows
        bd_rate_matrix={},
        overhead_bytes={},
        machine={},
        equal_score=(),
        contrasts=(),
        contrasts_of_kin=(),
        skipped=(),
        notes=(),
        commit=None,
        seconds=0.0,
    )


def task(body: dict[str, Any]) -> TaskReport:
    """Return of a task's JSON what the plot shows."""
    names = SCORES[body["task"]]
    points = tuple(
        TaskPoint(one["method"], one["setting"], one["bytes_mean"], {name: one[name] for name in names})
        for one in body["points"]
    )
    return TaskReport(
        task=body["task"],
        teacher=body["teacher"],
        points=points,
        bundle=body["bundle"],
        data=body["data"],
        split=body["split"],
        images=body["images"],
        side=body["side"],
        skipped=(),
        seconds=0.0,
        trained=body["trained"],
    )


if __name__ == "__main__":
    sys.exit(main())
