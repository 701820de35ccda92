"""Stages 1 to 5 of 7 on one shore: a picture in, a packet or an answer out.   inside: image, encoder, wire, link

    packet = Device("efficientnet-lite0").encode("cat.jpg", level=3)
    packet = Device("efficientnet-lite0").encode("cat.jpg", max_bytes=222, force_fit=True)

`encode` needs no network; `ask` also sends the packet over a link, any function from packet bytes to answer bytes.
"""

from __future__ import annotations

import contextlib
import math
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitcodec.device.budget import Deadline, Fitted, Prices, checked_max_bytes
from splitcodec.device.encoder import Encoder, Precision
from splitcodec.device.image import Letterbox, crop_bhwc, crop_place, letterbox_bhwc, load_picture
from splitcodec.device.overlay import in_picture
from splitcodec.device.tuned import tuned
from splitcodec.errors import BudgetTooSmall, SettingsError
from splitcodec.wire.answer import Answer, parse_answer
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.coder import BY_CHANNEL, Coder
from splitcodec.wire.packet import OVERHEAD, Packet, pack
from splitcodec.wire.task import file_name

SMALLEST_SIDE: Final = 0.4
"""Of the bundle's crop, how far a picture may shrink."""
DROPPED: Final = 1.4
"""How many times the limit level 0 may have for symbols to be dropped rather than the picture shrunk (docs/LOG.md)."""

Fit = Literal["crop", "letterbox"]
Picture = str | Path | bytes | Image.Image | NDArray[Any]


@final
@dataclass(frozen=True, slots=True)
class Encoded:
    """A packet, its rate level, and the milliseconds of the stages "preprocess", "encoder" and "coding".

    `place` says where the picture lies in what was sent; `side` is the longest side of that in pixels, which
    `force_fit` may take smaller; `dropped` counts the symbols that it moved to cheaper values.
    """

    packet: bytes
    level: int
    ms: dict[str, float]
    place: Letterbox
    side: int
    dropped: int = 0


@final
class Device:
    """The device's half of a bundle, opened; safe to share between threads.

    `bundle` is a zoo name, a folder, a zip or an opened bundle; its device half will do. `threads` goes to ONNX Runtime
    (none: its choice); `plain_coder=True` forces the coder in Python, `False` demands constriction. `encoder` is
    "fp32", "int8", or "tuned": the encoder and threads that `splitcodec tune` recorded for this machine, else fp32.

    Raises BundleError, GraphError, MissingExtra or SettingsError.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle = "efficientnet-lite0",
        *,
        threads: int | None = None,
        plain_coder: bool | None = None,
        encoder: Precision | Literal["tuned"] = "fp32",
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        choice = tuned(self.bundle) if encoder == "tuned" else None
        if choice is not None:
            threads = choice.threads if threads is None else threads
        self.precision: Precision = encoder if encoder != "tuned" else choice.encoder if choice is not None else "fp32"
        self.encoder = Encoder(self.bundle, precision=self.precision, threads=threads)
        self._coder = Coder(self.bundle.tables[0], plain=plain_coder)
        self._prices = Prices(self.bundle.tables[0])
        self._coding_ms = 0.0  # what pricing and coding under a limit took last, to be set aside of a deadline

    @property
    def plain_coder(self) -> bool:
        """Say whether the entropy coder is the one in plain Python."""
        return self._coder.plain

    def crop(self, picture: Picture) -> NDArray[np.uint8]:
        """Return what the network will see of a picture: uint8 (1, crop, crop, 3). Raises PictureError."""
        manifest = self.bundle.manifest
        return crop_bhwc(load_picture(picture), resize=manifest.resize, crop=manifest.crop)

    def view(
        self, picture: Picture, *, fit: Fit = "crop", side: int | None = None
    ) -> tuple[NDArray[np.uint8], Letterbox]:
        """Return what the network will see of a picture, uint8 (1, rows, cols, 3), and where the picture lies in it.

        "crop" is what the classifier learned on; "letterbox" shows the whole picture, its longest side scaled to `side`
        (none: as the bundle's tasks want it), padded with grey to multiples of the stride or what the tasks want.
        Raises PictureError, SettingsError for a side that the bundle does not take.
        """
        opened, manifest = load_picture(picture), self.bundle.manifest
        if fit == "crop":
            place = crop_place(opened.size, resize=manifest.resize, crop=manifest.crop)
            return self.crop(opened), place
        if fit != "letterbox":
            raise SettingsError(f"fit {fit!r}; expected 'crop' or 'letterbox'")
        specs = [self.bundle.task(task) for task in manifest.tasks if self.bundle.has(file_name(task))]
        wanted = max((spec.side for spec in specs), default=manifest.crop) if side is None else side
        multiple = math.lcm(manifest.stride, *(spec.multiple for spec in specs))
        most = manifest.max_side // multiple * multiple
        if not manifest.stride <= wanted <= most:
            raise SettingsError(f"side {wanted}; {self.bundle.ident} takes {manifest.stride} to {most}")
        return letterbox_bhwc(opened, side=wanted, multiple=multiple)

    def symbols(
        self, picture: Picture, *, level: int | None = None, fit: Fit = "crop", side: int | None = None
    ) -> NDArray[np.int32]:
        """Return the picture's symbols at a level (none: the bundle's default): int32 (C, rows, columns)."""
        level = self._level(level)
        image_bhwc, _ = self.view(picture, fit=fit, side=side)
        return self.bundle.tables[0].quantise(self.encoder.latent_chw(image_bhwc), level)

    def pack(self, symbols_chw: NDArray[Any], *, level: int) -> bytes:
        """Return the packet of symbols, integers (C, rows, columns) within the tables' range.

        Raises SettingsError, TablesError, or PacketGrid for more symbols than the bundle allows.
        """
        level = self._level(level)
        payload = self._coder.encode(symbols_chw, level)
        packet = Packet(
            level=level,
            coding=BY_CHANNEL,
            table_set=0,
            fingerprint=self.bundle.fingerprint[:4],
            rows=symbols_chw.shape[1],
            cols=symbols_chw.shape[2],
            payload=payload,
        )
        return pack(packet)

    def prices(self, picture: Picture) -> list[int]:
        """Return the length of the picture's packet at every level, in bytes; the encoder runs once."""
        latent_chw = self.encoder.latent_chw(self.crop(picture))
        tables = self.bundle.tables[0]
        return [len(self.pack(tables.quantise(latent_chw, level), level=level)) for level in range(tables.levels)]

    def encode(
        self,
        picture: Picture,
        *,
        level: int | None = None,
        max_bytes: int | None = None,
        deadline: Deadline | None = None,
        force_fit: bool = False,
        fit: Fit = "crop",
        side: int | None = None,
    ) -> bytes:
        """Return the packet of a picture at a rate level (none: the bundle's default); its length is the rate.

        With `max_bytes`, a `deadline` or both, the highest level whose packet keeps them, at most `level` (none: any).
        Where even level 0 has more bytes, `force_fit` moves the least important symbols to cheaper values; where that
        would be too many, it first encodes the picture at a smaller size (a crop, if the bundle does nothing but
        classify). `fit` and `side` say what of the picture the network sees; see `view`.

        Raises PictureError, SettingsError for a level that the bundle does not have, BudgetTooSmall with the smallest
        size where nothing fits, GraphError.
        """
        return self.encode_timed(
            picture, level=level, max_bytes=max_bytes, deadline=deadline, force_fit=force_fit, fit=fit, side=side
        ).packet

    def encode_timed(
        self,
        picture: Picture,
        *,
        level: int | None = None,
        max_bytes: int | None = None,
        deadline: Deadline | None = None,
        force_fit: bool = False,
        fit: Fit = "crop",
        side: int | None = None,
    ) -> Encoded:
        """Do as `encode`, and say how long each stage took, and what level and how many symbols the limit cost."""
        limited = max_bytes is not None or deadline is not None
        most = None if max_bytes is None else checked_max_bytes(max_bytes)
        level = self.bundle.manifest.levels - 1 if limited and level is None else self._level(level)
        begin = time.perf_counter()
        opened = load_picture(picture)
        image_bhwc, place = self.view(opened, fit=fit, side=side)
        cropped = time.perf_counter()
        latent_chw = self.encoder.latent_chw(image_bhwc)
        encoded = time.perf_counter()
        what = None
        if deadline is not None:
            in_time = deadline.bytes_left(1000 * (encoded - begin) + self._coding_ms)
            if most is None or in_time < most:
                most = in_time
                what = f"{in_time} bytes are left of {deadline.ms:g} ms at {deadline.kbit_per_s:.4g} kbit/s"
        sides = self._sides() if fit == "crop" else [max(image_bhwc.shape[1:3])]
        seen, fitted = sides[0], None
        if most is None:
            packet = self.pack(self.bundle.tables[0].quantise(latent_chw, level), level=level)
            fitted = Fitted(packet, level, 0)
        elif force_fit:
            seen, fitted = self._forced(opened, latent_chw, most, sides=sides, level=level, what=what)
            if seen != sides[0]:
                place = crop_place(opened.size, resize=self._resize_at(seen), crop=seen)
        else:
            grid = latent_chw.shape[1:] if len(sides) == 1 else self._grid(sides[-1])
            floor = self._prices.floor((grid[0], grid[1]), pack=self._pack_at)
            fitted = self._prices.fit(latent_chw, most, pack=self._pack_at, highest=level, what=what, floor=floor)
        done = time.perf_counter()
        if most is not None:
            self._coding_ms = 1000 * (done - encoded)
        seconds = {"preprocess": cropped - begin, "encoder": encoded - cropped, "coding": done - encoded}
        ms = {stage: round(1000 * spent, 3) for stage, spent in seconds.items()}
        return Encoded(fitted.packet, fitted.level, ms, place, seen, fitted.dropped)

    def ask(
        self,
        picture: Picture,
        *,
        link: Callable[[bytes], bytes],
        level: int | None = None,
        max_bytes: int | None = None,
        deadline: Deadline | None = None,
        force_fit: bool = False,
        fit: Fit = "crop",
        side: int | None = None,
    ) -> Answer:
        """Encode a picture, send the packet over `link` and return the edge's answer.

        Boxes and label maps come back in pixels of the upright picture.
        Raises as `encode`, LinkGarbled if what comes back is not an answer, and what the link raises (LinkError).
        """
        encoded = self.encode_timed(
            picture, level=level, max_bytes=max_bytes, deadline=deadline, force_fit=force_fit, fit=fit, side=side
        )
        return in_picture(parse_answer(link(encoded.packet)), encoded.place)

    def _forced(
        self,
        picture: Image.Image,
        latent_chw: NDArray[np.float32],
        most: int,
        *,
        sides: list[int],
        level: int,
        what: str | None,
    ) -> tuple[int, Fitted]:
        """Return the largest side at which little has to be dropped, and the packet there."""
        fit = partial(self._prices.fit, max_bytes=most, pack=self._pack_at, highest=level, force=True, what=what)
        tables = self.bundle.tables[0]
        for side in sides:
            latent_chw = latent_chw if side == sides[0] else self._latent_at(picture, side)
            size = OVERHEAD + self._prices.bits(tables.quantise(latent_chw, 0), 0) / 8
            if size <= DROPPED * most:
                with contextlib.suppress(BudgetTooSmall):
                    return side, fit(latent_chw)
        return sides[-1], fit(latent_chw)

    def _latent_at(self, picture: Image.Image, side: int) -> NDArray[np.float32]:
        return self.encoder.latent_chw(crop_bhwc(picture, resize=self._resize_at(side), crop=side))

    def _resize_at(self, side: int) -> int:
        return round(self.bundle.manifest.resize * side / self.bundle.manifest.crop)

    def _sides(self) -> list[int]:
        """Return the sides in pixels at which a forced picture may be encoded, the bundle's crop first."""
        manifest = self.bundle.manifest
        if set(manifest.tasks) - {"classify"}:  # boxes and masks would come back in other pixels
            return [manifest.crop]
        least, step = max(SMALLEST_SIDE * manifest.crop, 4 * manifest.stride), 2 * manifest.stride
        smaller = [side for side in range(step, manifest.crop, step) if side >= least]
        return [manifest.crop, *reversed(smaller)]

    def _grid(self, side: int) -> tuple[int, int]:
        return side // self.bundle.manifest.stride, side // self.bundle.manifest.stride

    def _pack_at(self, symbols_chw: NDArray[Any], level: int) -> bytes:
        return self.pack(symbols_chw, level=level)

    def _level(self, level: int | None) -> int:
        manifest = self.bundle.manifest
        if level is None:
            return manifest.default_level
        try:
            number = -1 if isinstance(level, bool) else operator.index(level)
        except TypeError:
            number = -1
        if not 0 <= number < manifest.levels:
            raise SettingsError(f"level {level!r}; {self.bundle.ident} has levels 0 to {manifest.levels - 1}")
        return number
