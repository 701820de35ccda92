"""COCO 2017: boxes in annotations/instances_<split>2017.json, pictures in <split>2017/.

Lin et al., "Microsoft COCO: common objects in context" (ECCV 2014). Class indices follow the order of the category ids,
so that 1, 2, ..., 90 with gaps become 0 to 79.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from splitcodec.errors import DataError
from splitcodec.layouts.sample import DataSet, Sample, boxes_of


def find(folder: Path, split: str) -> tuple[Path, Path] | None:
    """Return the file of boxes and the folder of pictures of a split; None if there are none."""
    for name in (f"{split}2017", split):
        file = folder / "annotations" / f"instances_{name}.json"
        if file.is_file():
            return file, folder / name
    return None


def read(folder: Path, *, split: str) -> DataSet:
    """Read the boxes of one split ("train", "val"). Raises DataError naming what is missing or wrong."""
    found = find(folder, split)
    if found is None:
        raise DataError(f"{folder / 'annotations'}: no instances_{split}2017.json; expected the layout of COCO 2017")
    file, pictures = found
    try:
        body: dict[str, Any] = json.loads(file.read_bytes())
        categories = sorted((int(one["id"]), str(one["name"])) for one in body["categories"])
        index_of = {number: place for place, (number, _) in enumerate(categories)}
        by_picture: dict[int, list[tuple[list[float], int, bool]]] = {int(one["id"]): [] for one in body["images"]}
        for what, listed, known in (("categories", categories, index_of), ("images", body["images"], by_picture)):
            if len(known) < len(listed):  # as in two files put together: each would have the other's boxes
                raise ValueError(f"two {what} of one id")
        for one in body["annotations"]:
            x, y, width, height = (float(side) for side in one["bbox"])
            spare = bool(int(one.get("iscrowd") or 0))  # "0" as text, too
            by_picture[int(one["image_id"])].append(
                ([x, y, x + width, y + height], index_of[int(one["category_id"])], spare)
            )
        samples = tuple(
            _sample(pictures / str(one["file_name"]), by_picture[int(one["id"])], size=_size(one))
            for one in body["images"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"{file}: not COCO's annotations ({type(error).__name__}: {str(error)[:80]})") from None
    if not samples:
        raise DataError(f"{file} lists no pictures")
    return DataSet("detect", tuple(name for _, name in categories), samples, folder.name)


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    """Return width and height of a picture, None where they are not told."""
    wide, high = (int(image.get(key) or 0) for key in ("width", "height"))
    return (wide, high) if wide > 0 and high > 0 else None


def _sample(path: Path, found: list[tuple[list[float], int, bool]], *, size: tuple[int, int] | None) -> Sample:
    return Sample(
        path,
        boxes_of([box for box, _, _ in found], what=path.name),
        np.array([label for _, label, _ in found], np.int64),
        np.array([spare for _, _, spare in found], np.bool_),
        size=size,
    )
