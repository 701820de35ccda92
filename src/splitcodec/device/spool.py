"""Packets that wait on disk for the link.   before: device/client.py   after: device/watch.py

One file a packet, written beside its place and renamed into it, so that a reader sees all of it or nothing. A file
holds one line of JSON, the packet, and a CRC-32 of both. Names are numbers that count up, in the order of sending;
what else lies in the folder is left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from splitcodec.device.placed import Letterbox
from splitcodec.errors import OutputError, SettingsError, SpoolError
from splitcodec.wire.durable import write_atomically
from splitcodec.wire.request import Wanted

LEDGER = "ledger"
"""The journal's own file in a spool's folder."""
_SUFFIX = ".spool"
_LOCK = "lock"
_REFUSED = "refused"
_BLOCK = 4096  # what a small file takes on most disks
MOST_REFUSED = 1000
RESERVE_BYTES = 1_000_000
REFUSE, DROP_OLDEST, DROP_NEWEST = "refuse", "drop-oldest", "drop-newest"
"""What may be done where a spool is full."""


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A packet that waits: of which capture and picture, its level, its idempotency key.

    `place` is where the picture lies in what the network sees, so that an answer's boxes find back to the picture.
    `tasks`, `top` and `score` (none: the edge's defaults) are asked for whenever it is sent.
    """

    capture: str
    picture: str
    key: str
    level: int
    packet: bytes
    place: Letterbox | None = None
    tasks: tuple[str, ...] = ()
    top: int | None = None
    score: float | None = None

    def wanted(self) -> Wanted:
        """Return what to ask for, and under which key."""
        return Wanted(self.tasks, self.top, self.key, self.score)


def check_policy(when_full: str) -> None:
    """Raise SettingsError for what cannot be done where a spool is full."""
    if when_full not in (REFUSE, DROP_OLDEST, DROP_NEWEST):
        raise SettingsError(f"--when-full {when_full!r}; expected refuse, drop-oldest or drop-newest")


def entry_of(capture: str, picture: str, *, made: tuple[bytes, int, Letterbox | None], wanted: Wanted) -> Entry:
    """Return the entry of a packet that was made now: (packet, level, place)."""
    packet, level, place = made
    key = idempotency_key(packet, capture, wanted=wanted)
    return Entry(capture, picture, key, level, packet, place, wanted.tasks, wanted.top, wanted.score)


def idempotency_key(packet: bytes, capture: str, *, wanted: Wanted) -> str:
    """Return the key of a packet: the same for one capture however often it is sent, another for every other.

    An edge gives one key one answer, so what is asked for is part of it.
    """
    rest = repr((capture, wanted.tasks, wanted.top, wanted.score)).encode()
    return hashlib.sha256(len(packet).to_bytes(4, "little") + packet + rest).hexdigest()[:32]


@final
class Spool:
    """A folder of packets; one process at a time. Close it at the end.

    Packets never take the disk's last `reserve_bytes`: a line in the answers is what frees the place of a packet.

    Raises SpoolError if another process uses it, OutputError where it cannot be written.
    """

    def __init__(self, folder: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.folder = folder
        self._reserve_bytes = reserve_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(folder / _LOCK)
        except OSError as error:
            raise OutputError(f"cannot use {folder}: {error.strerror}; choose another --spool") from None
        for part in folder.glob("*.part"):
            if (_number(part) or part.stem == LEDGER) and not part.is_dir():
                part.unlink(missing_ok=True)
        found = sorted((path for path in folder.glob(f"*{_SUFFIX}") if _number(path) and path.is_file()), key=_number)
        self._sizes = {path: disk_size(path.stat().st_size) for path in found}
        self._captures: dict[Path, tuple[str, str]] = {}
        self._places: dict[str, Path] = {}
        taken = [*folder.glob(f"*{_SUFFIX}"), *folder.glob("*.part"), *(folder / _REFUSED).glob(f"*{_SUFFIX}")]
        self._next = max(map(_number, taken), default=0) + 1
        self.bytes = sum(self._sizes.values())

    def __len__(self) -> int:
        return len(self._sizes)

    def waiting(self) -> list[Path]:
        """Return the places of all packets, the first to be sent first."""
        return list(self._sizes)

    def add(self, entry: Entry) -> Path:
        """Put a packet at the end; it is on the disk when this returns. Raises OutputError."""
        place = self.folder / f"{self._next:012d}{_SUFFIX}"
        content = _dump(entry)
        self._check_there()
        if self._free_bytes() < self._reserve_bytes + len(content):
            raise OutputError(
                f"less than {self._reserve_bytes:,} bytes are free in {self.folder}, kept for answers; free some space"
            )
        write_atomically(place, content)
        self._next += 1
        self._sizes[place] = disk_size(len(content))
        self.bytes += self._sizes[place]
        self._learn(place, entry)
        return place

    def read(self, place: Path) -> Entry:
        """Return what waits at a place. Raises SpoolError if it is damaged or gone, OutputError if it may pass."""
        try:
            content = place.read_bytes()
        except FileNotFoundError:
            self._check_there()
            raise SpoolError(f"{place}: gone; something else has removed the packet") from None
        except OSError as error:
            raise OutputError(f"cannot read {place}: {error.strerror}; tried again later") from None
        entry = _parse(content, place)
        if place in self._sizes:
            self._learn(place, entry)
        return entry

    def capture_at(self, place: Path) -> tuple[str, str] | None:
        """Return capture and picture of a packet that was added or once read, though it may be damaged by now."""
        return self._captures.get(place)

    def holds(self, capture: str) -> bool:
        """Return whether a packet of this capture waits, among those that were added or once read."""
        return capture in self._places

    def remove(self, place: Path) -> None:
        """Forget a packet."""
        with contextlib.suppress(FileNotFoundError):
            place.unlink()
        self._gone(place)

    def set_aside(self, place: Path) -> None:
        """Move a packet to the folder `refused`, which keeps the last 1000 for somebody to look at."""
        aside = self.folder / _REFUSED
        aside.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.replace(place, aside / place.name)
        for old in sorted(aside.glob(f"*{_SUFFIX}"))[:-MOST_REFUSED]:
            old.unlink(missing_ok=True)
        self._gone(place)

    def close(self) -> None:
        """Let another process use the folder."""
        os.close(self._lock)

    def _check_there(self) -> None:
        """Refuse a folder that is not the one with our lock: its disk is away, and what waits there may come back.

        Raises OutputError.
        """
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.folder / _LOCK), os.fstat(self._lock)):
                return
        raise OutputError(f"{self.folder}: not the folder that it was; is the disk there? If it is, start `watch` anew")

    def _free_bytes(self) -> int:
        try:
            return shutil.disk_usage(self.folder).free
        except OSError as error:
            raise OutputError(f"cannot use {self.folder}: {error.strerror}; is the disk there?") from None

    def _gone(self, place: Path) -> None:
        self.bytes -= self._sizes.pop(place, 0)
        capture, _ = self._captures.pop(place, ("", ""))
        if self._places.get(capture) == place:
            del self._places[capture]

    def _learn(self, place: Path, entry: Entry) -> None:
        self._captures[place] = (entry.capture, entry.picture)
        self._places[entry.capture] = place


def _number(path: Path) -> int:
    """Return the number that a packet's file is named by; 0 for a file of somebody else."""
    return int(path.stem) if path.stem.isascii() and path.stem.isdigit() else 0


def disk_size(n_bytes: int) -> int:
    """Return what a file takes on the disk, in whole blocks of 4096 bytes."""
    return -(-n_bytes // _BLOCK) * _BLOCK


def entry_size(entry: Entry) -> int:
    """Return what an entry will take on the disk."""
    return disk_size(len(_dump(entry)))


def lock_file(path: Path) -> int:
    """Return a handle that holds a lock until it is closed, also by a kill.

    Raises SpoolError if it is held, OSError where the disk has no locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ModuleNotFoundError:
        pass  # no such locks on Windows
    except OSError as error:
        os.close(handle)
        if not isinstance(error, BlockingIOError | PermissionError):  # network shares say the one or the other
            raise
        raise SpoolError(f"{path.parent} is used by another process; stop it, or choose another folder") from None
    return handle


def _dump(entry: Entry) -> bytes:
    head: dict[str, Any] = {
        "capture": entry.capture,
        "picture": entry.picture,
        "key": entry.key,
        "level": entry.level,
        "tasks": entry.tasks,
        "top": entry.top,
        "score": entry.score,
    }
    if entry.place is not None:
        head["place"] = asdict(entry.place)
    content = json.dumps(head, separators=(",", ":")).encode() + b"\n" + entry.packet
    return content + zlib.crc32(content).to_bytes(4, "little")


def _parse(content: bytes, place: Path) -> Entry:
    try:
        if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
            raise ValueError("CRC-32 differs")
        head, _, packet = content[:-4].partition(b"\n")
        got: Any = json.loads(head)
        return Entry(
            capture=str(got["capture"]),
            picture=str(got["picture"]),
            key=str(got["key"]),
            level=int(got["level"]),
            packet=packet,
            place=_place(got["place"]) if "place" in got else None,
            tasks=_tasks(got["tasks"]),
            top=None if got["top"] is None else int(got["top"]),
            score=None if got["score"] is None else float(got["score"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SpoolError(f"{place}: damaged ({error}); the packet is set aside") from None


def _place(got: Any) -> Letterbox:
    width, height = got["picture"]
    return Letterbox(**{**got, "picture": (width, height)})


def _tasks(got: Any) -> tuple[str, ...]:
    if not isinstance(got, list):
        raise TypeError("tasks are no list")
    return tuple(str(task) for task in got)
