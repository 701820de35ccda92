"""Image codecs to beat, each on the very crop that the encoder gets.   used by: rate.py

A codec is a pair of functions, picture -> bytes -> picture, and a sweep of settings. The file that comes out is counted
whole, headers included, as a packet is.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from splitcodec.errors import SettingsError


class Codec(Protocol):
    """What `evaluate` needs of a rival. `sweep` are its settings, fewest bytes first; `note` says how it was run."""

    @property
    def name(self) -> str:
        """Return the method's name in reports."""

    @property
    def sweep(self) -> tuple[int, ...]:
        """Return the settings to measure, wide enough to reach from a wrecked picture to one as good as new."""

    @property
    def note(self) -> str:
        """Return the options that stay fixed, for the report."""

    def encode(self, image_hwc: NDArray[np.uint8], setting: int) -> bytes:
        """Return the file of a picture, uint8 (H, W, 3)."""

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Return the picture in a file of `encode`: uint8 (H, W, 3)."""


@final
@dataclass(frozen=True, slots=True)
class PillowCodec:
    """A codec in Pillow, swept over its quality setting."""

    name: str
    sweep: tuple[int, ...]
    note: str
    options: dict[str, Any] = field(default_factory=dict)

    def encode(self, image_hwc: NDArray[np.uint8], setting: int) -> bytes:
        """Return the file of a picture, uint8 (H, W, 3), at a quality of 0 to 100."""
        file = io.BytesIO()
        Image.fromarray(image_hwc).save(file, self.name, quality=setting, **self.options)
        return file.getvalue()

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Return the picture in a file of `encode`: uint8 (H, W, 3)."""
        with Image.open(io.BytesIO(data), formats=[self.name.upper()]) as picture:
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)


JPEG = PillowCodec(
    "jpeg",
    (5, 10, 15, 22, 35, 50, 70, 85, 95),
    "Pillow, 4:2:0, optimised Huffman tables",
    {"optimize": True},
)
WEBP = PillowCodec("webp", (1, 8, 15, 25, 40, 60, 80, 90, 97), "Pillow, lossy, method 6", {"method": 6})
AVIF = PillowCodec(
    "avif",
    (10, 20, 30, 40, 50, 60, 72, 84, 94),
    "Pillow, libavif with aom, 4:2:0, speed 6 (slower speeds save a few per cent), one thread",
    {"speed": 6, "max_threads": 1},
)
CODECS: tuple[Codec, ...] = (JPEG, WEBP, AVIF)


def codecs_named(names: Sequence[str]) -> tuple[Codec, ...]:
    """Return the codecs of those names, each once. Raises SettingsError for one that is not known or not built in."""
    known = {codec.name: codec for codec in CODECS}
    chosen = []
    for name in dict.fromkeys(names):
        codec = known.get(name)
        if codec is None:
            raise SettingsError(f"codec {name[:40]!r}; known are {', '.join(known)}")
        if name in ("webp", "avif") and not features.check(name):
            raise SettingsError(f"this Pillow is built without {name}; install Pillow's own wheel, or leave {name} out")
        chosen.append(codec)
    return tuple(chosen)
