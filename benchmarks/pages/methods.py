"""What the arena's reports say of a method, in words.   used by: ablations.py, benchmarks/results.py"""

from __future__ import annotations

from typing import Any

OURS, UNDERTRAINED, ANOTHER = "splitcodec", "undertrained", "another network"


def methods(rate: dict[str, Any]) -> list[str]:
    """Return all methods, in their order."""
    return list(dict.fromkeys(point["method"] for point in rate["points"]))


def cost_of(rate: dict[str, Any], method: str) -> dict[str, Any]:
    """Return what a method's encoder costs; nothing for image codecs, and in reports from before it was told."""
    found: dict[str, Any] = rate.get("encoders", {}).get(method, {})
    return found


def named(rate: dict[str, Any], method: str) -> str:
    """Return a method's name, with why nothing is claimed against it."""
    marks = [ANOTHER] * (cost_of(rate, method).get("teacher") == ANOTHER)
    marks += [UNDERTRAINED] * is_undertrained(rate, method)
    return f"{method} ({', '.join(marks)})" if marks else method


def is_undertrained(rate: dict[str, Any], method: str) -> bool:
    """Say whether a method was trained too briefly to be judged by."""
    return bool(cost_of(rate, method).get("trained") == UNDERTRAINED)


def millions(number: float | None) -> str:
    """Return a number in millions; nothing where it is not known."""
    return "" if number is None else f"{number / 1e6:,.0f} M"


def signed(value: float | None, digits: int, unit: str = "") -> str:
    """Return a difference with its sign; a dash where there is none."""
    return "-" if value is None else f"{value:+.{digits}f}{unit}"


def count(size: float | None) -> str:
    """Return bytes or pictures as a whole number; a dash where there is none."""
    return "-" if size is None else f"{size:,.0f}"
