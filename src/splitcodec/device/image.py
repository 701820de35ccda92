"""Stage 1 of 7: image file -> uint8 picture.   before: nothing   after: device/placed.py

Pictures come as cameras and the web make them: rotated by an EXIF tag, grey, with a palette, in CMYK, half transparent,
16 bits deep, truncated, or made to fill the memory of whoever opens them. All of that ends here: behind this file a
picture is 8-bit RGB, upright, of bounded size. Training and evaluation use this same file, so that the network sees
what the device will show it.

What is decided, so that two machines decide alike:
- transparent pixels lie on white, as on a page;
- 16-bit grey is divided by 257 and rounded (65535 -> 255); 16-bit colour files lose their low byte inside Pillow;
- 32-bit "I" pictures count as 16-bit ones if they fit, since that is how Pillow opens 16-bit PGM; floats are refused;
- CMYK goes to RGB by Pillow's formula; colour profiles are not applied; of an animation the first frame counts;
- HEIC and JPEG XL are read where their plugins are installed (`plugins.py`), JPEG XL as its own stream turns it.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from splitcodec.device.plugins import HEAD, foreign, jxl_size, learn, learnt_suffixes
from splitcodec.errors import PictureError, PictureNotFound, PictureTooLarge, PictureUnreadable, one_line
from splitcodec.quiet import no_warnings

MAX_PIXELS = 64_000_000

# Pixel formats only: EPS would start Ghostscript, and an ICO may hide a picture larger than its header says.
# The names are Pillow's.
_RASTER = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "HEIF",
    "JPEG",
    "JPEG2000",
    "JXL",
    "MPO",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "TGA",
)
_FORMATS = frozenset((*_RASTER, "TIFF", "WEBP"))
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]
Fits = Callable[[tuple[int, int]], bool]
_SCALED = frozenset(("JPEG", "MPO"))  # formats that can be decoded smaller


def load_picture(source: Picture, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open whatever a picture comes as and return it upright, as 8-bit RGB.

    `source` is a path, the bytes of a file, a PIL image (left as it is) or an array of uint8 or uint16, (H, W),
    (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA.

    Raises PictureNotFound, PictureTooLarge (more than `max_pixels`, known from the header before anything is decoded,
    or than memory holds) or PictureUnreadable (not a picture, truncated, another shape or type of array).
    """
    return _loaded(source, max_pixels=max_pixels, fits=None)[0]


def load_reduced(
    source: Picture, *, least: int, longest: bool = False, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, int]:
    """Do as `load_picture`, but a JPEG file may come smaller by 2, 4 or 8, its short (or `longest`) side >= `least`.

    Returns the picture and that factor, which divides both sides (1: nothing was to be had). A JPEG holds its smaller
    self: decoded so and scaled down again by 2 or more, it differs from the whole one by about what rounding does, in a
    third of the time and a fraction of the memory. Raises as `load_picture`.
    """
    return _loaded(source, max_pixels=max_pixels, fits=lambda size: (max if longest else min)(size) >= least)


def suffixes() -> frozenset[str]:
    """Return the suffixes of files that can be opened here, in small letters: Pillow's and its installed plugins'."""
    known = {suffix.lower() for suffix, kind in Image.registered_extensions().items() if kind in _FORMATS}
    return learnt_suffixes() | known


def name_of(source: Picture) -> str:
    """Return what messages call a picture: its path, or what it came as."""
    if isinstance(source, Image.Image):
        return "the PIL image"
    if isinstance(source, np.ndarray):
        return "the array"
    if isinstance(source, bytes | bytearray | memoryview):
        return f"the picture of {memoryview(source).nbytes} bytes"
    return os.fspath(source)


def _loaded(source: Picture, *, max_pixels: int, fits: Fits | None) -> tuple[Image.Image, int]:
    if isinstance(source, Image.Image):
        return _as_rgb(source, name=name_of(source), max_pixels=max_pixels), 1
    if isinstance(source, np.ndarray):
        return _as_rgb(_from_array(source, max_pixels=max_pixels), name=name_of(source), max_pixels=max_pixels), 1
    if isinstance(source, bytes | bytearray | memoryview):
        whole = source.tobytes() if isinstance(source, memoryview) else source  # which may have gaps
        return _from_file(io.BytesIO(whole), name=name_of(source), max_pixels=max_pixels, fits=fits)
    if not isinstance(source, str | os.PathLike):
        raise PictureUnreadable(
            f"a {type(source).__name__} is not a picture; pass a path, a file's bytes, a PIL image or a uint8 array"
        )
    try:
        with open(source, "rb") as file:
            return _from_file(file, name=name_of(source), max_pixels=max_pixels, fits=fits)
    except FileNotFoundError:
        raise PictureNotFound(f"{source}: no such file; expected a picture, check the path") from None
    except IsADirectoryError:
        raise PictureUnreadable(f"{source} is a folder; expected one picture file") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PictureUnreadable(f"{source!s:.200}: cannot be read ({reason}); check the file") from None


def _from_file(
    file: io.BufferedReader | io.BytesIO, *, name: str, max_pixels: int, fits: Fits | None
) -> tuple[Image.Image, int]:
    file = _understood(file, name=name, max_pixels=max_pixels)
    try:
        # Pillow warns of large pictures and odd metadata; the size is judged below, the rest does not matter here.
        with no_warnings():
            picture = Image.open(file)
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+ pixels", str(error))
        much = found[0] if found else "too many pixels"
        raise PictureTooLarge(f"{name}: {much}; at most {max_pixels} are allowed, shrink it first") from None
    except UnidentifiedImageError:
        raise PictureUnreadable(f"{name}: not a picture; expected JPEG, PNG, WebP, AVIF, TIFF or the like") from None
    except MemoryError:
        raise _no_room(name) from None
    except Exception as error:  # hostile headers make Pillow's plugins raise nearly anything
        raise PictureUnreadable(f"{name}: not a readable picture ({one_line(error)})") from None
    with picture:
        if picture.format not in _FORMATS:
            raise PictureUnreadable(f"{name}: {picture.format} is not read here; expected JPEG, PNG, WebP or TIFF")
        if picture.format == "JXL" and not getattr(picture, "jpeg", False):
            picture.info.pop("exif", None)  # the stream says how the picture is turned, and was obeyed
        _check_size(*picture.size, name=name, max_pixels=max_pixels)
        times = 1 if fits is None or picture.format not in _SCALED else _reduced(picture, fits)
        return _as_rgb(picture, name=name, max_pixels=max_pixels), times


def _understood(file: io.BufferedReader | io.BytesIO, *, name: str, max_pixels: int) -> io.BufferedReader | io.BytesIO:
    """Return a file whose format Pillow knows, if need be by a plugin; it may come from a pipe.

    Raises PictureUnreadable without that plugin, and PictureTooLarge where Pillow would learn the size too late.
    """
    kind = foreign(file.peek(HEAD)[:HEAD] if isinstance(file, io.BufferedReader) else bytes(file.getbuffer()[:HEAD]))
    if kind is not None and kind not in Image.OPEN:
        learn(kind, name=name)
    if kind != "JXL":
        return file
    data = file.read()
    try:
        width, height = jxl_size(data)
    except ValueError as error:
        raise PictureUnreadable(f"{name}: not a readable picture ({error})") from None
    _check_size(width, height, name=name, max_pixels=max_pixels)
    return io.BytesIO(data)


def _reduced(picture: Image.Image, fits: Fits) -> int:
    """Have a JPEG decoded as small as still fits, and return how many times."""
    width, height = picture.size
    for times in (8, 4, 2):
        if not (width % times or height % times) and fits((width // times, height // times)):
            picture.draft(picture.mode, (width // times, height // times))
            return width // picture.width
    return 1


def _from_array(array: NDArray[Any], *, max_pixels: int) -> Image.Image:
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if not (grey or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise PictureUnreadable(f"an array of shape {array.shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise PictureUnreadable(
            f"an array of {array.dtype}; expected uint8 (0 to 255) or uint16 (0 to 65535), so convert it first"
        )
    _check_size(array.shape[1], array.shape[0], name="the array", max_pixels=max_pixels)
    eight_bit = array if array.dtype == np.uint8 else _to_eight_bits(array)
    return Image.fromarray(np.ascontiguousarray(eight_bit[:, :, 0] if grey and array.ndim == 3 else eight_bit))


def _as_rgb(picture: Image.Image, *, name: str, max_pixels: int) -> Image.Image:
    _check_size(*picture.size, name=name, max_pixels=max_pixels)
    try:
        picture.load()
        upright = _upright(picture)
        if upright.mode.startswith("I"):
            clear = upright.info.get("transparency")
            return Image.fromarray(_grey_from_integers(np.asarray(upright), name=name, clear=clear)).convert("RGB")
        if upright.mode == "F":
            raise PictureUnreadable(f"{name}: 32-bit floats have no agreed white; expected 8 or 16 bits per channel")
        if upright.has_transparency_data or upright.mode == "La":
            rgba = (upright.convert("LA") if upright.mode == "La" else upright).convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        return upright.convert("RGB")
    except PictureError:
        raise
    except MemoryError:
        raise _no_room(name) from None
    except Exception as error:  # truncated or hostile data make Pillow's plugins raise nearly anything
        raise PictureUnreadable(f"{name}: damaged or truncated ({one_line(error)}); make the file again") from None


def _check_size(width: int, height: int, *, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise PictureUnreadable(f"{name}: {width} x {height} pixels; expected at least 1 x 1")
    if width * height > max_pixels:
        raise PictureTooLarge(
            f"{name}: {width} x {height} = {width * height} pixels; at most {max_pixels} are allowed, shrink it first"
        )


def _no_room(name: str) -> PictureTooLarge:
    return PictureTooLarge(f"{name}: does not fit into this machine's memory; shrink it first")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(picture.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF says nothing about the pixels
        return picture
    if turn is None:
        return picture
    upright = picture.transpose(turn)  # which takes the tag along, so that it would be turned again
    upright.info = {name: value for name, value in picture.info.items() if name == "transparency"}
    return upright


def _grey_from_integers(raw_hw: NDArray[Any], *, name: str, clear: object) -> NDArray[np.uint8]:
    """Return 16-bit grey in 8 bits; pixels of the value `clear`, if it is one, are transparent."""
    low, high = int(raw_hw.min()), int(raw_hw.max())
    if low < 0 or high > 65_535:
        raise PictureUnreadable(
            f"{name}: 32-bit integers from {low} to {high} have no agreed white; expected 0 to 65535"
        )
    grey_hw = _to_eight_bits(raw_hw)
    return np.where(raw_hw == clear, np.uint8(255), grey_hw) if isinstance(clear, int) else grey_hw


def _to_eight_bits(raw: NDArray[Any]) -> NDArray[np.uint8]:
    return ((raw.astype(np.uint32) + 128) // 257).astype(np.uint8)


def grey_jpeg() -> bytes:
    """Return a picture to do everything once with: what runs for the first time takes several times as long."""
    file = io.BytesIO()
    Image.new("RGB", (1024, 1024), (128, 128, 128)).save(file, "jpeg")  # as most pictures are
    return file.getvalue()
