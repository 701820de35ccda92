"""Pictures in folders, whatever lies beside them.   used by: training, evaluation, camvid.py"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from splitcodec.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm"})
"""Of the files that count as pictures, in small letters."""


def find_photographs(folders: Sequence[str | Path]) -> list[Path]:
    """List the pictures below the folders, one folder after another, each sorted.

    Hidden ones (`._x.jpg` of macOS) are left out. Each comes once, also where folders lie within one another, however
    they are spelt: else what is measured would be among what is learned from. Raises DataError when there are none.
    """
    found: dict[Path, Path] = {}  # by where they are
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"no folder at {folder}; give a folder of photographs")
        root = folder.resolve()
        below = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        for path in sorted(path for path in below if not path.name.startswith(".")):
            found.setdefault(root / path.relative_to(folder), path)
    if not found:
        names = ", ".join(map(str, folders)) or "no folder"
        raise DataError(f"no photographs below {names}; expected files ending in {', '.join(sorted(SUFFIXES))}")
    return list(found.values())
