"""Work that threads do ahead of its use: photographs read, batches made."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(work: Callable[[T], R], items: Iterable[T], *, threads: int) -> Iterator[R]:
    """Yield what `work` makes of each item, in their order; two a thread are begun ahead. Raises what `work` raises."""
    pool, begun = ThreadPoolExecutor(threads), deque[Future[R]]()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) == 2 * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
