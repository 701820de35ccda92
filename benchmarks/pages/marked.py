"""Blocks of a page that a script writes: what stands between `<!-- NAME: ... -->` and `<!-- end of NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence


def with_blocks(page: str, blocks: Mapping[str, Sequence[str]]) -> str:
    """Return the page with each block's lines between its markers.

    Raises ValueError for a block whose markers the page does not have exactly once.
    """
    for name, lines in blocks.items():
        marks = re.compile(rf"(<!-- {re.escape(name)}: [^\n]*-->\n).*?(<!-- end of {re.escape(name)} -->)", re.S)
        if len(marks.findall(page)) != 1:
            raise ValueError(f"the page has no markers of the block {name!r}, or has them twice")
        found = marks.search(page)
        assert found is not None
        page = page[: found.end(1)] + "".join(f"{line}\n" for line in lines) + page[found.start(2) :]
    return page


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return the lines of a table; the columns after the first `left` hold numbers."""
    ruled = "|" + "---|" * left + "---:|" * (len(head) - left)
    return [f"| {' | '.join(head)} |", ruled, *(f"| {' | '.join(row)} |" for row in rows)]
