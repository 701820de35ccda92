"""Photographs that lie in an accelerator's memory, decoded once, and are cropped there.

Decoding and cropping keep some processor cores busy for a hundred pictures a second each; a GPU learns from thousands.
Crops are drawn by the same rules as in data.py, with random numbers of their own; they are resampled as Pillow does it,
as two products with sparse matrices (a separable kernel, widened where the crop is larger than what is made of it).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitcodec.errors import DataError
from splitcodec.training.data import Crops, Photographs

ROOM: Final = 0.4
"""Share of an accelerator's free memory that photographs may take."""
WIDEST: Final = 2.0
"""Longest side in short ones; of a longer picture, the middle is kept."""
SAMPLED: Final = 128
"""Photographs by which it is judged whether all of them fit."""


class _Draw(NamedTuple):
    """Random choices for some crops, an entry each."""

    picture: NDArray[np.int64]
    top: NDArray[np.float64]
    left: NDArray[np.float64]
    high: NDArray[np.float64]
    wide: NDArray[np.float64]
    smooth: NDArray[np.bool_]
    """Bilinear in place of bicubic."""
    mirrored: NDArray[np.bool_]
    gain: NDArray[np.float64]  # (B, 3)
    centre: NDArray[np.float64]


def resident(source: Photographs, device: torch.device) -> Photographs | Resident:
    """Return photographs in the memory of a CUDA device, where there is one and they fit; else as they were."""
    if device.type != "cuda":
        return source
    free, _ = torch.cuda.mem_get_info(device)
    pictures = fitting(source, room=ROOM * free)
    return source if pictures is None else Resident(source, pictures, device=device)


def fitting(source: Photographs, *, room: float) -> list[tuple[NDArray[np.uint8], int]] | None:
    """Decode all photographs; None where they would take more than `room` bytes, or than the source may keep.

    Some of them tell first, so that a million are not decoded in vain.
    """
    threads, count = os.cpu_count() or 1, len(source.paths)
    some = source.decoded(threads, every=max(1, count // SAMPLED))
    if count * _bytes_each(some) > min(room, source.memory):
        return None
    pictures = source.decoded(threads)
    return pictures if count * _bytes_each(pictures) <= room else None


@final
class Resident:
    """Decoded photographs as one tensor; `batches` and `first` as those of `Photographs`."""

    def __init__(self, source: Photographs, pictures: list[tuple[NDArray[np.uint8], int]], *, device: torch.device):
        if not pictures:
            raise DataError("none of the photographs can be read; mend the folder")
        self._source, self._device = source, device
        cut = [_middle(array) for array, _ in pictures]
        self._rows = np.array([len(one) for one in cut])
        self._cols = np.array([one.shape[1] for one in cut])
        self._labels = torch.tensor([label for _, label in pictures])
        shape = (len(cut), 3, int(self._rows.max()), int(self._cols.max()))
        self._image_u8 = torch.zeros(shape, dtype=torch.uint8, device=device)
        for place, one in enumerate(cut):
            values = torch.from_numpy(one.copy()).to(device).permute(2, 0, 1)
            self._image_u8[place, :, : len(one), : one.shape[1]] = values

    @property
    def unreadable(self) -> list[int]:
        """Return the places of photographs that could not be read; see `Photographs.unreadable`."""
        return self._source.unreadable

    def batches(
        self, first_step: int, last_step: int, *, batch: int, stream: int, window: int | None = None
    ) -> Iterator[Crops]:
        """Yield crops uint8 (batch, 3, crop, crop), on the device, for each step; see `Photographs.batches`."""
        for step in range(first_step, last_step):
            yield self._batch(step, batch, stream, window)

    def first(self, count: int) -> Tensor:
        """Return some random crops, always the same ones: uint8 (count, 3, crop, crop)."""
        return self._batch(0, count, 2**31).image_u8

    def _batch(self, step: int, batch: int, stream: int, window: int | None = None) -> Crops:
        source = self._source
        side = source.crop if window is None else window
        random = np.random.default_rng((source.seed, stream, step))
        draw = self._drawn(random, batch, side)
        image_u8, label_b = self._cropped(draw, side), self._labels[draw.picture].clone()
        if not source.paste and not source.mix:
            return Crops(image_u8, label_b)
        choice = random.random(batch)
        pasted, mixed = choice < source.paste, (choice >= source.paste) & (choice < source.paste + source.mix)
        touched = np.flatnonzero(pasted | mixed)
        if len(touched):
            other_u8 = self._cropped(self._drawn(random, len(touched), side), side)
            share = self._other_share(random, pasted[touched], side)
            image_u8[touched] = torch.lerp(image_u8[touched].float(), other_u8.float(), share).round().byte()
            label_b[touched] = -1
        return Crops(image_u8, label_b)

    def _drawn(self, random: np.random.Generator, count: int, side: int) -> _Draw:
        """Draw crops as `Photographs` does."""
        source = self._source
        index = random.integers(len(self._rows), size=count)
        rows, cols = self._rows[index], self._cols[index]
        area = rows * cols * random.uniform(source.smallest_crop, 1.0, count)
        ratio = np.exp(random.uniform(math.log(3 / 4), math.log(4 / 3), count))
        wide = np.minimum(cols, np.maximum(1.0, np.sqrt(area * ratio)))
        high = np.minimum(rows, np.maximum(1.0, np.sqrt(area / ratio)))
        left, top = (random.random(count) * (whole - part) for whole, part in ((cols, wide), (rows, high)))
        if side < source.crop:
            share = side / source.crop
            left = left + random.random(count) * wide * (1 - share)
            top = top + random.random(count) * high * (1 - share)
            wide, high = wide * share, high * share
        smooth, mirrored = random.random(count) >= 0.7, random.random(count) < 0.5
        jitter = source.jitter
        gain = 1 + jitter * (random.uniform(-1, 1, (count, 1)) + random.uniform(-0.25, 0.25, (count, 3)))
        centre = 128 + random.uniform(-128, 128, count) * jitter
        return _Draw(index, top, left, high, wide, smooth, mirrored, gain, centre)

    def _cropped(self, draw: _Draw, side: int) -> Tensor:
        """Return crops uint8 (B, 3, side, side)."""
        kind = torch.float32 if self._device.type == "cpu" else torch.float16
        index = torch.from_numpy(draw.picture).to(self._device)
        image = self._image_u8[index].to(kind)
        rows, cols, smooth = self._rows[draw.picture], self._cols[draw.picture], draw.smooth
        down = self._kernel(draw.top, draw.high, smooth=smooth, size=rows, most=image.shape[2], side=side)
        across = self._kernel(draw.left, draw.wide, smooth=smooth, size=cols, most=image.shape[3], side=side)
        mirrored = torch.from_numpy(draw.mirrored).to(self._device)
        across = torch.where(mirrored[:, None, None], across.flip(1), across)
        made = image @ across.to(kind).transpose(1, 2)[:, None]
        made = (down.to(kind)[:, None] @ made).float()
        if self._source.jitter:
            gain, centre = (
                self._on_device(draw.gain)[:, :, None, None],
                self._on_device(draw.centre)[:, None, None, None],
            )
            made = (made.round().clamp(0, 255) - 128) * gain + centre
        return made.round().clamp(0, 255).byte()

    def _kernel(
        self,
        start: NDArray[np.float64],
        length: NDArray[np.float64],
        *,
        smooth: NDArray[np.bool_],
        size: NDArray[np.int64],
        most: int,
        side: int,
    ) -> Tensor:
        """Return (B, side, most): what each of `size` pixels counts in each of `side`, along one axis, as in Pillow."""
        scale = self._on_device(length / side)[:, None, None]
        centre = self._on_device(start)[:, None, None] + (self._ramp(side)[None, :, None] + 0.5) * scale
        at = self._ramp(most)[None, None, :]
        x = ((at + 0.5 - centre) / scale.clamp_min(1.0)).abs()
        bilinear = (1 - x).clamp_min(0)
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2  # cubic convolution, a = -0.5
        bicubic = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
        weight = torch.where(torch.from_numpy(smooth).to(self._device)[:, None, None], bilinear, bicubic)
        weight = torch.where(at < self._on_device(size)[:, None, None], weight, 0.0)
        return weight / weight.sum(2, keepdim=True)

    def _other_share(self, random: np.random.Generator, pasted: NDArray[np.bool_], side: int) -> Tensor:
        """Return how much of another crop each pixel gets, (B, 1, side, side): a rectangle, or alike everywhere."""
        count = len(pasted)
        part = np.rint(np.sqrt(random.uniform(0.1, 0.9, count)) * side)
        top, left = (np.floor(random.random(count) * (side - part + 1)) for _ in range(2))
        at = self._ramp(side)
        inside = [
            (at >= self._on_device(start)[:, None]) & (at < self._on_device(start + part)[:, None])
            for start in (top, left)
        ]
        rectangle = (inside[0][:, :, None] & inside[1][:, None, :]).float()
        even = self._on_device(random.random(count))[:, None, None].expand_as(rectangle)
        share = torch.where(torch.from_numpy(pasted).to(self._device)[:, None, None], rectangle, even)
        return share[:, None]

    def _ramp(self, count: int) -> Tensor:
        return torch.arange(count, device=self._device, dtype=torch.float32)

    def _on_device(self, values: NDArray[np.float64] | NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._device)


def _middle(array_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the middle of a picture that is more than `WIDEST` times as long as short."""
    rows, cols = array_hwc.shape[:2]
    most = math.floor(WIDEST * min(rows, cols))
    top, left = max(0, (rows - most) // 2), max(0, (cols - most) // 2)
    return array_hwc[top : top + most, left : left + most]


def _bytes_each(pictures: list[tuple[NDArray[np.uint8], int]]) -> int:
    """Return what a picture takes where all are as large as the largest."""
    shapes = [_middle(array).shape for array, _ in pictures]
    return 3 * max((rows for rows, *_ in shapes), default=0) * max((cols for _, cols, *_ in shapes), default=0)
