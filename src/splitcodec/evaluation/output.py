"""The files of a report, whole or not at all.   used by: all that write one"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from splitcodec.wire.durable import made_folder, write_atomically


def legible(text: str) -> str:
    """Return text that can be written as UTF-8: what a file's name holds that is none becomes \\udcff and the like."""
    return text.encode(errors="backslashreplace").decode()


def write_whole(folder: str | Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files by their names, each whole or not at all, and return their paths. Raises OutputError."""
    root = made_folder(folder)
    for name, data in files.items():
        write_atomically(root / name, data, part=root / f".{name}.{os.getpid()}")
    return [root / name for name in files]
