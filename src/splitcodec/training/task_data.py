"""Labelled pictures -> batches: scaled, moved, mirrored, recoloured, put together; labels with them.

The batch of step n depends on the seed and n alone, so a resumed run goes on exactly where it stopped. All pictures of
a batch lie on canvases of one size: that of the wide or that of the tall pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from splitcodec.ahead import ahead
from splitcodec.device.image import load_picture
from splitcodec.device.placed import GREY, letterbox_size
from splitcodec.errors import DataError, PictureError
from splitcodec.layouts.sample import VOID, DataSet, Sample
from splitcodec.model.fcos import Boxes
from splitcodec.training.task_recipe import TaskDataRecipe

MULTIPLE: Final = 32
"""Canvases are multiples of this many pixels, so that all maps of the pyramid are whole."""
_TURNED: Final = (5, 6, 7, 8)
"""EXIF's orientations that change width and height."""
SEEN: Final = 0.3
"""A box of which less than this share lies on the canvas no longer counts as found or missed."""
SMALLEST: Final = 4.0
"""Pixels on the canvas of a box's shorter side, under which it does not count either."""


class Batch(NamedTuple):
    """Pictures uint8 (B, 3, H, W), and boxes or label maps int64 (B, H, W)."""

    image_u8: Tensor
    truth: Boxes | Tensor


class Placed(NamedTuple):
    """One picture on its canvas: uint8 (H, W, 3), boxes with labels (-2 for spare ones), label map or none."""

    image_hwc: NDArray[np.uint8]
    box_n4: NDArray[np.float32]
    label_n: NDArray[np.int64]
    mask_hw: NDArray[np.uint8] | None


@final
class LabelledPictures:
    """Training pictures of one data set, decoded once as long as memory allows."""

    def __init__(self, data: DataSet, recipe: TaskDataRecipe, *, seed: int) -> None:
        self.data, self._recipe, self._seed = data, recipe, seed
        self._room = recipe.memory_mb * 1_000_000
        self._kept: dict[int, tuple[Image.Image, NDArray[np.uint8] | None]] = {}
        self.unreadable: list[Path] = []
        """Those without a header, which teach nothing."""
        wide: dict[bool, list[int]] = {True: [], False: []}
        shapes: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for index, sample in enumerate(data.samples):
            size = header(sample)
            if size is None:
                self.unreadable.append(sample.path)
            else:
                sample.check_size(size)
                wide[size[0] >= size[1]].append(index)
                shapes[size[0] >= size[1]].append(letterbox_size(size, side=recipe.side))
        self._groups = [(wide[key], _canvas(shapes[key])) for key in (True, False) if wide[key]]
        if not self._groups:
            raise DataError(f"{data.name}: none of {len(data.samples)} pictures can be read")
        self.count = sum(len(members) for members, _ in self._groups)

    def batches(self, first_step: int, last_step: int, *, batch: int, stream: int) -> Iterator[Batch]:
        """Yield a batch for each step, made ahead of time by threads; `stream` tells stages and processes apart."""
        steps = range(first_step, last_step)
        yield from ahead(lambda step: self.batch(step, size=batch, stream=stream), steps, threads=2)

    def batch(self, step: int, *, size: int, stream: int) -> Batch:
        """Return the batch of one step."""
        random = np.random.default_rng((self._seed, stream, step))
        shares = np.array([len(members) for members, _ in self._groups], np.float64)
        members, canvas = self._groups[int(random.choice(len(self._groups), p=shares / shares.sum()))]
        placed = [self._one(members, canvas, random) for _ in range(size)]
        image = torch.from_numpy(np.stack([one.image_hwc for one in placed])).permute(0, 3, 1, 2)
        if self.data.task == "segment":
            masks = [one.mask_hw for one in placed if one.mask_hw is not None]
            return Batch(image, torch.from_numpy(np.stack(masks)).long())
        return Batch(image, padded(placed))

    def shares(self) -> NDArray[np.float64]:
        """Return each class's share of the pixels, over at most 100 label maps: float64 (classes)."""
        classes = len(self.data.classes)
        some = self.data.samples[:: max(1, len(self.data.samples) // 100)]
        counts = sum(np.bincount(one.mask_hw(classes=classes).ravel(), minlength=256)[:classes] for one in some)
        total = np.asarray(counts, np.float64) + 1.0
        return np.asarray(total / total.sum())

    def _one(self, members: list[int], canvas: tuple[int, int], random: np.random.Generator) -> Placed:
        if random.random() >= self._recipe.mosaic:
            return self._placed(self._draw(members, random), canvas, random)
        half = (canvas[0] // 2, canvas[1] // 2)
        image = np.full((canvas[1], canvas[0], 3), GREY, np.uint8)
        boxes, labels = [], []
        for row in range(2):
            for col in range(2):
                part = self._placed(self._draw(members, random), half, random)
                top, left = row * half[1], col * half[0]
                image[top : top + half[1], left : left + half[0]] = part.image_hwc
                boxes.append(part.box_n4 + np.array([left, top, left, top], np.float32))
                labels.append(part.label_n)
        return Placed(image, np.concatenate(boxes), np.concatenate(labels), None)

    def _draw(self, members: list[int], random: np.random.Generator) -> int:
        return members[int(random.integers(len(members)))]

    def _picture(self, index: int) -> tuple[Image.Image, NDArray[np.uint8] | None]:
        if index in self._kept:
            return self._kept[index]
        sample = self.data.samples[index]
        try:
            picture = load_picture(sample.path)
        except PictureError as error:
            raise DataError(f"{error}; mend the data set") from error
        mask = sample.mask_hw(classes=len(self.data.classes)) if self.data.task == "segment" else None
        if mask is not None and mask.shape != picture.size[::-1]:
            raise DataError(f"{sample.mask}: {mask.shape[1]} x {mask.shape[0]}, its picture {picture.size}")
        size = 3 * picture.width * picture.height
        if size <= self._room:
            self._room -= size
            self._kept[index] = picture, mask
        return picture, mask

    def _placed(self, index: int, canvas: tuple[int, int], random: np.random.Generator) -> Placed:
        """Scale a picture, and move it about so that the canvas lies in it or it on the canvas."""
        picture, mask = self._picture(index)
        sample, recipe = self.data.samples[index], self._recipe
        fit = min(canvas[0] / picture.width, canvas[1] / picture.height)
        scale = fit * math.exp(random.uniform(math.log(recipe.scale[0]), math.log(recipe.scale[1])))
        stretch = math.exp(random.uniform(-0.12, 0.12))
        x_scale, y_scale = scale * math.sqrt(stretch), scale / math.sqrt(stretch)
        wide, high = max(1, round(picture.width * x_scale)), max(1, round(picture.height * y_scale))
        left = _offset(canvas[0], wide, random)
        top = _offset(canvas[1], high, random)
        # the part of the picture that the canvas shows, in the picture's own pixels
        x0, y0 = max(0, -left), max(0, -top)
        x1, y1 = min(wide, canvas[0] - left), min(high, canvas[1] - top)
        source = (x0 / x_scale, y0 / y_scale, min(picture.width, x1 / x_scale), min(picture.height, y1 / y_scale))
        shown, place = (x1 - x0, y1 - y0), (left + x0, top + y0)
        how = Image.Resampling.BICUBIC if random.random() < 0.7 else Image.Resampling.BILINEAR
        part = picture.resize(shown, how, box=source)
        if recipe.jitter:
            part = _recoloured(part, recipe.jitter, random)
        image = np.full((canvas[1], canvas[0], 3), GREY, np.uint8)
        image[place[1] : place[1] + shown[1], place[0] : place[0] + shown[0]] = np.asarray(part)
        flip = random.random() < recipe.flip
        mask_hw = None
        if mask is not None:
            mask_hw = np.full((canvas[1], canvas[0]), VOID, np.uint8)
            small = Image.fromarray(mask).resize(shown, Image.Resampling.NEAREST, box=source)
            mask_hw[place[1] : place[1] + shown[1], place[0] : place[0] + shown[0]] = np.asarray(small)
            mask_hw = mask_hw[:, ::-1] if flip else mask_hw
        factors = np.array([x_scale, y_scale, x_scale, y_scale], np.float32)
        box_n4 = sample.box_n4 * factors + np.array([left, top, left, top], np.float32)
        box_n4, label_n = _on_canvas(box_n4, sample, canvas)
        if flip:
            box_n4 = np.stack([canvas[0] - box_n4[:, 2], box_n4[:, 1], canvas[0] - box_n4[:, 0], box_n4[:, 3]], 1)
        return Placed(image[:, ::-1] if flip else image, box_n4, label_n, mask_hw)


def padded(placed: list[Placed]) -> Boxes:
    """Return the boxes of several pictures as one array, padded with boxes of label -1."""
    most = max(1, *(len(one.label_n) for one in placed))
    box = np.zeros((len(placed), most, 4), np.float32)
    label = np.full((len(placed), most), -1, np.int64)
    for place, one in enumerate(placed):
        box[place, : len(one.label_n)], label[place, : len(one.label_n)] = one.box_n4, one.label_n
    return Boxes(torch.from_numpy(box), torch.from_numpy(label))


def _on_canvas(
    box_n4: NDArray[np.float32], sample: Sample, canvas: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cut boxes to the canvas; those hardly on it go, or count as spare."""
    limits = np.array([*canvas, *canvas], np.float32)
    cut = np.clip(box_n4, 0, limits)
    sides, whole = cut[:, 2:] - cut[:, :2], box_n4[:, 2:] - box_n4[:, :2]
    share = sides.prod(1) / np.maximum(whole.prod(1), 1e-6)
    label_n = np.where(sample.spare_n | (share < SEEN) | (sides.min(1) < SMALLEST), -2, sample.label_n)
    kept = (sides > 0).all(1)
    return cut[kept].astype(np.float32), label_n[kept]


def _offset(canvas: int, side: int, random: np.random.Generator) -> int:
    low, high = min(0, canvas - side), max(0, canvas - side)
    return int(random.integers(low, high + 1))


def _recoloured(picture: Image.Image, jitter: float, random: np.random.Generator) -> Image.Image:
    gain = 1 + random.uniform(-jitter, jitter) + random.uniform(-0.3, 0.3, 3) * jitter
    centre = 128 + random.uniform(-100, 100) * jitter
    table = (np.arange(256)[:, None] - 128) * gain + centre
    out = picture.point(np.clip(table.T, 0, 255).astype(np.uint8).ravel().tolist())
    if random.random() < jitter / 2:
        out = out.convert("L").convert("RGB")
    return out


def _canvas(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Return a canvas for pictures of these sizes: the longest side, and the other as most of them have it."""
    wide, high = (np.quantile([size[axis] for size in sizes], 0.8) for axis in (0, 1))
    return max(MULTIPLE, math.ceil(wide / MULTIPLE) * MULTIPLE), max(MULTIPLE, math.ceil(high / MULTIPLE) * MULTIPLE)


def header(sample: Sample) -> tuple[int, int] | None:
    """Return an upright picture's width and height from its header; None where there is none."""
    try:
        with Image.open(sample.path) as picture:
            return picture.size[::-1] if _turned(picture) else picture.size
    except (OSError, ValueError, SyntaxError):
        return None


def _turned(picture: Image.Image) -> bool:
    try:
        return picture.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except Exception:  # damaged EXIF says nothing, as to `load_picture`
        return False
