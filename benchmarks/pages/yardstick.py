"""Section of docs/results.md: the paper's published figures and ours, each against HEVC intra on its own pictures.

The paper's student cannot be had trained here, and its figures are of another teacher and other pictures, so bytes do
not compare. HEVC intra was measured on both sides (BPG is a container of it): bytes of a student at some points below
its teacher over those of HEVC as far below its own as the published BPG is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from splitcodec.evaluation.hull import bytes_at, upper_hull

FIGURES = "reports/paper_figures.json"
HEVC = ("hevc", "hevc444")


def yardstick(rate: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    """Return the section, out of the arena's report and the published figures."""
    teacher, codec = figures["teacher_top1"], figures["yardstick"]
    student = max(figures["student"], key=lambda point: float(point["top1"]))
    below, codec_below = teacher - student["top1"], teacher - codec["top1"]
    size, codec_size = 1024 * student["kib"], 1024 * codec["kib"]
    cost = figures["encoder"]
    rows = [
        [
            "the paper's student, as published",
            *_cost(cost),
            f"{size:,.0f}",
            f"{codec_size:,.0f}",
            _fewer(size, codec_size),
        ]
    ]
    reached = [bytes_at(_hull(rate, name), rate["teacher_top1"] - codec_below) for name in HEVC]
    hevc = min((found for found in reached if found is not None), default=None)
    for name, found in rate.get("encoders", {}).items():
        if found.get("ours"):
            ours = bytes_at(_hull(rate, name), rate["teacher_top1"] - below)
            told = (
                ["not reached", "", ""]
                if ours is None or hevc is None
                else [f"{ours:,.0f}", f"{hevc:,.0f}", _fewer(ours, hevc)]
            )
            rows.append([found["bundles"][0], *_cost(found), *told])
    return [
        "## Beside the paper's published figures",
        "",
        f"No claim: those are of another teacher ({figures['teacher']}, {teacher:g} %) and of",
        f"{figures['data']}, ours of {rate['images']} pictures of `{rate['data']}`, so bytes do not compare.",
        "Nearer to a comparison, though some networks lose more by coarse coding than others, is what each saves",
        f"against HEVC intra on its own pictures: bytes {below:.2f} points below the teacher, over those of HEVC",
        f"{codec_below:.2f} points below it, where BPG was published (ours: the better of {_either(HEVC)}).",
        "",
        f"| student | encoder MACs | parameters | bytes at -{below:.2f} | HEVC intra at -{codec_below:.2f} | fewer |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"Published: {figures['source']} (`{FIGURES}`).",
        "",
    ]


def _either(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _hull(rate: Mapping[str, Any], method: str) -> Any:
    return upper_hull((one["bytes_mean"], one["top1"]) for one in rate["points"] if one["method"] == method)


def _cost(cost: Mapping[str, Any]) -> list[str]:
    return [f"{cost['macs'] / 1e6:,.0f} M", f"{cost['parameters'] / 1000:,.0f} k"]


def _fewer(size: float, other: float) -> str:
    return f"{100 * (1 - size / other):.0f} %"
