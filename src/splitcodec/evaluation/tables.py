"""Markdown tables, and numbers as their cells say them, with intervals where there are any.   used by: report.py"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from splitcodec.evaluation.bd import Interval


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table's lines; the first column is set left, the others right."""
    ruled = "|" + "|".join("---" if k == 0 else "---:" for k in range(len(head))) + "|"
    first, *others = (f"| {' | '.join(_cell(cell) for cell in row)} |" for row in (head, *rows))
    return [first, ruled, *others]


def gap(points: float, interval: Interval | None) -> str:
    """Return a difference in points: -1.20 [-2.80, +0.40]."""
    return f"{points:+.2f}" + ("" if interval is None else f" [{interval[0]:+.2f}, {interval[1]:+.2f}]")


def signed(value: float | None, unit: str = "", interval: Interval | None = None) -> str:
    """Return a change: -87.6 % [-88.9, -86.2]; a dash for None."""
    if value is None:
        return "-"
    return f"{value:+.1f}{unit}" + ("" if interval is None else f" [{interval[0]:+.1f}, {interval[1]:+.1f}]")


def size(number: float | None, interval: Interval | None = None) -> str:
    """Return whole bytes: 1,816 [1,502 to 2,210]; a dash for None."""
    return count(number) + ("" if interval is None else f" [{count(interval[0])} to {count(interval[1])}]")


def count(number: float | None) -> str:
    """Return a whole number: 914,728; a dash for None."""
    return "-" if number is None else f"{number:,.0f}"


def millions(number: float | None) -> str:
    """Return millions: 98.2 M; a dash for None."""
    return "-" if number is None else f"{number / 1e6:,.1f} M"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
