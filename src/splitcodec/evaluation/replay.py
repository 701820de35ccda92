"""Golden vectors, replayed: does a bundle give on this machine what it gave where it was made?   before: golden.py

What lies behind the rounding must come back bit for bit. The encoder is a float network, so a symbol that fell near a
rounding edge may move to its neighbour on another processor: rarely, and never further. Inside an INT8 graph 8-bit
roundings may turn over as well, so more symbols may differ; by far more where the graph's weights were not kept from
saturating on x86 without VNNI (training/rounding.py).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from splitcodec.device.client import Device
from splitcodec.device.encoder import FILES as ENCODERS
from splitcodec.edge.answer import Edge
from splitcodec.errors import GoldenMismatch, MissingExtra
from splitcodec.evaluation.golden import FILE, FILE_INT8, Golden, read_golden, symbols_of, top_of
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.codings import Codings
from splitcodec.wire.packet import unpack

EQUAL = 0.99  # of the encoder's symbols
EQUAL_INT8, OFF_INT8 = 0.95, 2


def _quietly() -> None:
    """Tell nobody of a step."""


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


def replay_int8(bundle: Bundle, *, threads: int | None = None, step: Callable[[], None] = _quietly) -> float:
    """Replay the INT8 encoder's golden vectors and return the share of equal symbols at the worst level.

    At least 95 % must be equal and none off by more than 2. `step` is called after each packet that is coded or
    answered. Raises as `replay`.
    """
    golden = read_golden(bundle, FILE_INT8)
    device = Device(bundle, threads=threads, encoder="int8")
    _replay_coder(device, golden, coder="plain" if device.plain_coder else "constriction", step=step)
    equal = _replay_encoder(device, golden, least=EQUAL_INT8, most=OFF_INT8)
    if not bundle.is_device_half:
        _replay_answers(Edge(bundle, threads=threads), golden, step=step)
    return equal


def replay(
    bundle: str | Path | Bundle, *, threads: int | None = None, on_step: Callable[[int, int], None] | None = None
) -> GoldenResult:
    """Replay a bundle's golden vectors on this machine, after all its files were held against their hashes.

    `on_step` is called with the steps done and all there are.

    Symbols must give their packet and packets their symbols, bit for bit, by the plain coder and by constriction where
    it is installed; the encoder's symbols must be at least 99 % equal and none off by more than 1; packets must get
    their answer (unless this is a device's half). An INT8 encoder that does not replay is no fault of the bundle, whose
    other encoder then runs; the result says so.

    Raises GoldenMismatch naming picture and level, BundleFormat for a file that does not parse, BundlePart without one,
    BundleHash and BundleUnsafe for files that changed.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    for name in opened.manifest.files:  # those too that no golden vector needs, such as the head
        opened.read(name)
    golden = read_golden(opened, FILE)
    devices = _devices(opened, threads=threads)
    whole, (levels, pictures) = not opened.is_device_half, golden.top_ln.shape
    steps = levels * pictures * (len(devices) + whole + (1 + whole) * opened.has(FILE_INT8))
    done = itertools.count(1)

    def step() -> None:
        if on_step is not None:
            on_step(next(done), steps)

    for name, device in devices.items():
        _replay_coder(device, golden, coder=name, step=step)
    equal = _replay_encoder(devices["plain"], golden)
    if whole:
        _replay_answers(Edge(opened, threads=threads), golden, step=step)
    int8, refused = None, None
    try:
        int8 = replay_int8(opened, threads=threads, step=step) if opened.has(FILE_INT8) else None
    except GoldenMismatch as error:
        refused = str(error)
    return GoldenResult(opened.ident, pictures, levels, tuple(devices), equal, whole, int8, refused)


def _devices(bundle: Bundle, *, threads: int | None) -> dict[str, Device]:
    devices = {"plain": Device(bundle, threads=threads, plain_coder=True)}
    with contextlib.suppress(MissingExtra):
        devices["constriction"] = Device(bundle, threads=threads, plain_coder=False)
    return devices


def _replay_coder(device: Device, golden: Golden, *, coder: str, step: Callable[[], None]) -> None:
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
            step()


def _replay_encoder(device: Device, golden: Golden, *, least: float = EQUAL, most: int = 1) -> float:
    file = ENCODERS[device.precision]
    off_lnchw = np.abs(symbols_of(device, golden.image_bhwc) - golden.symbols_lnchw)
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


def _replay_answers(edge: Edge, golden: Golden, *, step: Callable[[], None]) -> None:
    for level, row in enumerate(golden.packet_ln):
        for picture, packet in enumerate(row):
            got, wanted = top_of(edge, packet), int(golden.top_ln[level, picture])
            if got != wanted:
                what = f"picture {picture}, level {level}: answer {got}, expected {wanted}"
                raise _mismatch(edge.bundles[0], what)
            step()


def _mismatch(bundle: Bundle, what: str, *, int8: bool = False) -> GoldenMismatch:
    advice = "its other encoder may be used here" if int8 else "do not use this bundle on this machine, and report it"
    return GoldenMismatch(f"{bundle.ident}: {what}; {advice}")
