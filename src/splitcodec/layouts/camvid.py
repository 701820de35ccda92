"""CamVid as SegNet's authors share it: <split>/ and <split>annot/ with class indices 0 to 10, and 11 = void.

Brostow, Fauqueur, Cipolla, "Semantic object classes in video" (Pattern Recognition Letters 2009).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from splitcodec.errors import DataError
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
_ENDINGS: Final = (".jpg", ".jpeg", ".png", ".webp")


def read(folder: Path, *, split: str) -> DataSet:
    """Read one split. Raises DataError naming what is missing."""
    pictures, masks = folder / split, folder / f"{split}annot"
    if not (pictures.is_dir() and masks.is_dir()):
        raise DataError(f"{folder}: no {split}/ and {split}annot/; expected the layout of CamVid")
    samples = []
    for path in sorted(p for p in pictures.iterdir() if p.suffix.lower() in _ENDINGS):
        mask = masks / f"{path.stem}.png"
        if not mask.is_file():
            raise DataError(f"{mask} is missing; every picture needs its label map")
        samples.append(Sample(path, mask=mask, void=VOID))
    if not samples:
        raise DataError(f"{pictures}: no pictures in it")
    return DataSet("segment", CLASSES, tuple(samples), folder.name)
