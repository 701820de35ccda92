"""Block of docs/train-your-own.md: an imported student beside the code that wrote it.   used by: blocks.py"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def published(report: Mapping[str, Any]) -> list[str]:
    """Return how near the two are, out of reports/published.json."""
    there = report["there"]
    off = max(report["feature_off"], report["logits_off"], report["code_length_off"])
    equal = "all" if report["symbols_equal"] == 1 else f"{100 * report['symbols_equal']:.3f} % of"
    return [
        f"Held against sc2bench {there['sc2bench']} with CompressAI {there['compressai']} on {report['photographs']} "
        "photographs, a ResNet-50 with random weights (the trained ones could not be had here): "
        f"{equal} {report['symbols']:,} symbols are the same; features, answers and code lengths differ by "
        f"{_power(off)} of their largest at most (`benchmarks/published.py`, `reports/published.json`).",
    ]


def _power(value: float) -> str:
    """Return the least power of ten that is not below a value."""
    return f"1e{math.ceil(math.log10(max(value, 1e-12)))}"
