"""Warnings off for one call, in a process of several threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_lock: Final = threading.Lock()  # warnings.catch_warnings changes the whole process: one lock for all of it


@contextmanager
def no_warnings() -> Iterator[None]:
    """Show no warning inside. Two threads take turns: the filters that one puts back are never the other's."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
