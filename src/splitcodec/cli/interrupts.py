"""How Ctrl-C ends a command: one line and 130, wherever it comes.   used by: __init__.py, before all else is imported

Imports take seconds on a small board, and an interrupt that comes while compiled code is loaded is no KeyboardInterrupt
by the time that it arrives, but an ImportError because of one.
"""

from __future__ import annotations

import sys
from types import TracebackType

INTERRUPTED = 130


def came_of_interrupt(error: BaseException | None) -> bool:
    """Say whether an exception is an interrupt, or was raised because of one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def say_interrupted() -> None:
    """Print the one line."""
    print("interrupted", file=sys.stderr)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Do as Python does with what nobody catches, but for interrupts: the shell then sees 130, or the signal."""
    if came_of_interrupt(error):
        say_interrupted()
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _uncaught  # until `main` runs
