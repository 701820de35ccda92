"""Where reports go: a folder that can be written, files that appear whole, also after a loss of power.

Used by report.py, task_report.py and whoever works for long before it writes.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from splitcodec.errors import OutputError
from splitcodec.wire.durable import sync_folder, write_synced


def legible(text: str) -> str:
    """Return text that can be written as UTF-8: what a file's name holds that is none becomes \\udcff and the like."""
    return text.encode(errors="backslashreplace").decode()


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


def write_whole(folder: str | Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write files by their names, each whole or not at all, and return their paths. Raises OutputError."""
    root = made_folder(folder)
    for name, data in files.items():
        _write(root / name, data)
    return [root / name for name in files]


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_synced(draft, data)
        draft.replace(path)
        sync_folder(path.parent)
    except BaseException as error:  # an interrupt as well
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); give another folder") from None
