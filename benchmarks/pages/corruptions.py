"""Packets and codecs on corrupted photographs: a section of docs/results.md, and a limit of README's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from pages.marked import table
from pages.reports import read_report
from splitcodec.errors import DataError

REPORT: Final = Path("reports/corruptions.json")  # may be missing
OTHER: Final = Path("reports/corruptions_unswitched.json")  # may be missing: the same packets, the decoder of before
OURS, BEFORE = "splitcodec", "one decoder"


def corruptions(root: Path) -> list[str]:
    """Return the section; nothing without a report below a checkout's root."""
    return section(_read(root)) if (root / REPORT).exists() else []


def spoilt(root: Path) -> list[str]:
    """Return README's words about corrupted pictures: what a packet and the first codec lose, in how many bytes."""
    return limit(_read(root)) if (root / REPORT).exists() else []


def _read(root: Path) -> dict[str, Any]:
    """Return the report, and in it what another decoder makes of the same packets, where that was measured."""
    report: dict[str, Any] = read_report(root / REPORT)
    if not (root / OTHER).exists():
        return report
    pairs = zip(report["cases"], read_report(root / OTHER)["cases"], strict=True)
    return {
        **report,
        "cases": [{**case, "methods": _beside(case["methods"], other["methods"])} for case, other in pairs],
    }


def _beside(methods: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    if methods[OURS]["bytes_mean"] != others[OURS]["bytes_mean"]:
        raise DataError(f"{OTHER} is of other packets than {REPORT}; measure both anew (`benchmarks/corruptions.py`)")
    return {OURS: methods[OURS], BEFORE: others[OURS], **methods}


def section(report: Mapping[str, Any]) -> list[str]:
    """Return the section of a report."""
    dials = ", ".join(f"{name} at {words}" for name, words in report["settings"].items())
    return [
        "## Corrupted photographs",
        "",
        "Noise, blur, light and a camera's own JPEG as ImageNet-C defines them (Hendrycks and Dietterich, ICLR 2019):",
        f"{report['photographs']} photographs of `{report['data']}`, `{report['bundle']}` at level {report['level']},",
        f"codecs at the cheapest settings that score as well on clean photographs ({dials}).",
        "The teacher reads the same corrupted picture uncompressed; differences from it are paired, ours with its",
        "95 % interval. Above 0 a packet is answered better than the network answers the corrupted picture itself.",
        *(_BEFORE_TOLD if BEFORE in report["cases"][0]["methods"] else []),
        "",
        *table(head(report), rows(report)),
        "",
        f"Command: `{report['command']}`.",
        "",
    ]


_BEFORE_TOLD: Final = (
    "",
    f"`{BEFORE}`: the same packets as they were answered before the decoder had a switch, by what it learned of clean",
    "pictures alone. What it learned since of noisy, blurred, flat and badly lit ones, held against the teacher on",
    "clean ones, serves the packets that look so ([how](train-your-own.md#noise-blur-and-light)). JPEG and pixelation",
    "it has never seen.",
)


def limit(report: Mapping[str, Any]) -> list[str]:
    """Return README's words of a report."""
    cases: Sequence[Mapping[str, Any]] = report["cases"]
    corrupted = [case for case in cases if case["corruption"]]
    clean = [case for case in cases if not case["corruption"]]
    names = [name for name in cases[0]["methods"] if name != BEFORE][:2]
    told = [
        f"{_mean(corrupted, name, 'bytes'):,.0f} bytes ({_mean(clean, name, 'bytes'):,.0f} clean) and scores "
        f"{-_mean(corrupted, name, 'points'):.1f} points ({-_mean(clean, name, 'points'):.1f})"
        for name in names
    ]
    worst = min(corrupted, key=lambda case: float(case["methods"][OURS]["minus_teacher"][0]))
    lost = (f"{-worst['methods'][name]['minus_teacher'][0]:.1f}" for name in names)
    return [
        f"- **Corrupted pictures cost accuracy**: over {len(corrupted)} of ImageNet-C's corruptions a packet has",
        f"  {told[0]} below the network on the same picture uncompressed,",
        f"  a file of {names[1]} {told[1]}. Worst is {worst['corruption']} of severity {worst['severity']}: "
        + " and ".join(lost)
        + " points",
        "  ([more](docs/results.md#corrupted-photographs)).",
        *(_mended(corrupted, clean) if BEFORE in cases[0]["methods"] else []),
    ]


def _mended(corrupted: Sequence[Mapping[str, Any]], clean: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"  From the same packets the decoder lost {-_mean(corrupted, BEFORE, 'points'):.1f} points "
        f"({-_mean(clean, BEFORE, 'points'):.1f} clean) before it knew disturbed pictures;",
        "  those of the other bundles know none yet ([how](docs/train-your-own.md#noise-blur-and-light)).",
    ]


def _mean(cases: Sequence[Mapping[str, Any]], name: str, what: str) -> float:
    found = (case["methods"][name] for case in cases)
    return float(np.mean([one["bytes_mean"] if what == "bytes" else one["minus_teacher"][0] for one in found]))


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
                for cell in (f"{one['bytes_mean']:,.0f}", _gap(one["minus_teacher"], interval=name in (OURS, BEFORE)))
            ),
        )
        for case in cases
    ]
    corrupted = [case for case in cases if case["corruption"]]
    means = [
        cell
        for name in cases[0]["methods"]
        for cell in (
            f"{_mean(corrupted, name, 'bytes'):,.0f}",
            f"{_mean(corrupted, name, 'points'):+.1f}",
        )
    ]
    return [*made, ("mean, corrupted", "", f"{np.mean([case['teacher_top1'] for case in corrupted]):.1f}", *means)]


def _gap(difference: Sequence[float], *, interval: bool) -> str:
    gap, low, high = difference
    return f"{gap:+.1f}" + (f" [{low:+.1f}, {high:+.1f}]" if interval else "")
