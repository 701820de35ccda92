"""Photographs -> training crops. Any folder of pictures serves; labels are not needed.

The batch of step n depends on the seed and n alone, so a resumed run goes on exactly where it stopped.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from splitcodec.ahead import ahead
from splitcodec.device.image import load_picture
from splitcodec.device.placed import crop_bhwc
from splitcodec.errors import DataError, PictureError
from splitcodec.training.recipe import Recipe


def names_digest(paths: Sequence[Path], folders: Sequence[Path]) -> str:
    """Return a hash of the names of pictures found below these folders, in order: another one means another split."""
    digest = hashlib.sha256()
    for path in paths:
        root = next(folder for folder in folders if path.is_relative_to(folder))
        digest.update(os.fsencode(path.relative_to(root).as_posix()) + b"\0")
    return digest.hexdigest()


def labels_of(paths: Sequence[Path], names: Sequence[str]) -> list[int]:
    """Return the class of each picture by the name of its folder, as ImageNet lies on disk; -1 for other folders."""
    index = {name: number for number, name in enumerate(names)}
    return [index.get(path.parent.name, -1) for path in paths]


def split_holdout(paths: Sequence[Path], holdout: int, *, seed: int) -> tuple[list[Path], list[Path]]:
    """Set `holdout` photographs aside (at most a tenth); returns (training, held out), the same ones for a seed."""
    order = np.random.default_rng(seed).permutation(len(paths))
    count = min(holdout, len(paths) // 10)
    return [paths[i] for i in sorted(order[count:])], [paths[i] for i in sorted(order[:count])]


class Crops(NamedTuple):
    """Some crops, such as a batch."""

    image_u8: Tensor
    """Pixels (B, 3, H, W)."""
    label_b: Tensor
    """Classes int64 (B); -1 where there is no label."""


def centre_crops(paths: Sequence[Path], *, resize: int, crop: int, labels: Sequence[int] | None = None) -> Crops:
    """Return the crops that the device would make. Broken photographs are left out."""
    crops, label_b = [np.empty((0, crop, crop, 3), np.uint8)], []
    for path, label in zip(paths, labels or [-1] * len(paths), strict=True):
        try:
            crops.append(crop_bhwc(load_picture(path), resize=resize, crop=crop))
        except PictureError:
            continue
        label_b.append(label)
    images = torch.from_numpy(np.concatenate(crops)).permute(0, 3, 1, 2)
    return Crops(images, torch.tensor(label_b, dtype=torch.int64))


@final
class Photographs:
    """Training photographs, decoded once as long as memory allows, cropped at random.

    `unreadable` are the places of those that an earlier session could not read; each is tried again when drawn.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        crop: int,
        smallest_crop: float,
        jitter: float,
        memory_mb: int,
        seed: int,
        labels: Sequence[int] | None = None,
        paste: float = 0.0,
        mix: float = 0.0,
        unreadable: Sequence[int] = (),
    ) -> None:
        if not paths:
            raise DataError("no photographs left to train on; add some, or lower data.holdout in the recipe")
        self.paths, self.crop, self.smallest_crop, self.jitter, self.seed = paths, crop, smallest_crop, jitter, seed
        self.paste, self.mix = paste, mix
        self._labels = [-1] * len(paths) if labels is None else list(labels)
        self.memory = self._room = memory_mb * 1_000_000
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._broken = set(unreadable)

    @staticmethod
    def of(
        recipe: Recipe, paths: Sequence[Path], *, labels: Sequence[int] | None = None, unreadable: Sequence[int] = ()
    ) -> Photographs:
        """Return photographs that are cropped as a recipe says."""
        data = recipe.data
        return Photographs(
            paths,
            crop=recipe.teacher.crop,
            smallest_crop=data.smallest_crop,
            jitter=data.jitter,
            paste=data.paste,
            mix=data.mix,
            memory_mb=data.memory_mb,
            seed=recipe.seed,
            labels=labels,
            unreadable=unreadable,
        )

    @property
    def unreadable(self) -> list[int]:
        """Return the places, among `paths`, of those that could not be read when they were last drawn."""
        return sorted(self._broken)

    def batches(
        self, first_step: int, last_step: int, *, batch: int, stream: int, window: int | None = None
    ) -> Iterator[Crops]:
        """Yield crops uint8 (batch, 3, crop, crop) for each step, made ahead of time by threads.

        With `window`, a square of that side out of each crop, (batch, 3, window, window). `stream` tells apart stages
        and processes. Raises DataError when no photograph can be read.
        """
        yield from ahead(lambda step: self._batch(step, batch, stream, window), range(first_step, last_step), threads=2)

    def first(self, count: int) -> Tensor:
        """Return some random crops, always the same ones: uint8 (count, 3, crop, crop)."""
        return self._batch(0, count, 2**31).image_u8

    def _batch(self, step: int, batch: int, stream: int, window: int | None = None) -> Crops:
        random = np.random.default_rng((self.seed, stream, step))
        side = self.crop if window is None else window
        out = np.empty((batch, side, side, 3), np.uint8)
        label_b = torch.empty(batch, dtype=torch.int64)
        for place in range(batch):
            array, label_b[place] = self._picture(random)
            out[place] = self._random_crop(array, random, side)
            touched = random.random() if self.paste or self.mix else 1.0
            if touched < self.paste + self.mix:
                other = self._random_crop(self._picture(random)[0], random, side)
                (_paste if touched < self.paste else _mix)(out[place], other, random)
                label_b[place] = -1
        return Crops(torch.from_numpy(out).permute(0, 3, 1, 2), label_b)

    def _picture(self, random: np.random.Generator) -> tuple[NDArray[np.uint8], int]:
        while len(self._broken) < len(self.paths):
            index = int(random.integers(len(self.paths)))
            if index in self._kept:
                return self._kept[index], self._labels[index]
            array = self._decoded(index)
            if array is None:
                continue
            if array.nbytes <= self._room:
                self._room -= array.nbytes
                self._kept[index] = array
            return array, self._labels[index]
        raise DataError(
            f"none of {len(self.paths)} photographs can be read, {self.paths[0]} among them; mend the folder"
        )

    def _decoded(self, index: int) -> NDArray[np.uint8] | None:
        """Decode a photograph, no larger than crops need it; None for a broken one."""
        try:
            picture = load_picture(self.paths[index])
        except PictureError:
            self._broken.add(index)
            return None
        self._broken.discard(index)  # a share that was away for a moment
        short = min(picture.size)
        if short > 2 * self.crop:
            scale = 2 * self.crop / short
            picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
        return np.asarray(picture)

    def decoded(self, threads: int, *, every: int = 1) -> list[tuple[NDArray[np.uint8], int]]:
        """Decode all photographs that can be read, or one of so many, with their labels."""
        arrays = ahead(self._decoded, range(0, len(self.paths), every), threads=threads)
        return [(one, label) for one, label in zip(arrays, self._labels[::every], strict=True) if one is not None]

    def _random_crop(self, array: NDArray[np.uint8], random: np.random.Generator, side: int) -> NDArray[np.uint8]:
        """Random resized crop (Szegedy et al. 2015), mirrored half of the time, with slightly changed colours.

        Of the crop, a square of `side` pixels anywhere in it.
        """
        rows, cols = array.shape[:2]
        area = rows * cols * random.uniform(self.smallest_crop, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide = min(cols, max(1.0, math.sqrt(area * ratio)))
        high = min(rows, max(1.0, math.sqrt(area / ratio)))
        left, top = random.uniform(0, cols - wide), random.uniform(0, rows - high)
        if side < self.crop:
            share = side / self.crop
            left, top = (at + random.uniform(0, one * (1 - share)) for at, one in ((left, wide), (top, high)))
            wide, high = wide * share, high * share
        how = Image.Resampling.BICUBIC if random.random() < 0.7 else Image.Resampling.BILINEAR
        picture = Image.fromarray(array).resize((side, side), how, box=(left, top, left + wide, top + high))
        if random.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.jitter:
            gain = 1 + random.uniform(-self.jitter, self.jitter) + random.uniform(-0.25, 0.25, 3) * self.jitter
            centre = 128 + random.uniform(-128, 128) * self.jitter
            table = (np.arange(256)[:, None] - 128) * gain + centre
            picture = picture.point(np.clip(table.T, 0, 255).astype(np.uint8).ravel().tolist())
        return np.asarray(picture)


def _paste(image_hwc: NDArray[np.uint8], other_hwc: NDArray[np.uint8], random: np.random.Generator) -> None:
    """Put a rectangle of one crop over the same place of another (CutMix, Yun et al. 2019); its area is uniform."""
    rows, cols = image_hwc.shape[:2]
    share = math.sqrt(random.uniform(0.1, 0.9))
    high, wide = round(rows * share), round(cols * share)
    top, left = int(random.integers(rows - high + 1)), int(random.integers(cols - wide + 1))
    place = (slice(top, top + high), slice(left, left + wide))
    image_hwc[place] = other_hwc[place]


def _mix(image_hwc: NDArray[np.uint8], other_hwc: NDArray[np.uint8], random: np.random.Generator) -> None:
    """Lay one crop over another, its share uniform (mixup, Zhang et al. 2018; as in Beyer et al., CVPR 2022)."""
    share = random.random()
    image_hwc[:] = np.rint((1 - share) * image_hwc + share * other_hwc.astype(np.float32)).astype(np.uint8)
