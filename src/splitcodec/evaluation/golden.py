"""Golden vectors: pictures whose symbols, packets and answers a bundle carries, to be had again on any machine.

`golden/vectors.npz` holds N pictures, L levels, no pickles:

    image_bhwc     uint8 (N, crop, crop, 3)    what `Device.crop` gave
    symbols_lnchw  int16 (L, N, C, rows, cols)
    packet_len_ln  int32 (L, N)                bytes per packet
    packets        uint8 (sum of them)         one after the other, level by level
    top_ln         int32 (L, N)                the class index answered first

What lies behind the rounding must come back bit for bit. The encoder is a float network, so a symbol that fell near a
rounding edge may move to its neighbour on another processor: rarely, and never further.

`golden/vectors.int8.npz` holds the same of `encoder.int8.onnx`, for the same pictures; they lie in the first file alone
(earlier files repeat them). Inside that graph 8-bit roundings may turn over as
well, so more symbols may differ; by far more where a processor's 8-bit products saturate (x86 without VNNI).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.device.encoder import FILES as ENCODERS
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundleFormat, GoldenMismatch, MissingExtra
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.codings import Codings
from splitcodec.wire.npz import read_arrays
from splitcodec.wire.packet import unpack

FILE = "golden/vectors.npz"
MAX_BYTES = 64 << 20
EQUAL = 0.99  # of the encoder's symbols
FILE_INT8 = "golden/vectors.int8.npz"
EQUAL_INT8, OFF_INT8 = 0.95, 2
_EXPECTED = {
    "image_bhwc": ("|u1", 4),
    "symbols_lnchw": ("<i2", 5),
    "packets": ("|u1", 1),
    "packet_len_ln": ("<i4", 2),
    "top_ln": ("<i4", 2),
}


@final
@dataclass(frozen=True, slots=True)
class GoldenResult:
    """What a replay held together. `symbols_equal` is the share of the encoder's symbols, at the worst level.

    `coders` were both held against the golden packets; `answers` is False for a device's half, which has none;
    `int8_equal` is as `symbols_equal`, of the INT8 encoder where the bundle has one; `int8_refused` is why that one may
    not be used on this machine, where the other may.
    """

    bundle: str
    pictures: int
    levels: int
    coders: tuple[str, ...]
    symbols_equal: float
    answers: bool
    int8_equal: float | None = None
    int8_refused: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "bundle": self.bundle,
            "ok": True,
            "pictures": self.pictures,
            "levels": self.levels,
            "coders": list(self.coders),
            "symbols_equal": round(self.symbols_equal, 6),
            "answers": self.answers,
            **({} if self.int8_equal is None else {"int8_equal": round(self.int8_equal, 6)}),
            **({} if self.int8_refused is None else {"int8_refused": self.int8_refused}),
        }


@final
@dataclass(frozen=True, slots=True)
class _Golden:
    """The arrays of the file, held against each other and against the manifest; packets cut apart, [level][picture]."""

    image_bhwc: NDArray[np.uint8]
    symbols_lnchw: NDArray[np.int16]
    packet_ln: list[list[bytes]]
    top_ln: NDArray[np.int32]


def make_golden(device: Device, edge: Edge, pictures: Sequence[Image.Image | str | Path]) -> bytes:
    """Return the file of golden vectors of an opened bundle for some pictures, of which few will do.

    Raises as `Device.encode` and `Edge.answer` do.
    """
    image_bhwc = np.concatenate([device.crop(picture) for picture in pictures])
    symbols_lnchw = _symbols(device, image_bhwc)
    packet_ln = [[device.pack(chw, level=level) for chw in row] for level, row in enumerate(symbols_lnchw)]
    top_ln = [[_top(edge, packet) for packet in row] for row in packet_ln]
    return _written(image_bhwc, symbols_lnchw, packet_ln, np.array(top_ln))


def remake_golden(old: Bundle, new: Bundle, *, file: str = FILE) -> bytes:
    """Return the golden vectors of `old` with the packets and answers of `new`, made of it by other tables or tails.

    Pictures and symbols are kept, so both need the same encoder, gains and ranges. A device's half keeps the answers,
    for it gives none. Raises BundlePart if `old` has no golden vectors, and as `Device.pack` and `Edge.answer` do.
    """
    golden = _read(old, file)
    device = Device(new, threads=1)
    packet_ln = [[device.pack(chw, level=level) for chw in row] for level, row in enumerate(golden.symbols_lnchw)]
    top_ln = golden.top_ln
    if not new.is_device_half:
        edge = Edge(new, threads=1)
        top_ln = np.array([[_top(edge, packet) for packet in row] for row in packet_ln])
    pictures = golden.image_bhwc if file == FILE else None
    return _written(pictures, golden.symbols_lnchw, packet_ln, top_ln)


def remade(old: Bundle, new: Bundle) -> dict[str, bytes]:
    """Return all files of golden vectors that `old` has, as `remake_golden` makes them for `new`."""
    names = [name for name in (FILE, FILE_INT8) if old.has(name)]
    return {name: remake_golden(old, new, file=name) for name in names}


def int8_golden(bundle: Bundle) -> bytes:
    """Return the golden vectors of the bundle's INT8 encoder, for the pictures of its other ones.

    Raises BundlePart without an INT8 encoder, golden vectors or an edge's half.
    """
    golden = _read(bundle, FILE)
    device, edge = Device(bundle, threads=1, encoder="int8"), Edge(bundle, threads=1)
    symbols_lnchw = _symbols(device, golden.image_bhwc)
    packet_ln = [[device.pack(chw, level=level) for chw in row] for level, row in enumerate(symbols_lnchw)]
    top_ln = [[_top(edge, packet) for packet in row] for row in packet_ln]
    return _written(None, symbols_lnchw, packet_ln, np.array(top_ln))


def replay_int8(bundle: Bundle, *, threads: int | None = None) -> float:
    """Replay the INT8 encoder's golden vectors and return the share of equal symbols at the worst level.

    At least 95 % must be equal and none off by more than 2. Raises as `replay`.
    """
    golden = _read(bundle, FILE_INT8)
    device = Device(bundle, threads=threads, encoder="int8")
    _replay_coder(device, golden, coder="plain" if device.plain_coder else "constriction")
    equal = _replay_encoder(device, golden, least=EQUAL_INT8, most=OFF_INT8)
    if not bundle.is_device_half:
        _replay_answers(Edge(bundle, threads=threads), golden)
    return equal


def replay(bundle: str | Path | Bundle, *, threads: int | None = None) -> GoldenResult:
    """Replay a bundle's golden vectors on this machine.

    Symbols must give their packet and packets their symbols, bit for bit, by the plain coder and by constriction where
    it is installed; the encoder's symbols must be at least 99 % equal and none off by more than 1; packets must get
    their answer (unless this is a device's half). An INT8 encoder that does not replay is no fault of the bundle, whose
    other encoder then runs; the result says so.

    Raises GoldenMismatch naming picture and level, BundleFormat for a file that does not parse, BundlePart without one.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    golden = _read(opened, FILE)
    devices = _devices(opened, threads=threads)
    for name, device in devices.items():
        _replay_coder(device, golden, coder=name)
    equal = _replay_encoder(devices["plain"], golden)
    if not opened.is_device_half:
        _replay_answers(Edge(opened, threads=threads), golden)
    levels, pictures = golden.top_ln.shape
    int8, refused = None, None
    try:
        int8 = replay_int8(opened, threads=threads) if opened.has(FILE_INT8) else None
    except GoldenMismatch as error:
        refused = str(error)
    whole = not opened.is_device_half
    return GoldenResult(opened.ident, pictures, levels, tuple(devices), equal, whole, int8, refused)


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


def _devices(bundle: Bundle, *, threads: int | None) -> dict[str, Device]:
    devices = {"plain": Device(bundle, threads=threads, plain_coder=True)}
    with contextlib.suppress(MissingExtra):
        devices["constriction"] = Device(bundle, threads=threads, plain_coder=False)
    return devices


def _replay_coder(device: Device, golden: _Golden, *, coder: str) -> None:
    decoder = Codings(device.bundle.tables[0], device.bundle.contexts, plain=coder == "plain")
    for level, row in enumerate(golden.packet_ln):
        for picture, packet in enumerate(row):
            symbols_chw = golden.symbols_lnchw[level, picture].astype(np.int32)
            where = f"picture {picture}, level {level}, coder {coder}"
            got = device.pack(symbols_chw, level=level)
            if got != packet:
                raise _mismatch(device.bundle, f"{where}: symbols gave another packet of {len(got)} bytes")
            fields = unpack(packet)
            back_chw = decoder.decode(fields.payload, symbols_chw.shape, level=level, coding=fields.coding)
            if not np.array_equal(back_chw, symbols_chw):
                raise _mismatch(device.bundle, f"{where}: the packet gave other symbols")


def _symbols(device: Device, image_bhwc: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the symbols of crops at every level: int32 (L, N, C, rows, cols)."""
    tables = device.bundle.tables[0]
    latents = [device.encoder.latent_chw(image_hwc[None]) for image_hwc in image_bhwc]
    return np.array([[tables.quantise(latent_chw, level) for latent_chw in latents] for level in range(tables.levels)])


def _replay_encoder(device: Device, golden: _Golden, *, least: float = EQUAL, most: int = 1) -> float:
    file = ENCODERS[device.precision]
    off_lnchw = np.abs(_symbols(device, golden.image_bhwc) - golden.symbols_lnchw)
    if off_lnchw.max() > most:
        level, picture = (int(k) for k in np.unravel_index(int(off_lnchw.argmax()), off_lnchw.shape)[:2])
        where = f"{file}, picture {picture}, level {level}"
        what = f"{where}: a symbol is off by {int(off_lnchw.max())}, expected at most {most}"
        raise _mismatch(device.bundle, what, int8=device.precision == "int8")
    equal_l = (off_lnchw == 0).reshape(len(off_lnchw), -1).mean(axis=1)
    if equal_l.min() < least:
        level, share = int(equal_l.argmin()), 100 * float(equal_l.min())
        what = f"{file}, level {level}: {share:.2f} % of the symbols are equal, expected {100 * least:.0f} %"
        raise _mismatch(device.bundle, what, int8=device.precision == "int8")
    return float(equal_l.min())


def _replay_answers(edge: Edge, golden: _Golden) -> None:
    for level, row in enumerate(golden.packet_ln):
        for picture, packet in enumerate(row):
            got, wanted = _top(edge, packet), int(golden.top_ln[level, picture])
            if got != wanted:
                what = f"picture {picture}, level {level}: answer {got}, expected {wanted}"
                raise _mismatch(edge.bundles[0], what)


def _top(edge: Edge, packet: bytes) -> int:
    return edge.answer(packet, top=1)["answers"]["classify"][0]["index"]


def _mismatch(bundle: Bundle, what: str, *, int8: bool = False) -> GoldenMismatch:
    advice = "its other encoder may be used here" if int8 else "do not use this bundle on this machine, and report it"
    return GoldenMismatch(f"{bundle.ident}: {what}; {advice}")


def _read(bundle: Bundle, file: str) -> _Golden:
    data, manifest = bundle.read(file), bundle.manifest
    arrays = read_arrays(
        data,
        expected=_EXPECTED,
        max_bytes=MAX_BYTES,
        what=f"{manifest.ident}: {file}",
        optional=() if file == FILE else ("image_bhwc",),
    )
    if "image_bhwc" not in arrays:
        arrays["image_bhwc"] = _read(bundle, FILE).image_bhwc
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
    return _Golden(arrays["image_bhwc"], arrays["symbols_lnchw"], packet_ln, arrays["top_ln"])
