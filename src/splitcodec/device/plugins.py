"""Beside stage 1 of 7: picture formats that Pillow learns from packages of others.   used by: device/image.py

Telephones write HEIC, and JPEG XL is about; Pillow opens neither by itself. The packages that do are no dependencies:
they bring megabytes, and licences of their own. Where the user has installed one, it is imported when the first picture
comes that wants it, and not before.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Final, NamedTuple

from splitcodec.errors import PictureUnreadable, one_line

HEAD: Final = 64
"""How many bytes of a file say what it is."""


class _Plugin(NamedTuple):
    package: str
    module: str
    suffixes: frozenset[str]


_PLUGINS: Final = {  # by Pillow's name of the format
    "HEIF": _Plugin("pillow-heif", "pillow_heif", frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))),
    "JXL": _Plugin("pillow-jxl-plugin", "pillow_jxl", frozenset((".jxl",))),
}
_HEVC = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_AV1 = frozenset((b"avif", b"avis"))
_JXL_STREAM, _JXL_FILE = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_SIZE_BYTES = 16  # that hold a size header, and more


def foreign(head: bytes) -> str | None:
    """Return Pillow's name of a file's format if a plugin is what opens it, by the file's first bytes."""
    if head.startswith((_JXL_STREAM, _JXL_FILE)):
        return "JXL"
    if head[4:8] != b"ftyp":
        return None
    end = min(len(head), int.from_bytes(head[:4], "big"))
    brands = {head[begin : begin + 4] for begin in range(8, end, 4)}
    return "HEIF" if brands & _HEVC and not brands & _AV1 else None


def learn(kind: str, *, name: str) -> None:
    """Have Pillow learn a format. Raises PictureUnreadable, which names the package, where it is not installed."""
    plugin = _PLUGINS[kind]
    try:
        module = importlib.import_module(plugin.module)
        if kind == "HEIF":  # the other makes itself known
            module.register_heif_opener()
    except (ImportError, AttributeError) as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == plugin.module
        reason = "" if absent else f" ({one_line(error)})"
        raise PictureUnreadable(
            f"{name}: {kind} pictures take a plugin of Pillow's{reason}; install it with: pip install {plugin.package}"
        ) from None


def learnt_suffixes() -> frozenset[str]:
    """Return the suffixes of the formats whose plugin is installed; nothing is imported."""
    there = (plugin.suffixes for plugin in _PLUGINS.values() if find_spec(plugin.module) is not None)
    return frozenset().union(*there)


def jxl_size(data: bytes) -> tuple[int, int]:
    """Return width and height by a JPEG XL file's own words (ISO/IEC 18181-1, SizeHeader); its plugin decodes first.

    Raises ValueError for a file that does not say them.
    """
    stream = data[:_SIZE_BYTES] if data.startswith(_JXL_STREAM) else _boxed(data)
    if len(stream) < 4 or not stream.startswith(_JXL_STREAM):
        raise ValueError("no code stream in it")
    bits = int.from_bytes(stream[2:], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height, ratio = side(), take(3)
    if ratio == 0:
        return side(), height
    times, by = _RATIOS[ratio - 1]
    return height * times // by, height


def _boxed(data: bytes) -> bytes:
    """Return the first bytes of the code stream in a file of boxes; it may come in parts."""
    stream, at = b"", 0
    while at + 8 <= len(data) and len(stream) < _SIZE_BYTES:
        size, kind, begin = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, begin = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = len(data) if size == 0 else at + size
        if end < begin:
            break
        begin += 4 if kind == b"jxlp" else 0  # its number
        if kind in (b"jxlc", b"jxlp"):
            stream += data[begin : min(end, begin + _SIZE_BYTES)]
        at = end
    return stream
