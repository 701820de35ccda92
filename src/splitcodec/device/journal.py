"""One line for every capture, never two.   beside: device/spool.py   used by: device/watch.py

Two files. The answers, JSON lines, are for the user. The ledger, 17 bytes a capture in the spool's folder, says which
captures are done and how, also when the answers have been moved away. A capture is done in this order, each step on the
disk before the next: its line, its mark in the ledger, its packet removed. No line is written while the one before
has no mark, so after a crash only the last line can lack one; `Journal` puts it in when it opens. By then the user may
have moved the answers, or named others: a second name (a hard link) beside the ledger keeps the file within reach until
its last line has been looked at.

Neither memory nor the ledger grows for ever: `forget` leaves out what is old and what nobody asks for any more. The
ledger is written anew beside itself and renamed; until that is on the disk, no mark follows.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, final

from splitcodec.device.spool import lock_file
from splitcodec.device.status import shown_address
from splitcodec.errors import OutputError, PictureTooLarge, SplitcodecError, SpoolError
from splitcodec.wire.durable import sync_folder

_RECORD = 17
_LONGEST_LINE = 1 << 23  # a label map has the picture's size
_BEGINS = b'{"capture":'  # every line
MOST_RECORDS = 200_000  # half of them are remembered in any case


class Outcome(enum.Enum):
    """How a capture ended."""

    ANSWERED = b"a"
    REFUSED = b"r"
    UNREADABLE = b"u"
    DROPPED = b"d"
    UNCHANGED = b"s"


_MARKS = b"".join(one.value for one in Outcome)


def problem_line(outcome: Outcome, error: SplitcodecError | MemoryError) -> dict[str, Any]:
    """Return what a line says of a capture that ended by an error."""
    if isinstance(error, MemoryError):
        error = PictureTooLarge("the picture does not fit into this machine's memory; shrink it first")
    detail = shown_address(" ".join(str(error).split()))
    return {"error": {"outcome": outcome.name.lower(), "type": type(error).__name__, "detail": detail}}


@final
class Journal:
    """The answers and the ledger. Raises SpoolError if another process writes there, OutputError if it cannot.

    `unsure` says, if anything, that the last line by the ledger is not there: the answers were truncated, or moved away
    where they had no second name. If that was after a crash, one capture that has its line does not have its mark.
    """

    def __init__(self, answers: Path, ledger: Path) -> None:
        self.answers = answers
        self._ledger = ledger
        self._second = ledger.with_name(f"{ledger.name}.answers")
        self._asked: set[bytes] = set()  # since captures were last forgotten
        self._limit = MOST_RECORDS
        self._new_ledger = False  # whether its name may not be on the disk yet
        try:
            answers.parent.mkdir(parents=True, exist_ok=True)
            self._file = lock_file(answers)
        except OSError as error:
            raise OutputError(f"cannot write {answers}: {error.strerror}; choose another --answers") from None
        try:
            self._done = self._read_ledger()
            self._log = os.open(ledger, os.O_WRONLY | os.O_CREAT, 0o644)
            sync_folder(answers.parent)
            sync_folder(ledger.parent)
        except OSError as error:
            os.close(self._file)
            raise OutputError(f"cannot write {ledger}: {error.strerror}; choose another --spool") from None
        if os.path.samestat(state := os.fstat(self._file), os.fstat(self._log)) or not stat.S_ISREG(state.st_mode):
            self.close()
            raise OutputError(f"{answers}: no file that answers can be kept in; choose another --answers")
        if len(self._done) < self._records:
            self._rewrite()
        lasts = [self._moved_last_line(), self._last_line(self._file, self.answers)]
        self._end = os.fstat(self._file).st_size
        self._unmarked: tuple[str, Outcome] | None = None
        for self._unmarked in lasts:
            self._mark()
        found = {_name(last[0]) for last in lasts if last is not None}
        self.unsure = ""
        if self._done and next(reversed(self._done)) not in found:
            self.unsure = (
                f"{answers}: the last line that was written is not there. If it was taken away after `watch` had been "
                "killed, one packet that waits may be of a picture that has its line, and gives it another"
            )
        self._named = False

    def outcome(self, capture: str) -> Outcome | None:
        """Return how a capture ended, or None if it has no line yet, or one that is forgotten."""
        found = self._done.get(name := _name(capture))
        if found is not None:
            self._asked.add(name)
        return found

    def settle(self, capture: str, outcome: Outcome, line: dict[str, Any]) -> None:
        """Write a capture's line and mark it; nothing happens if it has one. Raises OutputError: call again later."""
        self._mark()
        if self.outcome(capture) is not None:
            return
        data = json.dumps({"capture": capture, **line}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        line_bytes = data.encode("utf-8", "backslashreplace") + b"\n"  # half a surrogate pair: as JSON escapes it
        self._name_again()
        self._end = _append(self._file, line_bytes, at=self._end, name=self.answers)
        self._unmarked = (capture, outcome)
        self._mark()

    def forget(self) -> None:
        """Where many captures are remembered, keep the newest and those that `outcome` was asked for since last time.

        To be called when every capture that may come again has just been asked for. Never raises: where the ledger
        cannot be written, it stays longer than it need be.
        """
        if len(self._done) <= self._limit:
            return
        newest = len(self._done) - MOST_RECORDS // 2
        asked, self._asked = self._asked, set()
        kept = {name: how for n, (name, how) in enumerate(self._done.items()) if n >= newest or name in asked}
        self._limit = max(MOST_RECORDS, len(kept) + MOST_RECORDS // 2)
        if len(kept) < len(self._done):
            self._done = kept
            self._rewrite()

    def close(self) -> None:
        """Let another process write."""
        os.close(self._file)
        os.close(self._log)

    def _mark(self) -> None:
        if self._unmarked is None:
            return
        capture, outcome = self._unmarked
        if (name := _name(capture)) not in self._done:
            self._name_ledger()
            _append(self._log, name + outcome.value, at=_RECORD * self._records, name=self._ledger)
            self._records += 1
            self._done[name] = outcome
        self._unmarked = None

    def _rewrite(self) -> None:
        """Leave in the ledger what is remembered, if there is room to write it beside the old one."""
        part = self._ledger.with_suffix(".part")  # which the spool takes away after a kill
        try:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                data = b"".join(name + outcome.value for name, outcome in self._done.items())
                _append(handle, data, at=0, name=part)
                os.replace(part, self._ledger)
            except (OSError, OutputError):
                os.close(handle)
                part.unlink(missing_ok=True)
                raise
        except (OSError, OutputError):
            return
        os.close(self._log)
        self._log, self._records, self._new_ledger = handle, len(self._done), True

    def _name_ledger(self) -> None:
        """Have a ledger that was written anew found after a loss of power, before marks are in it alone."""
        if not self._new_ledger:
            return
        try:
            sync_folder(self._ledger.parent)
        except OSError as error:
            raise OutputError(f"cannot write {self._ledger}: {error.strerror or error}; free some space") from None
        self._new_ledger = False

    def _read_ledger(self) -> dict[bytes, Outcome]:
        data = self._ledger.read_bytes() if self._ledger.exists() else b""
        whole = len(data) - len(data) % _RECORD
        if whole and data[whole - 1] not in _MARKS:  # its length reached the disk before the power went, the rest not
            whole -= _RECORD
        if whole < len(data):
            os.truncate(self._ledger, whole)
        self._records = whole // _RECORD
        first = whole - MOST_RECORDS // 2 * _RECORD if self._records > MOST_RECORDS else 0
        with contextlib.suppress(ValueError):
            return {data[i : i + 16]: Outcome(data[i + 16 : i + 17]) for i in range(first, whole, _RECORD)}
        raise SpoolError(f"{self._ledger}: damaged; move the spool's folder away and begin a new one")

    def _moved_last_line(self) -> tuple[str, Outcome] | None:
        """Return the capture of the last line of what the answers were before, if they are another file now."""
        with contextlib.suppress(OSError, SpoolError):  # no longer there, no longer ours, or another's by now
            if os.path.samestat(os.stat(self._second), os.fstat(self._file)):
                return None
            handle = lock_file(self._second)
            try:
                return self._last_line(handle, self._second)
            finally:
                os.close(handle)
        return None

    def _name_again(self) -> None:
        """Give the answers their second name before the first line, where the disk has such names."""
        if self._named:
            return
        self._named = True
        with contextlib.suppress(OSError):
            if not os.path.samestat(os.stat(self._second), os.fstat(self._file)):
                self._second.unlink()
        with contextlib.suppress(OSError):
            os.link(os.path.realpath(self.answers), self._second)
            sync_folder(self._second.parent)

    def _last_line(self, handle: int, name: Path) -> tuple[str, Outcome] | None:
        """Return the capture of the last whole line, cutting off a torn one."""
        size = os.fstat(handle).st_size
        begin = max(0, size - _LONGEST_LINE)
        tail = os.pread(handle, size - begin, begin)
        whole = tail.rfind(b"\n") + 1
        if whole == 0 and begin > 0:
            raise SpoolError(f"{name}: its last line is longer than {_LONGEST_LINE} bytes; not ours")
        last, torn = tail[:whole].rstrip(b"\n").rpartition(b"\n")[2], tail[whole:]
        try:
            found = _parsed(last) if last else None
            if torn and not last and not _BEGINS.startswith(torn.rstrip(b"\0")[: len(_BEGINS)]):
                raise ValueError("a line of somebody else, which is left as it is")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SpoolError(f"{name}: its last line is none that `watch` writes; choose another --answers") from None
        if torn:
            os.ftruncate(handle, begin + whole)
            os.fsync(handle)
        return found


def _parsed(line: bytes) -> tuple[str, Outcome]:
    got = json.loads(line)
    error = got.get("error")
    outcome = Outcome.UNCHANGED if "unchanged_since" in got else Outcome.ANSWERED
    if error is not None:
        outcome = Outcome[str(error["outcome"]).upper()]
    return str(got["capture"]), outcome


def _name(capture: str) -> bytes:
    return hashlib.sha256(capture.encode()).digest()[:16]


def _append(handle: int, data: bytes, *, at: int, name: Path) -> int:
    """Write all of `data` to the disk or nothing of it, and return where it ends. Raises OutputError."""
    begin = min(at, os.fstat(handle).st_size)  # less where somebody has truncated the file
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(handle, data[written:], begin + written)
        os.fsync(handle)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, begin)
            os.fsync(handle)
        raise OutputError(f"cannot write {name}: {error.strerror or error}; free some space") from None
    return begin + len(data)
