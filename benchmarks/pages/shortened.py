"""A report's Markdown without what few read; docs/results.md links to the whole.   used by: results.py, tasks.py"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MATRIX = re.compile(r"BD-rate of every method with an encoder \(rows\)[^\n]*\n\n(?:\|[^\n]*\n)+\n?")
_CORNERS = re.compile(
    r"\| method \| encoder MACs \| bytes \|[^\n]*\n(?:\|[^\n]*\n)+\n?"
)  # drawn above, and told at equal score
_EQUAL = re.compile(r"(\| below[^\n]*\n)\|[-:|]+\|\n((?:\|[^\n]*\n)+)")


def shortened(report: str, *, left_out: Sequence[str]) -> str:
    """Return the report without the sections of these headings (of any level), and without tables that repeat."""
    kept, leaving = [], False
    for line in report.splitlines(keepends=True):
        if line.startswith("#"):
            leaving = line.lstrip("#").strip() in left_out
        if not leaving:
            kept.append(line)
    return _CORNERS.sub("", _MATRIX.sub("", "".join(kept)))


def turned(report: str) -> str:
    """Return the report with its table of bytes at equal score turned round: a row for each method, not a column."""

    def turn(found: re.Match[str]) -> str:
        lines = [
            [cell.strip() for cell in row.strip("|\n ").split(" | ")] for row in (found[1] + found[2]).splitlines()
        ]
        head, *rows = zip(*lines, strict=True)
        ruled = "|---|" + "---:|" * (len(head) - 1)
        return "".join(f"{line}\n" for line in [_row(head), ruled, *map(_row, rows)])

    return _EQUAL.sub(turn, report)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def ours_alone(report: str, *, ours: str) -> str:
    """Return the report with the rows of one method alone in its first table, which has a column of settings."""
    lines = report.splitlines()
    head = next((place for place, line in enumerate(lines) if line.startswith("| method | setting |")), None)
    if head is None:
        return report
    end = next((place for place in range(head, len(lines)) if not lines[place].startswith("|")), len(lines))
    rows = [line for line in lines[head + 2 : end] if line.startswith(f"| {ours} |")]
    return "\n".join([*lines[: head + 2], *rows, *lines[end:]])
