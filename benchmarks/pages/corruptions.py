"""Section of docs/results.md: packets and codecs on corrupted photographs, out of reports/corruptions.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pages.marked import table


def corruptions(report: Mapping[str, Any]) -> list[str]:
    """Return the section."""
    dials = ", ".join(f"{name} at {words}" for name, words in report["settings"].items())
    return [
        "## Corrupted photographs",
        "",
        "Noise, blur, light and a camera's own JPEG as ImageNet-C defines them (Hendrycks and Dietterich, ICLR 2019):",
        f"{report['photographs']} photographs of `{report['data']}`, `{report['bundle']}` at level {report['level']},",
        f"codecs at the cheapest settings that score as well on clean photographs ({dials}).",
        "Nothing here was trained on such photographs. The teacher reads the same corrupted picture uncompressed;",
        "differences from it are paired, ours with its 95 % interval.",
        "",
        *table(head(report), rows(report)),
        "",
        f"Command: `{report['command']}`.",
        "",
    ]


def head(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns' names."""
    names = report["cases"][0]["methods"]
    return (
        "photographs",
        "severity",
        "teacher, %",
        *(f"{name}, {what}" for name in names for what in ("bytes", "minus teacher")),
    )


def rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row per corruption and severity, and one of the means over all that are corrupted."""
    cases: Sequence[Mapping[str, Any]] = report["cases"]
    made = [
        (
            case["corruption"] or "clean",
            str(case["severity"] or "-"),
            f"{case['teacher_top1']:.1f}",
            *(
                cell
                for name, one in case["methods"].items()
                for cell in (f"{one['bytes_mean']:,.0f}", _gap(one["minus_teacher"], interval=name == "splitcodec"))
            ),
        )
        for case in cases
    ]
    corrupted = [case for case in cases if case["corruption"]]
    means = [
        cell
        for name in cases[0]["methods"]
        for cell in (
            f"{np.mean([case['methods'][name]['bytes_mean'] for case in corrupted]):,.0f}",
            f"{np.mean([case['methods'][name]['minus_teacher'][0] for case in corrupted]):+.1f}",
        )
    ]
    return [*made, ("mean, corrupted", "", f"{np.mean([case['teacher_top1'] for case in corrupted]):.1f}", *means)]


def _gap(difference: Sequence[float], *, interval: bool) -> str:
    gap, low, high = difference
    return f"{gap:+.1f}" + (f" [{low:+.1f}, {high:+.1f}]" if interval else "")
