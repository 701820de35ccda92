"""Image codecs to beat, each on the very crop that the encoder gets.   after: video.py   used by: sweep.py, bench.py

A codec is a pair of functions, pictures -> files -> pictures, and a dial. The file that comes out is counted whole,
headers included, as a packet is. `sweep.py` says at which resolutions and settings of the dial a codec is measured.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from splitcodec.errors import MissingExtra, SettingsError
from splitcodec.evaluation.video import VideoCodec

Images = Sequence[NDArray[np.uint8]]


class Codec(Protocol):
    """What `evaluate` needs of a rival."""

    @property
    def name(self) -> str:
        """Return the method's name in reports."""

    @property
    def dial(self) -> str:
        """Return what its settings are called in reports."""

    @property
    def sweep(self) -> tuple[int, ...]:
        """Return the settings, fewest bytes first, from a wrecked picture to one as good as new."""

    @property
    def few(self) -> tuple[int, ...]:
        """Return the settings worth a try at lower resolutions where time is short."""

    @property
    def at_once(self) -> int:
        """Return how many pictures one call should bring."""

    @property
    def note(self) -> str:
        """Return the options that stay fixed, for the report."""

    def require(self) -> None:
        """Raise MissingExtra or SettingsError if it cannot run here."""

    def encode(self, images: Images, setting: int) -> list[bytes]:
        """Return one file per picture, uint8 (H, W, 3), all of one size; no file depends on another picture."""

    def decode(self, files: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        """Return the pictures in files of one call of `encode`: uint8 (H, W, 3)."""


@final
@dataclass(frozen=True, slots=True)
class PillowCodec:
    """A codec in Pillow, or in a plug-in of Pillow; `options` are what `save` is told for a setting."""

    name: str
    format: str
    dial: str
    sweep: tuple[int, ...]
    few: tuple[int, ...]
    note: str
    options: Callable[[int], dict[str, Any]]
    at_once: int = 1

    def require(self) -> None:
        """Raise MissingExtra without the plug-in of JPEG XL, SettingsError for a Pillow without a codec."""
        if self.name == "jxl":
            try:
                import pillow_jxl  # noqa: F401  # makes itself known to Pillow
            except ImportError:
                raise MissingExtra(
                    "codec jxl needs pillow-jxl-plugin; install it with: pip install 'splitcodec[eval]'"
                ) from None
        elif not features.check({"jpeg": "jpg", "jpeg444": "jpg", "jp2": "jpg_2000"}.get(self.name, self.name)):
            raise SettingsError(
                f"this Pillow is built without {self.name}; install Pillow's own wheel, or leave {self.name} out"
            )

    def encode(self, images: Images, setting: int) -> list[bytes]:
        """Return one file per picture, uint8 (H, W, 3)."""
        files = []
        for image_hwc in images:
            file = io.BytesIO()
            Image.fromarray(image_hwc).save(file, self.format, **self.options(setting))
            files.append(file.getvalue())
        return files

    def decode(self, files: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        """Return the pictures in files of `encode`: uint8 (H, W, 3). Raises SettingsError for anything else."""
        pictures = []
        for data in files:
            try:
                with Image.open(io.BytesIO(data), formats=[self.format]) as picture:
                    pictures.append(np.asarray(picture.convert("RGB"), dtype=np.uint8))
            except (UnidentifiedImageError, OSError) as error:
                raise SettingsError(f"Pillow reads no {self.name} in {len(data)} bytes ({error})") from None
        return pictures


JPEG = PillowCodec(
    "jpeg",
    "JPEG",
    "quality",
    (5, 10, 15, 22, 35, 50, 70, 85, 95),
    (20, 40, 70),
    "Pillow, 4:2:0, baseline, optimised Huffman tables (progressive saves a few per cent at the highest qualities)",
    lambda quality: {"quality": quality, "optimize": True},
)
JPEG444 = replace(
    JPEG,
    name="jpeg444",
    note="as jpeg, but 4:4:4",
    options=lambda quality: {**JPEG.options(quality), "subsampling": 0},
)
WEBP = PillowCodec(
    "webp",
    "WEBP",
    "quality",
    (1, 8, 15, 25, 40, 60, 80, 90, 97),
    (5, 30, 75),
    "Pillow, lossy, method 6",
    lambda quality: {"quality": quality, "method": 6},
)
AVIF = PillowCodec(
    "avif",
    "AVIF",
    "quality",
    (10, 20, 30, 40, 50, 60, 72, 84, 94),
    (25, 42, 60),
    "Pillow, libavif with aom, 4:2:0, speed 6 (slower speeds save a few per cent), one thread",
    lambda quality: {"quality": quality, "speed": 6, "max_threads": 1},
)
JP2 = PillowCodec(
    "jp2",
    "JPEG2000",
    "ratio",
    (200, 130, 90, 60, 42, 30, 21, 14, 8),
    (80, 45, 24),
    "Pillow, OpenJPEG, bare code stream, 9/7 wavelet and colour transform, one ratio to the raw size for every picture "
    "(at equal mean bytes that scored no worse than one PSNR for every picture)",
    lambda ratio: {
        "quality_mode": "rates",
        "quality_layers": [ratio],
        "irreversible": True,
        "mct": 1,  # without it Pillow codes red, green and blue apart, at more than twice the bytes
        "no_jp2": True,
    },
)
JXL = PillowCodec(
    "jxl",
    "JXL",
    "quality",
    (1, 10, 20, 32, 45, 60, 75, 86, 94),
    (10, 35, 65),
    "libjxl through pillow-jxl-plugin, bare code stream, effort 7, one thread",
    lambda quality: {"quality": quality, "effort": 7, "num_threads": 1, "use_container": False},
)
_STREAM = "coded in 10 bits; raw stream with its parameter sets in every picture's bytes, no colour description"
_YUV = f"4:2:0 from full-range BT.601, chroma halved by means and doubled bicubically, {_STREAM}"
HEVC = VideoCodec(
    "hevc",
    "qp",
    (50, 45, 40, 36, 32, 28, 24, 19),
    (42, 35, 29),
    f"libx265 through ffmpeg, intra (the coding tools of BPG), preset medium, constant QP; {_YUV}",
    "libx265",
    (
        "-preset",
        "medium",
        "-x265-params",
        "qp={}:keyint=1:repeat-headers=1:info=0:pools=none:frame-threads=1:log-level=error",
    ),
)
HEVC444 = replace(
    HEVC,
    name="hevc444",
    note=f"as hevc, but 4:4:4 from full-range BT.601, {_STREAM}",
    full=True,
)
VVC = VideoCodec(
    "vvc",
    "qp",
    (52, 46, 41, 37, 33, 29, 25, 20),
    (43, 36, 30),
    "libvvenc through ffmpeg, intra, preset fast (faster: a third of the time, 3 % more bytes, 0.3 dB less), constant "
    f"QP without its perceptual adaptation; {_YUV}",
    "libvvenc",
    (
        "-preset",
        "fast",
        "-qp",
        "{}",
        # without qpa, mctf and bim no picture depends on the one before it
        "-vvenc-params",
        "intraperiod=1:decodingrefreshtype=idr:qpa=0:mctf=0:bim=0:accessunitdelimiter=0",
    ),
)
CODECS: tuple[Codec, ...] = (JPEG, JPEG444, WEBP, AVIF, JP2, JXL, HEVC, HEVC444, VVC)


def codecs_named(names: Sequence[str]) -> tuple[Codec, ...]:
    """Return the codecs of those names, each once.

    Raises SettingsError for one that is not known or not built in, MissingExtra for one that is not installed.
    """
    known = {codec.name: codec for codec in CODECS}
    chosen = []
    for name in dict.fromkeys(names):
        codec = known.get(name)
        if codec is None:
            raise SettingsError(f"codec {name[:40]!r}; known are {', '.join(known)}")
        codec.require()
        chosen.append(codec)
    return tuple(chosen)
