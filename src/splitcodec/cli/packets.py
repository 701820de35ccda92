"""Packets as files: each under its picture's name, or that and a number, also while others do the same.

Used by device.py.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from pathlib import Path

from splitcodec.errors import OutputError


def check_place(folder: Path) -> None:
    """Refuse a folder where no packet can go; it is made with the first. Raises OutputError."""
    from splitcodec.wire.durable import check_folder

    try:
        check_folder(folder)
    except OutputError as error:
        raise OutputError(f"cannot write a packet to {folder}: {error}") from None


def store(folder: Path, stem: str, packet: bytes) -> Path:
    """Write a packet, whole also after a loss of power, under a name that is free or holds it. Raises OutputError."""
    from splitcodec.wire.durable import sync_folder, write_synced

    part = folder / f".{secrets.token_hex(8)}.part"  # without the stem, which may be as long as a name can be
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_synced(part, packet)
        for number in itertools.count():
            path = folder / (f"{stem}-{number}.spc" if number else f"{stem}.spc")
            if _claimed(path, part) or (path.is_file() and path.read_bytes() == packet):
                break
        sync_folder(folder)
    except OSError as error:
        raise OutputError(
            f"cannot write a packet to {folder}: {error.strerror or error}; free space or choose -o"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def _claimed(path: Path, part: Path) -> bool:
    """Give a finished file a name, unless somebody has it, at this very moment even; say whether it was free."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # FAT, say, has no links: hold the name with an empty file
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
        os.replace(part, path)
    return True
