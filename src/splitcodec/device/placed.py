"""Stage 1 of 7, continued: a picture -> what the network sees of it.   before: image.py   after: device/encoder.py

Either its middle, as a classifier learns (a crop), or all of it, padded with grey (a letterbox); and where the picture
lies in that, so that boxes and label maps find their way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitcodec.errors import PictureTooLarge, PictureUnreadable, SettingsError

MAX_RESIZED_SIDE = 16_384
GREY = 128


def crop_bhwc(picture: Image.Image, *, resize: int, crop: int, name: str = "the picture") -> NDArray[np.uint8]:
    """Resize the short side to `resize` (bicubic, antialiased) and cut `crop` x `crop` from the centre.

    Returns uint8 (1, crop, crop, 3). Rounding is torchvision's: the long side becomes int(resize * long / short), the
    crop starts at int(round((side - crop) / 2)), so results equal Resize + CenterCrop on PIL images bit for bit.

    Raises PictureTooLarge, which says its `name`, where the resized long side would exceed 16,384 (of 10000 x 2, say).
    """
    if not 1 <= crop <= resize:
        raise SettingsError(f"crop {crop} with resize {resize}: expected 1 <= crop <= resize")
    if picture.mode != "RGB":
        raise PictureUnreadable(f"a PIL image of mode {picture.mode}; expected RGB, pass it through load_picture first")
    width, height = picture.size
    size = _crop_size(picture.size, resize=resize)
    if (long_resized := max(size)) > MAX_RESIZED_SIDE:
        raise PictureTooLarge(
            f"{name}: {width} x {height} pixels would grow to {long_resized} pixels on its long side; "
            f"at most {MAX_RESIZED_SIDE} are allowed, so cut it to a less extreme shape first"
        )
    resized = picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)
    left, top = _crop_place(size, crop=crop)
    image_hwc = np.asarray(resized.crop((left, top, left + crop, top + crop)), dtype=np.uint8)
    return np.ascontiguousarray(image_hwc[None])


def crop_place(size: tuple[int, int], *, resize: int, crop: int) -> Letterbox:
    """Return where a picture of `size` (width, height) lies in what `crop_bhwc` gives."""
    wide, high = _crop_size(size, resize=resize)
    left, top = _crop_place((wide, high), crop=crop)
    return Letterbox(size, wide, high, crop, crop, left, top)


def _crop_size(size: tuple[int, int], *, resize: int) -> tuple[int, int]:
    width, height = size
    long = int(resize * max(size) / min(size))
    return (resize, long) if width <= height else (long, resize)


def _crop_place(size: tuple[int, int], *, crop: int) -> tuple[int, int]:
    return round((size[0] - crop) / 2.0), round((size[1] - crop) / 2.0)


@final
@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a picture lies in what the network sees: scaled to `wide` x `high`, in `cols` x `rows` pixels.

    `picture` is the upright picture's own (width, height). It lies at the top left and the rest is grey, or its part
    from (`left`, `top`) on fills all (a crop).
    """

    picture: tuple[int, int]
    wide: int
    high: int
    cols: int
    rows: int
    left: int = 0
    top: int = 0

    def box_in_picture(self, box: Sequence[float]) -> list[float]:
        """Map x0, y0, x1, y1 in shares of the network's input to pixels of the picture, cut to it."""
        width, height = self.picture
        x0, x1 = ((side * self.cols + self.left) * width / self.wide for side in (box[0], box[2]))
        y0, y1 = ((side * self.rows + self.top) * height / self.high for side in (box[1], box[3]))
        scaled = (x0, y0, x1, y1)
        return [min(max(side, 0.0), float(limit)) for side, limit in zip(scaled, (width, height) * 2, strict=True)]

    def mask_in_picture(self, mask_hw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Map a label map of the network's input, uint8 (rows, cols), to the picture's size: nearest neighbour.

        What the network did not see is 255.
        """
        whole_hw = np.full((self.high, self.wide), 255, np.uint8)
        part_hw = mask_hw[: self.high - self.top, : self.wide - self.left]
        whole_hw[self.top : self.top + len(part_hw), self.left : self.left + part_hw.shape[1]] = part_hw
        if (self.wide, self.high) == self.picture:
            return whole_hw
        return np.asarray(Image.fromarray(whole_hw).resize(self.picture, Image.Resampling.NEAREST))


def letterbox_size(size: tuple[int, int], *, side: int) -> tuple[int, int]:
    """Return (width, height) scaled so that the longer is `side`; the other is rounded, and at least 1."""
    longest = max(size)
    return max(1, round(size[0] * side / longest)), max(1, round(size[1] * side / longest))


def letterbox_bhwc(picture: Image.Image, *, side: int, multiple: int) -> tuple[NDArray[np.uint8], Letterbox]:
    """Scale the whole picture to a longest side of `side`, and pad below and to the right to multiples of `multiple`.

    Returns uint8 (1, rows, cols, 3) and where the picture lies in it; bicubic, antialiased, padded with grey.
    """
    if not 1 <= side <= MAX_RESIZED_SIDE or multiple < 1:
        raise SettingsError(f"side {side}, multiple {multiple}; expected 1 <= side <= {MAX_RESIZED_SIDE}")
    if picture.mode != "RGB":
        raise PictureUnreadable(f"a PIL image of mode {picture.mode}; expected RGB, pass it through load_picture first")
    place = letterbox_place(picture.size, side=side, multiple=multiple)
    size = place.wide, place.high
    resized = picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)
    return place_bhwc(np.asarray(resized, dtype=np.uint8), place), place


def letterbox_place(size: tuple[int, int], *, side: int, multiple: int) -> Letterbox:
    """Return where a picture of `size` (width, height) lies in what `letterbox_bhwc` gives."""
    wide, high = letterbox_size(size, side=side)
    return Letterbox(size, wide, high, -(-wide // multiple) * multiple, -(-high // multiple) * multiple)


def place_bhwc(image_hwc: NDArray[np.uint8], place: Letterbox) -> NDArray[np.uint8]:
    """Return a picture that is scaled already, uint8 (high, wide, 3), in its letterbox: uint8 (1, rows, cols, 3)."""
    image_bhwc = np.full((1, place.rows, place.cols, 3), GREY, np.uint8)
    image_bhwc[0, : place.high, : place.wide] = image_hwc
    return image_bhwc
