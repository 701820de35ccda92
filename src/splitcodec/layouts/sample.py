"""One labelled picture, and a data set of them.   made by: voc.py, coco.py, camvid.py, found by: find.py"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitcodec.errors import DataError, one_line
from splitcodec.quiet import no_warnings

Task = Literal["detect", "segment"]
VOID = 255
"""What every label map says of pixels that do not count, whatever the data set's own number for them."""

MAX_PIXELS = 64_000_000
"""Of a label map, as of a picture."""


_FARTHEST: Final = 1e9  # pixels


def boxes_of(corners: Sequence[Sequence[float]], *, what: str) -> NDArray[np.float32]:
    """Return boxes x0, y0, x1, y1 as float32 (N, 4). Raises ValueError for numbers that are none, and turned ones.

    A turned box, its right edge left of its left one, would be a box of no picture: nothing could ever match it.
    """
    box_n4 = np.array(corners, np.float64).reshape(-1, 4)
    if not (np.abs(box_n4) < _FARTHEST).all():  # nor NaN
        raise ValueError(f"a box of {what} is not finite")
    if (box_n4[:, 2:] < box_n4[:, :2]).any():
        raise ValueError(f"a box of {what} ends before it begins")
    return box_n4.astype(np.float32)


def no_boxes() -> NDArray[np.float32]:
    """Return an empty list of boxes, float32 (0, 4)."""
    return np.zeros((0, 4), np.float32)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A picture with its boxes or with the file of its label map; nothing is decoded yet.

    `box_n4` holds x0, y0, x1, y1 in pixels, float32 (N, 4); `label_n` class indices; `spare_n` marks boxes that count
    neither as found nor as missed (VOC's "difficult", COCO's crowds).
    """

    path: Path
    box_n4: NDArray[np.float32] = field(default_factory=no_boxes)
    label_n: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    spare_n: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    mask: Path | None = None
    void: int = VOID
    size: tuple[int, int] | None = None
    """Width and height of the picture that the boxes lie in, where the data set tells."""

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse a picture of another size than its boxes are of, such as one that EXIF turns. Raises DataError."""
        if self.size is not None and self.size != size:
            (wide, high), (told_wide, told_high) = size, self.size
            raise DataError(
                f"{self.path}: {wide} x {high} once it is upright, its boxes lie in {told_wide} x {told_high}; give "
                "boxes of the upright picture, or the picture that they are of"
            )

    def mask_hw(self, *, classes: int) -> NDArray[np.uint8]:
        """Return the label map, uint8 (H, W): class indices, and VOID. Raises DataError."""
        if self.mask is None:
            raise DataError(f"{self.path.name} has no label map; expected a data set for segmentation")
        try:
            with no_warnings():  # Pillow warns of large pictures
                picture = Image.open(self.mask, formats=["PNG"])  # of others EPS would start Ghostscript
            with picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ValueError(f"{picture.width} x {picture.height}, more than {MAX_PIXELS} pixels")
                raw_hw = np.asarray(picture)
        except Exception as error:  # hostile headers make Pillow raise nearly anything
            told = one_line(error, most=120)
            raise DataError(f"{self.mask}: not a readable label map ({told}); expected a PNG") from None
        if raw_hw.ndim != 2:
            raise DataError(f"{self.mask}: {raw_hw.shape} values, expected one class index per pixel")
        index_hw = raw_hw.astype(np.int64)
        void_hw = (raw_hw == self.void) | (index_hw < 0)
        if not np.isin(index_hw[~void_hw], np.arange(classes)).all():
            raise DataError(f"{self.mask}: a class index of {classes} or more; the data set has {classes} classes")
        return np.where(void_hw, VOID, index_hw).astype(np.uint8)


@final
@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """Labelled pictures for one task, and the names of their classes in the order of the indices."""

    task: Task
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    name: str
