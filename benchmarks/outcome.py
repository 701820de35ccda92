"""How a benchmark ends: what is refused, or interrupted, is one line on stderr and an exit code.   used by: all of them

As the command line does it, so that who starts these from a shell or from make need not know which is which. Nothing
that takes long is imported here at once, for an interrupt may come while a benchmark still imports.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from splitcodec.errors import SplitcodecError


def exit_code(work: Callable[[], int | None]) -> int:
    """Do a benchmark's work; return its own exit code (none: 0), 2 for what is refused, 130 if interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be of the terminal's letters
    try:
        code = work() or 0
        sys.stdout.flush()
    except SplitcodecError as error:
        _complain(error)
    except KeyboardInterrupt:
        _interrupted()
        return 130
    except BrokenPipeError:  # nobody reads stdout any more; nor may the interpreter's own flush find that out
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _complain(f"{error.filename or 'the system'}: {error.strerror or error}; mend that and try again")
    except ImportError as error:  # what an interrupt is by the time that compiled code has failed to load
        if not _came_of_interrupt(error):
            raise
        _interrupted()
        return 130
    else:
        return code
    return 2


@contextmanager
def deaf() -> Iterator[None]:
    """Start processes in here that a terminal's Ctrl-C, sent to all, does not reach; see to it that they end.

    An interrupt that comes meanwhile is raised at the end, for a process that is half started nobody could end.
    """
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which they inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


def _complain(error: object) -> None:
    from splitcodec.cli.show import complain

    complain(error)


def _interrupted() -> None:
    print("interrupted", file=sys.stderr, flush=True)


def _came_of_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Do as Python does with what nobody catches, but for interrupts: the shell then sees 130, or the signal."""
    if issubclass(kind, KeyboardInterrupt):
        _interrupted()
    elif _came_of_interrupt(error):
        _interrupted()
        os._exit(130)  # Python would end with 1
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _uncaught  # while the benchmark that imports this file imports others
