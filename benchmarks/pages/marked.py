"""Blocks of a page that a script writes: what stands between `<!-- NAME: ... -->` and `<!-- end of NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from splitcodec.errors import DataError


def with_blocks(page: str, blocks: Mapping[str, Sequence[str]], *, name: str = "the page") -> str:
    """Return the page with each block's lines between its markers.

    Raises DataError for a block whose markers the page, by its name, does not have exactly once.
    """
    for block, lines in blocks.items():
        marks = re.compile(rf"(<!-- {re.escape(block)}: [^\n]*-->\n).*?(<!-- end of {re.escape(block)} -->)", re.S)
        if len(marks.findall(page)) != 1:
            raise DataError(f"{name} has no markers of the block {block!r}, or has them twice; put them back")
        found = marks.search(page)
        assert found is not None
        page = page[: found.end(1)] + "".join(f"{line}\n" for line in lines) + page[found.start(2) :]
    return page


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return the lines of a table; the columns after the first `left` hold numbers."""
    ruled = "|" + "---|" * left + "---:|" * (len(head) - left)
    return [f"| {' | '.join(head)} |", ruled, *(f"| {' | '.join(row)} |" for row in rows)]
