"""CamVid as SegNet's authors share it: <split>/ and <split>annot/ with class indices 0 to 10, and 11 = void.

With a file classes.txt beside them, one name a line, they hold a user's own classes: the first is index 0, 255 is void.
Brostow, Fauqueur, Cipolla, "Semantic object classes in video" (Pattern Recognition Letters 2009).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from splitcodec.errors import DataError
from splitcodec.layouts.folders import SUFFIXES
from splitcodec.layouts.sample import DataSet, Sample

CLASSES: Final = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
VOID: Final = 11
NAMES: Final = "classes.txt"
_MOST: Final = 255  # the value behind them is void
_MOST_BYTES: Final = 1 << 20


def read(folder: Path, *, split: str) -> DataSet:
    """Read one split. Raises DataError naming what is missing."""
    own = _own_classes(folder / NAMES)
    classes, void = (CLASSES, VOID) if own is None else (own, _MOST)
    pictures, masks = folder / split, folder / f"{split}annot"
    if not (pictures.is_dir() and masks.is_dir()):
        raise DataError(f"{folder}: no {split}/ and {split}annot/; expected the layout of CamVid")
    samples = []
    shown = (p for p in pictures.iterdir() if not p.name.startswith("."))  # macOS leaves ._x.png beside x.png
    for path in sorted(p for p in shown if p.suffix.lower() in SUFFIXES):
        mask = masks / f"{path.stem}.png"
        if not mask.is_file():
            raise DataError(f"{mask} is missing; every picture needs its label map")
        samples.append(Sample(path, mask=mask, void=void))
    if not samples:
        raise DataError(f"{pictures}: no pictures in it")
    return DataSet("segment", classes, tuple(samples), folder.name)


def _own_classes(path: Path) -> tuple[str, ...] | None:
    """Return the names in classes.txt, or None where there is no such file. Raises DataError."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 ({error}); expected one class name a line") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(names) <= _MOST or len(set(names)) != len(names) or not all(map(str.isprintable, names)):
        raise DataError(f"{path}: {len(names)} names; expected 1 to {_MOST} different ones, one a line")
    return tuple(names)
