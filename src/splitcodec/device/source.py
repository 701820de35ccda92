"""Stage 0: where pictures come from.   after: device/watch.py   others: device/camera.py

A source says which captures are there. A folder is looked at again and again rather than watched by the kernel: that
works on every file system, memory cards and network shares included, and needs no library. A file is a picture once it
has not changed for a while, so that nothing half written is read. That takes two looks by one clock: file systems round
a file's time, and the one who wrote it may have another clock.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

from splitcodec.device.image import suffixes
from splitcodec.device.journal import Outcome
from splitcodec.errors import DataError, PictureNotFound, PictureTooLarge, PictureUnreadable, SettingsError

LARGEST_FILE = 256 << 20
LONG_AGO_S = 60.0  # more than clocks differ, so that what is older at the first look is whole
RESTLESS_S = 60.0  # that nobody waits longer for than what makes a file whole
MOST_FAILURES = 5
KEEP, DELETE, MOVE = "keep", "delete", "move"


@final
@dataclass(frozen=True, slots=True)
class Capture:
    """One picture at one time. `ident` names it for ever, `picture` names it for people.

    `load` returns its pixels or bytes; it raises PictureError, PictureNotFound if it is gone, DataError if it may be
    read later.
    """

    ident: str
    picture: str
    load: Callable[[], Any]


Known = Callable[[str, str], bool]  # (ident, picture) -> has it a line, or does it wait?


class Source(Protocol):
    """Where captures come from."""

    def take(self, known: Known) -> list[Capture]:
        """Return the captures that are there now and not `known`, the oldest first."""
        ...

    @property
    def pending(self) -> bool:
        """Return whether something is there that is not ready yet."""
        ...

    def done(self, ident: str, picture: str, outcome: Outcome) -> None:
        """Do with the picture what is to be done once its line is written. Never raises; see `trouble`."""
        ...

    @property
    def trouble(self) -> str:
        """Return what hinders and nobody need wait for, such as what `done` could not do; "" if nothing does.

        In words that are the same for every picture.
        """
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...


@final
class Folder:
    """The pictures in a folder, by the suffixes of what can be opened; hidden files and folders inside are left alone.

    A file counts once it has not changed for `settle_s` seconds between two looks, or where it was a minute older than
    that at the first look. `after` is "keep", "delete" (answered pictures) or "move" (into the folders `done` and
    `failed` inside); where that fails it is tried again at the next looks. A name that is not UTF-8 is given with
    backslashes. Raises DataError if there is no such folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        after: str = KEEP,
        settle_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if after not in (KEEP, DELETE, MOVE):
            raise SettingsError(f"--after {after!r}; expected keep, delete or move")
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; make it, or give another")
        self.folder = folder
        self._suffixes = suffixes()
        self._after = after
        self._settle_s = settle_s
        self._clock = clock
        self._wall = wall
        self._unchanged: dict[str, tuple[str, float]] = {}  # of each name its ident, and since when it has that
        self._restless: dict[str, float] = {}  # of each name that is not whole, since when it was not
        self._young = False
        self._first_look = True
        self._raw: dict[str, str] = {}  # names as the file system has them, where they are not UTF-8
        self._failures: dict[str, int] = {}
        self._trouble = ""

    @property
    def pending(self) -> bool:
        """Return whether files are there that may still be written; one that changes for ever does not count."""
        return self._young

    @property
    def trouble(self) -> str:
        """Return why pictures could not be deleted or moved, or which file changes for ever; "" if none does."""
        return self._trouble

    def take(self, known: Known) -> list[Capture]:
        """Return the pictures that are whole and not `known`, the oldest first. Raises DataError without the folder."""
        found: list[tuple[int, str, str]] = []
        unchanged: dict[str, tuple[str, float]] = {}
        restless: dict[str, float] = {}
        entries, self._trouble = self._entries(), ""  # `known` has `done` tried again
        self._raw = {name: entry.name for name, entry in entries if name != entry.name}
        for name, entry in entries:
            with contextlib.suppress(OSError):
                if not entry.is_file():
                    continue
                state = entry.stat()
                ident = _ident(name, state)
                if known(ident, name):
                    continue
                now = self._clock()
                since = self._since(name, ident, state, now=now)
                unchanged[name] = (ident, since)
                if now - since >= self._settle_s:
                    found.append((state.st_mtime_ns, name, ident))
                else:
                    restless[name] = self._restless.get(name, now)
        long_ago = self._clock() - self._settle_s - RESTLESS_S
        late = [name for name, begun in restless.items() if begun <= long_ago]
        if late:
            self._trouble = self._trouble or f"{min(late)} changes all the time; it is taken once it rests"
        self._unchanged, self._young, self._first_look = unchanged, len(late) < len(restless), False
        self._restless = restless
        self._failures = {ident: self._failures[ident] for _, _, ident in found if ident in self._failures}
        return [Capture(ident, name, self._loader(name, ident)) for _, name, ident in sorted(found)]

    def done(self, ident: str, picture: str, outcome: Outcome) -> None:
        """Keep, delete or move the picture; one that has changed in the meantime is another capture and is left."""
        well = outcome in (Outcome.ANSWERED, Outcome.UNCHANGED)
        if self._after == KEEP or (self._after == DELETE and not well):
            return
        path, target = self._path(picture), self.folder / ("done" if well else "failed")
        try:
            if _ident(picture, path.stat()) != ident:
                return
            if self._after == MOVE:
                target.mkdir(exist_ok=True)
                os.replace(path, _free(target / path.name))
            else:
                path.unlink()
        except FileNotFoundError:
            pass  # somebody else has taken it away
        except OSError as error:
            what = f"moved to {target}" if self._after == MOVE else f"deleted from {self.folder}"
            self._trouble = self._trouble or (
                f"pictures cannot be {what} ({error.strerror}); see who may write there and what is in the way. "
                "Their lines are written"
            )

    def close(self) -> None:
        """Nothing is held."""

    def _entries(self) -> list[tuple[str, os.DirEntry[str]]]:
        try:
            with os.scandir(self.folder) as entries:
                return [
                    (os.fsencode(entry.name).decode("utf-8", "backslashreplace"), entry)
                    for entry in entries
                    if not entry.name.startswith(".") and Path(entry.name).suffix.lower() in self._suffixes
                ]
        except OSError as error:
            raise DataError(f"{self.folder}: {error.strerror}; is the disk there?") from None

    def _path(self, name: str) -> Path:
        return self.folder / self._raw.get(name, name)

    def _since(self, name: str, ident: str, state: os.stat_result, *, now: float) -> float:
        before, since = self._unchanged.get(name, ("", now))
        if before == ident:
            return since
        old = self._first_look and self._wall() - state.st_mtime >= self._settle_s + LONG_AGO_S
        return -math.inf if old else now

    def _loader(self, name: str, ident: str) -> Callable[[], bytes]:
        path = self._path(name)

        def load() -> bytes:
            try:
                with path.open("rb") as file:
                    if os.fstat(file.fileno()).st_size > LARGEST_FILE:
                        raise PictureTooLarge(f"{name}: more than {LARGEST_FILE >> 20} MiB; is this a picture?")
                    data = file.read()
                    if _ident(name, os.fstat(file.fileno())) != ident:
                        raise PictureNotFound(f"{name}: changed while it was read")
                    return data
            except FileNotFoundError:
                raise PictureNotFound(f"{name}: gone") from None
            except OSError as error:
                self._failures[ident] = self._failures.get(ident, 0) + 1
                if self._failures[ident] < MOST_FAILURES:
                    raise DataError(f"{name}: cannot be read now ({error.strerror}); tried again later") from None
                raise PictureUnreadable(f"{name}: cannot be read ({error.strerror}); check the file") from None

        return load


def _ident(name: str, state: os.stat_result) -> str:
    return f"{name}@{state.st_mtime_ns}+{state.st_size}"


def _free(path: Path) -> Path:
    number, free = 0, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
