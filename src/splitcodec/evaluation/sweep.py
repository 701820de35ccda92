"""Where each codec is measured: settings of its dial, and resolutions.   used by: bench.py, rate.py

A rival may be at its best as a small picture, scaled up again before the network reads it, so resolutions are swept too
and the upper hull keeps what pays. Both ways are bicubic (down with Pillow's antialiasing, as the crop itself is made).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitcodec.device.placed import GREY
from splitcodec.evaluation.codecs import Codec
from splitcodec.evaluation.rivals import Entrant
from splitcodec.wire.packet import OVERHEAD

LEAN_SIDES = (5 / 7, 1 / 2, 3 / 7)  # of the crop's side: 160, 112 and 96 of 224
FULL_SIDES = (*LEAN_SIDES, 5 / 14)
MULTIPLE = 8  # a side that block codecs need not pad


class Setting(NamedTuple):
    """One column of what is measured: a level of a bundle, or a codec's setting at a side, the crop's where None."""

    source: Entrant | Codec
    value: int
    side: int | None = None

    @property
    def method(self) -> str:
        """Return the method's name in reports."""
        return self.source.method if isinstance(self.source, Entrant) else self.source.name

    @property
    def words(self) -> str:
        """Return the setting in words."""
        dial = f"{self.source.prefix}level" if isinstance(self.source, Entrant) else self.source.dial
        return f"{dial} {self.value}" + ("" if self.side is None else f", {self.side} px")


Sweep = Callable[[Codec, int], list[Setting]]


def lean_sweep(codec: Codec, crop: int) -> list[Setting]:
    """Return every setting on a whole crop, and a few at three lower resolutions."""
    lower = (one for side in _sides(crop, LEAN_SIDES) for one in _at(codec, codec.few, side))
    return [*_at(codec, codec.sweep, None), *lower]


def full_sweep(codec: Codec, crop: int) -> list[Setting]:
    """Return every setting on a whole crop and at four lower resolutions."""
    lower = (one for side in _sides(crop, FULL_SIDES) for one in _at(codec, codec.sweep, side))
    return [*_at(codec, codec.sweep, None), *lower]


def floor_bytes(setting: Setting, *, crop: int) -> int:
    """Return what carries no picture: a codec's file of a flat grey one of that size, or a packet's fixed part."""
    if isinstance(setting.source, Entrant):
        return OVERHEAD
    side = setting.side or crop
    (data,) = setting.source.encode([np.full((side, side, 3), GREY, dtype=np.uint8)], setting.value)
    return len(data)


def scaled(images: Sequence[NDArray[np.uint8]], side: int | None) -> list[NDArray[np.uint8]]:
    """Return pictures, uint8 (H, W, 3), as squares of that side, bicubic; None leaves them as they are."""
    return [image_hwc if side is None else resized(image_hwc, side) for image_hwc in images]


def resized(image_hwc: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a picture, uint8 (H, W, 3), as a square of that side, bicubic."""
    picture = Image.fromarray(image_hwc).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8)


def _sides(crop: int, shares: Sequence[float]) -> list[int]:
    """Return the lower sides, multiples of 8, each once and below the crop's."""
    sides = (max(MULTIPLE, MULTIPLE * round(crop * share / MULTIPLE)) for share in shares)
    return [side for side in dict.fromkeys(sides) if side < crop]


def _at(codec: Codec, values: Sequence[int], side: int | None) -> list[Setting]:
    return [Setting(codec, value, side) for value in values]
