"""How `watch` tells how it stands, on stdout or stderr.   used by: watch.py; bridge.py: `say`

Both may go into files of a disk that is full; that is no reason to end. Nobody who reads stdout any more is one.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any, final

from splitcodec.cli.show import complain, guesses, legible

if TYPE_CHECKING:
    from splitcodec.device.status import Status


def say(text: str, *, end: str = "\n") -> None:
    """Print on stderr, if that takes it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, end=end, flush=True)


@final
class Shown:
    """The status on stdout as JSON lines, or answers and troubles on stderr; at most one status a second."""

    def __init__(self, *, json_: bool) -> None:
        self._json = json_
        self._last = 0.0
        self._troubles: tuple[str, ...] = ("", "", "")
        self._tty = sys.stderr.isatty()

    def line(self, line: dict[str, Any] | None, status: Status) -> None:
        """Show one more answer, or a change of the status."""
        if line is not None and (problem := line.get("error")):
            say(legible(f"{line['picture']}: {problem['outcome']}: {problem['detail']}"))
        elif line is not None and not self._json and "unchanged_since" in line:
            say(legible(f"{line['picture']}: as {line['unchanged_since']} (changed by {line['change']:.2f})"))
        elif line is not None and not self._json:
            say(legible(f"{line['picture']}: {guesses(line)} ({line['bytes']} bytes)"))
        troubles = (status.link, status.disk, status.source)
        if troubles != self._troubles:
            for trouble, before in zip(troubles, self._troubles, strict=True):
                if trouble and trouble != before:
                    complain(trouble)
            self._troubles = troubles
        now = time.monotonic()
        if now - self._last >= 1.0:
            self._last = now
            self._status(status)

    def end(self, status: Status) -> None:
        """Show the last status."""
        self._status(status, last=True)

    def _status(self, status: Status, *, last: bool = False) -> None:
        if self._json:
            try:
                print(json.dumps(status.to_json()), flush=True)
            except BrokenPipeError:
                raise
            except OSError:
                pass
        elif self._tty or last:
            text = ", ".join(
                f"{value:,} {name}"
                for name, value in status.to_json().items()
                if isinstance(value, int) and name not in ("spool_bytes", "sent") and (value or name == "answered")
            )
            end = "\n" if last or not self._tty else "\r"
            say(f"{text}; {status.spool_bytes / 1e6:.1f} MB in the spool", end=end)
