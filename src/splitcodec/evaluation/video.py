"""Video codecs on single pictures: HEVC and VVC intra, many pictures to an ffmpeg process.   before: codecs.py

Starting a process costs more than coding a picture, so pictures go in together, as an intra-only sequence in which
every frame is a stream of its own: it brings its parameter sets, refers to no other frame, and has the size that it
would have alone. The stream is cut at the parameter sets; the pieces, joined, are the stream again.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitcodec.errors import MissingExtra, SettingsError

_START = re.compile(rb"\x00?\x00\x00\x01", re.DOTALL)  # of a NAL unit; the first zero byte belongs to it
_PATIENCE_S = 900
_Y4M = re.compile(rb"YUV4MPEG2 W([0-9]{1,5}) H([0-9]{1,5}) [^\n]*\n")
_FRAME = b"FRAME\n"


@final
@dataclass(frozen=True, slots=True)
class VideoCodec:
    """An intra codec in ffmpeg, swept over its quantisation parameter; `options` hold it at the place of "{}".

    `full`: colours are coded at full resolution, not at half of it.
    """

    name: str
    dial: str
    sweep: tuple[int, ...]
    few: tuple[int, ...]
    note: str
    encoder: str
    options: tuple[str, ...]
    full: bool = False
    at_once: int = 12

    @property
    def stream(self) -> str:
        """Return what ffmpeg calls the raw stream and the decoder."""
        return self.name.removesuffix("444")

    @property
    def _pixels(self) -> str:
        return "yuv444p10le" if self.full else "yuv420p10le"

    def require(self) -> None:
        """Raise MissingExtra without ffmpeg, SettingsError for an ffmpeg without this encoder or decoder."""
        for kind, wanted in (("-encoders", self.encoder), ("-decoders", self.stream)):
            if wanted not in _coders(_ffmpeg(), kind):
                raise SettingsError(
                    f"this ffmpeg is built without {wanted}; install imageio-ffmpeg 0.8 or newer and unset "
                    f"IMAGEIO_FFMPEG_EXE, or leave {self.name} out"
                )

    def encode(self, images: Sequence[NDArray[np.uint8]], setting: int) -> list[bytes]:
        """Return one raw stream per picture, uint8 (H, W, 3), all of one size with H and W even.

        Raises MissingExtra, SettingsError if ffmpeg fails.
        """
        rows, cols, _ = images[0].shape
        if rows % 2 or cols % 2:
            raise SettingsError(f"a crop of {cols} x {rows}; {self.name} takes even sides, leave it out")
        with tempfile.TemporaryDirectory(prefix="splitcodec-") as folder:
            path = Path(folder) / f"pictures.{self.stream}"  # no pipe: libvvenc prints warnings on stdout
            self._run(
                *("-f", "rawvideo", "-pix_fmt", self._pixels, "-video_size", f"{cols}x{rows}", "-framerate", "1"),
                *("-i", "pipe:0", "-c:v", self.encoder, *(option.format(setting) for option in self.options)),
                *("-threads", "1", "-f", self.stream, str(path)),
                data=b"".join(_planes(image_hwc, full=self.full) for image_hwc in images),
            )
            files = pictures_in(path.read_bytes())
        if len(files) == len(images):
            return files
        if len(images) == 1:
            raise SettingsError(f"{self.encoder} made {len(files)} pictures of one; leave {self.name} out")
        half = len(images) // 2  # ffmpeg 9 gets nothing out of libvvenc, and says nothing, for 7 to 10 pictures
        return self.encode(images[:half], setting) + self.encode(images[half:], setting)

    def decode(self, files: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        """Return the pictures in streams of one call of `encode`: uint8 (H, W, 3). Raises as `encode` does."""
        output = self._run(
            *("-threads", "1", "-f", self.stream, "-i", "pipe:0", "-fps_mode", "passthrough"),
            *("-pix_fmt", self._pixels, "-strict", "-1", "-f", "yuv4mpegpipe", "pipe:1"),
            data=b"".join(files),
        )
        head = _Y4M.match(output)
        if head is None:
            raise SettingsError(f"ffmpeg found no picture in a {self.name} stream; leave {self.name} out")
        cols, rows = int(head[1]), int(head[2])
        size = (6 if self.full else 3) * rows * cols  # 3 or 1.5 samples of 2 bytes per pixel
        step = len(_FRAME) + size
        frames = [output[at + len(_FRAME) : at + step] for at in range(head.end(), len(output), step)]
        if len(frames) != len(files) or len(frames[-1]) != size:
            raise SettingsError(f"ffmpeg gave {len(frames)} pictures for {len(files)}; leave {self.name} out")
        return [_picture(frame, rows=rows, cols=cols, full=self.full) for frame in frames]

    def _run(self, *arguments: str, data: bytes) -> bytes:
        command = [_ffmpeg(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *arguments]
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=_PATIENCE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SettingsError(f"ffmpeg for {self.name}: {type(error).__name__}; leave {self.name} out") from None
        if done.returncode != 0:
            said = " ".join(done.stderr.decode(errors="replace").split())[:200]
            raise SettingsError(f"ffmpeg for {self.name} ended with {done.returncode} ({said}); leave {self.name} out")
        return done.stdout


def pictures_in(stream: bytes) -> list[bytes]:
    """Return the pictures of an intra stream (Annex B of H.265 and H.266) whose every picture repeats its headers.

    A picture begins at each NAL unit of the type that the stream begins with.
    """
    places = [(match.start(), match.end()) for match in _START.finditer(stream)]
    if not places or places[0][0] != 0:
        return []
    first = _header(stream, places[0][1])
    starts = [start for start, end in places if _header(stream, end) == first]
    return [stream[a:b] for a, b in zip(starts, [*starts[1:], len(stream)], strict=True)]


def _header(stream: bytes, at: int) -> bytes:
    """Return the two header bytes of a NAL unit: type, layer and temporal id in both standards."""
    return stream[at : at + 2]


def _planes(image_hwc: NDArray[np.uint8], *, full: bool) -> bytes:
    """Return a picture as planar YCbCr, 4:4:4 or 4:2:0, full range, 10 bits in little-endian words."""
    luma, *chroma = Image.fromarray(image_hwc).convert("YCbCr").split()
    planes = (luma, *(plane if full else plane.reduce(2) for plane in chroma))
    return b"".join((np.asarray(plane, dtype="<u2") << 2).tobytes() for plane in planes)


def _picture(frame: bytes, *, rows: int, cols: int, full: bool) -> NDArray[np.uint8]:
    """Return the RGB picture, uint8 (H, W, 3), of a frame as `_planes` makes it."""
    samples = np.minimum((np.frombuffer(frame, dtype="<u2") + 2) >> 2, 255).astype(np.uint8)
    high, wide = (rows, cols) if full else (rows // 2, cols // 2)
    luma, *chroma = np.split(samples, [rows * cols, rows * cols + high * wide])
    planes = [Image.fromarray(luma.reshape(rows, cols))]
    for plane in chroma:
        coded = Image.fromarray(plane.reshape(high, wide))
        planes.append(coded if full else coded.resize((cols, rows), Image.Resampling.BICUBIC))
    return np.asarray(Image.merge("YCbCr", planes).convert("RGB"), dtype=np.uint8)


@cache
def _ffmpeg() -> str:
    """Return the path of ffmpeg. Raises MissingExtra."""
    missing = "hevc and vvc need imageio-ffmpeg; install it with: pip install 'splitcodec[eval]'"
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except ModuleNotFoundError:
        raise MissingExtra(f"codecs {missing}") from None
    except RuntimeError:
        raise MissingExtra(f"no ffmpeg for this machine; {missing}") from None


@cache
def ffmpeg_version() -> str:
    """Return ffmpeg's version, which settles those of its libraries. Raises MissingExtra, SettingsError."""
    words = _asked(_ffmpeg(), "-version").split()
    return " ".join(words[2:3])  # ffmpeg version N


@cache
def _coders(ffmpeg: str, kind: str) -> frozenset[str]:
    """Return the names of ffmpeg's -encoders or -decoders."""
    lines = [line.split() for line in _asked(ffmpeg, "-hide_banner", kind).splitlines()]
    return frozenset(words[1] for words in lines if len(words) > 1)


def _asked(ffmpeg: str, *arguments: str) -> str:
    """Return what ffmpeg prints when asked about itself. Raises SettingsError."""
    try:
        done = subprocess.run([ffmpeg, *arguments], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"ffmpeg does not run ({type(error).__name__}); leave hevc and vvc out") from None
    return done.stdout.decode(errors="replace")
