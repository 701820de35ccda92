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
OTHER: Final = Path("reports/corruptions_noise.json")  # may be missing: the same packets, another decoder
OURS, TOLERANT = "splitcodec", "decoder for noise"


def corruptions(root: Path) -> list[str]:
    """Return the section; nothing without a report below a checkout's root."""
    return section(_read(root)) if (root / REPORT).exists() else []


def noise(root: Path) -> list[str]:
    """Return README's words about noise: what a packet and the first codec lose, and in how many bytes."""
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
    return {OURS: methods[OURS], TOLERANT: others[OURS], **methods}


def section(report: Mapping[str, Any]) -> list[str]:
    """Return the section of a report."""
    dials = ", ".join(f"{name} at {words}" for name, words in report["settings"].items())
    return [
        "## Corrupted photographs",
        "",
        "Noise, blur, light and a camera's own JPEG as ImageNet-C defines them (Hendrycks and Dietterich, ICLR 2019):",
        f"{report['photographs']} photographs of `{report['data']}`, `{report['bundle']}` at level {report['level']},",
        f"codecs at the cheapest settings that score as well on clean photographs ({dials}).",
        "Nothing here was trained on such photographs. The teacher reads the same corrupted picture uncompressed;",
        "differences from it are paired, ours with its 95 % interval.",
        *(_TOLERANT_TOLD if TOLERANT in report["cases"][0]["methods"] else []),
        "",
        *table(head(report), rows(report)),
        "",
        f"Command: `{report['command']}`.",
        "",
    ]


_TOLERANT_TOLD: Final = (
    "",
    f"`{TOLERANT}`: the same packets, answered with another decoder, which learned on noisy pictures, held",
    "against clean ones (`recipes/efficientnet_lite0_noise.yaml`; no device changes, and it does not ship). Above 0",
    "it answers better than the network does from the corrupted picture itself.",
)


def limit(report: Mapping[str, Any]) -> list[str]:
    """Return README's words of a report."""
    cases: Sequence[Mapping[str, Any]] = report["cases"]
    loud = [case for case in cases if case["corruption"] == "Gaussian noise"][:2]
    clean = [case for case in cases if not case["corruption"]]
    strengths = " and ".join(str(case["severity"]) for case in loud)
    names = [name for name in cases[0]["methods"] if name != TOLERANT][:2]
    told = [
        f"{_listed(loud, name, 'bytes')} bytes ({_listed(clean, name, 'bytes')} clean) and scores "
        f"{_listed(loud, name, 'points')} points ({_listed(clean, name, 'points')})"
        for name in names
    ]
    return [
        "- **Noise costs accuracy rather than bytes.** With Gaussian noise of ImageNet-C's strengths "
        f"{strengths} a packet has",
        f"  {told[0]} below the network on the same picture uncompressed,",
        f"  a file of {names[1]} {told[1]} ([more](docs/results.md#corrupted-photographs)).",
        *(_mended(loud, clean) if TOLERANT in cases[0]["methods"] else []),
    ]


def _mended(loud: Sequence[Mapping[str, Any]], clean: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        "  A decoder that has learned on noisy pictures mends that at the edge, from the same packets: "
        f"{_listed(loud, TOLERANT, 'points')} points ({_listed(clean, TOLERANT, 'points')} clean;",
        "  [how](docs/train-your-own.md#noisy-cameras)); below 0 is better than the network itself.",
    ]


def _listed(cases: Sequence[Mapping[str, Any]], name: str, what: str) -> str:
    found = (case["methods"][name] for case in cases)
    told = (f"{one['bytes_mean']:,.0f}" if what == "bytes" else f"{-one['minus_teacher'][0]:.1f}" for one in found)
    return " and ".join(told)


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
                for cell in (f"{one['bytes_mean']:,.0f}", _gap(one["minus_teacher"], interval=name in (OURS, TOLERANT)))
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
