"""Golden vectors: pictures whose symbols, packets and answers a bundle carries, to be had again on any machine.

`golden/vectors.npz` holds N pictures, L levels, no pickles:

    image_bhwc     uint8 (N, crop, crop, 3)    what `Device.crop` gave
    symbols_lnchw  int16 (L, N, C, rows, cols)
    packet_len_ln  int32 (L, N)                bytes per packet
    packets        uint8 (sum of them)         one after the other, level by level
    top_ln         int32 (L, N)                the class index answered first

How much of it another machine must give again: `replay.py`.

`golden/vectors.int8.npz` holds the same of `encoder.int8.onnx`, for the same pictures; they may lie in the first file
alone. Where several bundles lie together the pictures may have a file of their own,
`golden/pictures.npz`, for they are the largest part and the same in all of them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.device.encoder import Precision
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundleFormat
from splitcodec.wire.bundle import Bundle, derive
from splitcodec.wire.npz import read_arrays

FILE = "golden/vectors.npz"
MAX_BYTES = 64 << 20
FILE_INT8 = "golden/vectors.int8.npz"
PICTURES = "golden/pictures.npz"
_EXPECTED = {
    "image_bhwc": ("|u1", 4),
    "symbols_lnchw": ("<i2", 5),
    "packets": ("|u1", 1),
    "packet_len_ln": ("<i4", 2),
    "top_ln": ("<i4", 2),
}


@final
@dataclass(frozen=True, slots=True)
class Golden:
    """The arrays of the file, held against each other and against the manifest; packets cut apart, [level][picture]."""

    image_bhwc: NDArray[np.uint8]
    symbols_lnchw: NDArray[np.int16]
    packet_ln: list[list[bytes]]
    top_ln: NDArray[np.int32]


def make_golden(device: Device, edge: Edge, pictures: Sequence[Image.Image | str | Path]) -> bytes:
    """Return the file of golden vectors of an opened bundle for some pictures, of which few will do.

    Raises as `Device.encode` and `Edge.answer` do.
    """
    return _made(device, edge, np.concatenate([device.crop(picture) for picture in pictures]), with_pictures=True)


def remake_golden(old: Bundle, new: Bundle, *, file: str = FILE) -> bytes:
    """Return the golden vectors of `old` with the packets and answers of `new`, made of it by other tables or tails.

    Pictures and symbols are kept, so both need the same encoder, gains and ranges. A device's half keeps the answers,
    for it gives none. Raises BundlePart if `old` has no golden vectors, and as `Device.pack` and `Edge.answer` do.
    """
    golden = read_golden(old, file)
    packet_ln = _packed(Device(new, threads=1), golden.symbols_lnchw)
    top_ln = golden.top_ln if new.is_device_half else _tops(Edge(new, threads=1), packet_ln)
    pictures = golden.image_bhwc if file == FILE and not old.has(PICTURES) else None
    return _written(pictures, golden.symbols_lnchw, packet_ln, top_ln)


def remade(old: Bundle, new: Bundle) -> dict[str, bytes]:
    """Return all files of golden vectors that `old` has, as `remake_golden` makes them for `new`."""
    names = [name for name in (FILE, FILE_INT8) if old.has(name)]
    return {name: remake_golden(old, new, file=name) for name in names}


def apart(bundle: Bundle) -> Bundle:
    """Return the bundle with its golden pictures in a file of their own; nothing is written.

    Raises BundlePart without golden vectors.
    """
    golden = read_golden(bundle, FILE)
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, image_bhwc=golden.image_bhwc)
    vectors = _written(None, golden.symbols_lnchw, golden.packet_ln, golden.top_ln)
    return derive(bundle, bundle.manifest, files={FILE: vectors, PICTURES: file.getvalue()})


def int8_golden(bundle: Bundle) -> bytes:
    """Return the golden vectors of the bundle's INT8 encoder, for the pictures of its other ones.

    Raises BundlePart without an INT8 encoder, golden vectors or an edge's half.
    """
    return _of_bundle(bundle, read_golden(bundle, FILE).image_bhwc, encoder="int8")


def anew(old: Bundle, new: Bundle) -> dict[str, bytes]:
    """Return all files of golden vectors that `old` has, of the same pictures, for `new`, which has other gains."""
    image_bhwc = read_golden(old, FILE).image_bhwc
    files = {FILE: _of_bundle(new, image_bhwc, encoder="fp32")}
    return {**files, FILE_INT8: _of_bundle(new, image_bhwc, encoder="int8")} if old.has(FILE_INT8) else files


def _of_bundle(bundle: Bundle, image_bhwc: NDArray[np.uint8], *, encoder: Precision) -> bytes:
    shores = Device(bundle, threads=1, encoder=encoder), Edge(bundle, threads=1)
    return _made(*shores, image_bhwc, with_pictures=encoder == "fp32" and not bundle.has(PICTURES))


def _made(device: Device, edge: Edge, image_bhwc: NDArray[np.uint8], *, with_pictures: bool) -> bytes:
    symbols_lnchw = symbols_of(device, image_bhwc)
    packet_ln = _packed(device, symbols_lnchw)
    return _written(image_bhwc if with_pictures else None, symbols_lnchw, packet_ln, _tops(edge, packet_ln))


def _packed(device: Device, symbols_lnchw: NDArray[np.integer]) -> list[list[bytes]]:
    return [[device.pack(chw, level=level) for chw in row] for level, row in enumerate(symbols_lnchw)]


def _tops(edge: Edge, packet_ln: list[list[bytes]]) -> NDArray[np.integer]:
    return np.array([[top_of(edge, packet) for packet in row] for row in packet_ln])


def _written(
    image_bhwc: NDArray[np.uint8] | None,
    symbols_lnchw: NDArray[np.integer],
    packet_ln: list[list[bytes]],
    top_ln: NDArray[np.integer],
) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(
        file,
        allow_pickle=False,
        **({} if image_bhwc is None else {"image_bhwc": image_bhwc}),
        symbols_lnchw=symbols_lnchw.astype("<i2"),
        packets=np.frombuffer(b"".join(packet for row in packet_ln for packet in row), dtype=np.uint8),
        packet_len_ln=np.array([[len(packet) for packet in row] for row in packet_ln], dtype="<i4"),
        top_ln=top_ln.astype("<i4"),
    )
    return file.getvalue()


def symbols_of(device: Device, image_bhwc: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the symbols of crops at every level: int32 (L, N, C, rows, cols)."""
    tables = device.bundle.tables[0]
    latents = [device.encoder.latent_chw(image_hwc[None]) for image_hwc in image_bhwc]
    return np.array([[tables.quantise(latent_chw, level) for latent_chw in latents] for level in range(tables.levels)])


def top_of(edge: Edge, packet: bytes) -> int:
    """Return the class index that is answered first."""
    return edge.answer(packet, top=1)["answers"]["classify"][0]["index"]


def _pictures(bundle: Bundle) -> NDArray[np.uint8]:
    """Return the pictures that have a file of their own."""
    what, expected = f"{bundle.ident}: {PICTURES}", {"image_bhwc": _EXPECTED["image_bhwc"]}
    return read_arrays(bundle.read(PICTURES), expected=expected, max_bytes=MAX_BYTES, what=what)["image_bhwc"]


def read_golden(bundle: Bundle, file: str) -> Golden:
    """Return a file of golden vectors. Raises BundleFormat if it does not parse, BundlePart without one."""
    data, manifest = bundle.read(file), bundle.manifest
    arrays = read_arrays(
        data,
        expected=_EXPECTED,
        max_bytes=MAX_BYTES,
        what=f"{manifest.ident}: {file}",
        optional=() if file == FILE and not bundle.has(PICTURES) else ("image_bhwc",),
    )
    if "image_bhwc" not in arrays:
        arrays["image_bhwc"] = _pictures(bundle) if file == FILE else read_golden(bundle, FILE).image_bhwc
    pictures, side = len(arrays["image_bhwc"]), manifest.crop // manifest.stride
    found = arrays["symbols_lnchw"].shape[-1]
    side = found if abs(found - side) <= 1 else side  # convolutions without padding lose or gain a row
    expected = {
        "image_bhwc": (pictures, manifest.crop, manifest.crop, 3),
        "symbols_lnchw": (manifest.levels, pictures, manifest.channels, side, side),
        "packet_len_ln": (manifest.levels, pictures),
        "top_ln": (manifest.levels, pictures),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape or pictures == 0:
            raise BundleFormat(f"{manifest.ident}: {file}: {name} has shape {arrays[name].shape}, expected {shape}")
    length_ln = arrays["packet_len_ln"]
    if length_ln.min() < 1 or int(length_ln.sum(dtype=np.int64)) != arrays["packets"].size:
        raise BundleFormat(f"{manifest.ident}: {file}: packet lengths do not add up to {arrays['packets'].size} bytes")
    ends = np.cumsum(length_ln, dtype=np.int64)
    flat = [arrays["packets"][end - length : end].tobytes() for end, length in zip(ends, length_ln.flat, strict=True)]
    packet_ln = [flat[level * pictures : (level + 1) * pictures] for level in range(manifest.levels)]
    return Golden(arrays["image_bhwc"], arrays["symbols_lnchw"], packet_ln, arrays["top_ln"])
