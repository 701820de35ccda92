"""Block of docs/demo-page.md: whether a browser makes the same packets as a device.   used by: blocks.py"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def browser(report: Mapping[str, Any]) -> list[str]:
    """Return how far Chromium and the device agree, out of reports/browser.json."""
    crops, symbols, packets, first = (
        _percent(report[f"{name}_equal_percent"]) for name in ("crops", "symbols", "packets", "top1")
    )
    return [
        f"On {report['images']} photographs at all levels of `{report['bundle']}` (`benchmarks/browser.py`, "
        "`reports/browser.json`; Chromium):",
        f"{crops} of the crops equal in every pixel, {symbols} of the symbols equal and none off by more than "
        f"{report['symbol_largest_difference']} (floating point differs in the encoder graph),",
        f"{packets} of the packets identical, the same first answer for {first}.",
    ]


def _percent(value: float) -> str:
    """Return per cent with all decimals that the report has, so that nothing is rounded up to a hundred here."""
    return f"{value:.6f}".rstrip("0").rstrip(".") + " %"
