"""What has its name is whole, also after a loss of power.   used by: every room that writes files

A file's name may reach the disk before its contents do, and then leads to an empty one. So whatever is written beside
its place goes to the disk first, is renamed then, and the entry of the folder follows.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from splitcodec.errors import OutputError


def made_folder(folder: str | Path) -> Path:
    """Return a folder that is there and can be written, made if need be. Raises OutputError."""
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror or error}); give another folder") from None
    try:
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(b"whether there is room for anything")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}); give another folder") from None
    return root


def check_free(place: str | Path) -> None:
    """Refuse a place where something is, for nothing is written over, or that cannot be made. Raises OutputError.

    Asked before minutes of work rather than after; nothing is made there yet.
    """
    if Path(place).exists():
        raise OutputError(f"{place} exists; choose another folder or name, or remove it first")
    check_folder(place)


def check_folder(folder: str | Path) -> None:
    """Refuse a folder that cannot be made, or written where it is there; nothing is made yet. Raises OutputError."""
    made_folder(nearest(folder))


def nearest(place: str | Path) -> Path:
    """Return the place, or of the folders above it the nearest that is there."""
    whole = Path(place).absolute()
    return next(one for one in (whole, *whole.parents) if one.exists())


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and bring it to the disk, though not yet its name. Raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(place: Path, content: bytes, *, part: Path | None = None) -> None:
    """Write a file such that it is there whole or not at all, also after a loss of power. Raises OutputError.

    `part` is where it is written first (none: the same name with the suffix .part, for a folder of one process).
    """
    part = place.with_suffix(".part") if part is None else part
    try:
        write_synced(part, content)
        part.replace(place)
        sync_folder(place.parent)
    except BaseException as error:  # an interrupt as well
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise OutputError(f"cannot write {place}: {error.strerror or error}; free some space") from None


def write_tree(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder with files, by their names in it, and bring all of it to the disk. Raises OSError."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_synced(folder / name, data)
    for one in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(one)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk, where it knows how (shared folders of virtual machines do not).

    Raises OSError.
    """
    if os.name == "nt":  # which opens no folders, and writes their entries itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
