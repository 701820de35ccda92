"""Block of docs/train-your-own.md: classes of a user's own beside image codecs.   used by: blocks.py"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pages.marked import table
from splitcodec.evaluation.hull import bytes_at, upper_hull


def own_classes(report: Mapping[str, Any]) -> list[str]:
    """Return what learned classes answer at which bytes, out of reports/own_classes.json."""
    best = report["top1_uncompressed"]
    return [
        f"For example the {report['classes']} folders of `{report['data']}`: {report['learned_from']:,} pictures to "
        f"learn from, {report['held_out']:,} others to answer. Image codecs come into the same network, whose last "
        "layer learned from uncompressed pictures alone; each at its best settings and resolutions:",
        "",
        *table(*compared(report), left=0),
        "",
        f"Uncompressed: {best['ours']:.1f} % with the last layer that learned from packets as well, "
        f'{best["uncompressed"]:.1f} % with the other; "-" where a codec\'s settings do not meet that score. The '
        "shipped encoders learned to compress on these pictures too, unlabelled, so expect less on others "
        "(`benchmarks/own_classes.py`, `reports/own_classes.json`).",
    ]


def compared(report: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns and rows of each level beside what codecs need for its score, on their upper hulls."""
    codecs = {
        method: upper_hull((one["bytes_mean"], one["top1"]) for one in points)
        for method, points in report["codecs"].items()
    }
    rows = []
    for level, one in enumerate(report["levels"]):
        sizes = (bytes_at(hull, one["top1"]) for hull in codecs.values())
        told = ("-" if size is None else f"{size:,.0f}" for size in sizes)
        rows.append((str(level), f"{one['bytes_mean']:,.0f}", f"{one['top1']:.1f}", *told))
    return ("level", "bytes", "right, %", *(f"{name} as good, bytes" for name in codecs)), rows
