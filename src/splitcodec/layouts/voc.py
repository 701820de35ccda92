"""PASCAL VOC: boxes in Annotations/*.xml, label maps in SegmentationClass/*.png, splits in ImageSets/.

The set's folder is the one that holds JPEGImages (VOC2012 of a VOCdevkit), or a VOCdevkit with one such folder in it.
Everingham et al., "The PASCAL visual object classes (VOC) challenge" (IJCV 2010).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from xml.etree import ElementTree as Xml

import numpy as np

from splitcodec.errors import DataError
from splitcodec.layouts.sample import DataSet, Sample, Task, boxes_of

CLASSES: Final = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_SPLITS: Final = {"detect": "Main", "segment": "Segmentation"}


def home(folder: Path) -> Path | None:
    """Return the folder that holds JPEGImages: this one or the only such folder below; None if it is no VOC layout."""
    if (folder / "JPEGImages").is_dir():
        return folder
    inner = sorted(p.parent for pattern in ("*/JPEGImages", "VOCdevkit/*/JPEGImages") for p in folder.glob(pattern))
    return inner[0] if len(inner) == 1 else None


def read(folder: Path, *, split: str, task: Task) -> DataSet:
    """Read one split. Raises DataError naming the file that is missing or wrong."""
    root = home(folder)
    if root is None:
        raise DataError(f"{folder}: no JPEGImages in it; expected the layout of PASCAL VOC")
    listed = root / "ImageSets" / _SPLITS[task] / f"{split}.txt"
    try:
        lines = listed.read_text(encoding="utf-8-sig").splitlines()  # as editors on Windows write it
    except (OSError, ValueError) as error:  # not UTF-8, or a split with a null byte
        raise DataError(f"{listed}: cannot be read ({error}); expected one name a line") from None
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise DataError(f"{listed} lists no pictures")
    samples = tuple((_boxes if task == "detect" else _mask)(root, name) for name in names)
    classes = CLASSES if task == "detect" else ("background", *CLASSES)
    return DataSet(task, classes, samples, root.name)


def _picture(root: Path, name: str) -> Path:
    path = root / "JPEGImages" / f"{name}.jpg"
    if not path.is_file():
        raise DataError(f"{path} is missing, but the split lists {name}")
    return path


def _mask(root: Path, name: str) -> Sample:
    mask = root / "SegmentationClass" / f"{name}.png"
    if not mask.is_file():
        raise DataError(f"{mask} is missing; every picture needs its label map")
    return Sample(_picture(root, name), mask=mask)


def _boxes(root: Path, name: str) -> Sample:
    path = root / "Annotations" / f"{name}.xml"
    boxes, labels, spare = [], [], []
    try:
        whole = Xml.parse(path).getroot()  # noqa: S314  # the user's own data set
        for one in whole.findall("object"):
            label, box = one.findtext("name", ""), one.find("bndbox")
            if box is None or label not in CLASSES:
                raise DataError(f"{path}: an object {label!r:.40} without a box, or of no VOC class")
            sides = [float(box.findtext(key, "nan")) for key in ("xmin", "ymin", "xmax", "ymax")]
            if not np.isfinite(sides).all():
                raise DataError(f"{path}: a box without all of xmin, ymin, xmax and ymax")
            x0, y0, x1, y1 = sides
            boxes.append((x0 - 1, y0 - 1, x1, y1))  # VOC counts pixels from 1, the last one included
            labels.append(CLASSES.index(label))
            spare.append(one.findtext("difficult", "0").strip() == "1")
        box_n4, size = boxes_of(boxes, what=name), _size(whole)
    except (OSError, Xml.ParseError, ValueError, LookupError, OverflowError) as error:  # LookupError: odd encodings
        raise DataError(f"{path}: not a readable annotation ({error})") from None
    return Sample(_picture(root, name), box_n4, np.array(labels, np.int64), np.array(spare, np.bool_), size=size)


def _size(annotation: Xml.Element) -> tuple[int, int] | None:
    """Return width and height of a picture, None where they are not told (some tools write 0)."""
    wide, high = (int(float(annotation.findtext(f"size/{key}") or 0)) for key in ("width", "height"))
    return (wide, high) if wide > 0 and high > 0 else None
