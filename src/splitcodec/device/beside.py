"""Work in a thread beside other work: both end together, and an error of either is an error of the whole."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def beside(work: Callable[[], None], *, stop: threading.Event, wake: threading.Event, name: str) -> Iterator[None]:
    """Run `work` in a thread of that name while the body runs.

    When either ends, `stop` is set; `wake` is set so that `work`, which may wait for it, looks. Raises what `work` ends
    with.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
            stop.set()

    thread = threading.Thread(target=run, name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        wake.set()
        thread.join()
    if failures:
        raise failures[0]
