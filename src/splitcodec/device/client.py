"""Stages 1 to 5 of 7 on one shore: a picture in, a packet or an answer out.   inside: image, encoder, wire, link

    packet = Device("efficientnet-lite0").encode("cat.jpg", level=3)

`encode` needs no network; `ask` also sends the packet over a link, any function from packet bytes to answer bytes.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitcodec.device.encoder import Encoder
from splitcodec.device.image import Letterbox, crop_bhwc, crop_place, letterbox_bhwc, load_picture
from splitcodec.device.overlay import in_picture
from splitcodec.errors import SettingsError
from splitcodec.wire.answer import Answer, parse_answer
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.coder import BY_CHANNEL, Coder
from splitcodec.wire.packet import Packet, pack
from splitcodec.wire.task import file_name

Fit = Literal["crop", "letterbox"]
Picture = str | Path | bytes | Image.Image | NDArray[Any]


@final
@dataclass(frozen=True, slots=True)
class Encoded:
    """A packet, its rate level, and the milliseconds of the stages "preprocess", "encoder" and "coding".

    `place` says where the picture lies in what was sent.
    """

    packet: bytes
    level: int
    ms: dict[str, float]
    place: Letterbox


@final
class Device:
    """The device's half of a bundle, opened; safe to share between threads.

    `bundle` is a zoo name, a folder, a zip or an opened bundle; its device half will do. `threads` goes to ONNX Runtime
    (none: its choice); `plain_coder=True` forces the coder in Python, `False` demands constriction.

    Raises BundleError, GraphError, MissingExtra or SettingsError.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle = "efficientnet-lite0",
        *,
        threads: int | None = None,
        plain_coder: bool | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self.encoder = Encoder(self.bundle, threads=threads)
        self._coder = Coder(self.bundle.tables[0], plain=plain_coder)

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

    def encode(
        self, picture: Picture, *, level: int | None = None, fit: Fit = "crop", side: int | None = None
    ) -> bytes:
        """Return the packet of a picture at a rate level (none: the bundle's default); its length is the rate.

        `fit` and `side` say what of the picture the network sees; see `view`.
        Raises PictureError, SettingsError for a level that the bundle does not have, GraphError.
        """
        return self.encode_timed(picture, level=level, fit=fit, side=side).packet

    def encode_timed(
        self, picture: Picture, *, level: int | None = None, fit: Fit = "crop", side: int | None = None
    ) -> Encoded:
        """Do as `encode`, and say how long each stage took."""
        level = self._level(level)
        begin = time.perf_counter()
        image_bhwc, place = self.view(picture, fit=fit, side=side)
        cropped = time.perf_counter()
        latent_chw = self.encoder.latent_chw(image_bhwc)
        encoded = time.perf_counter()
        packet = self.pack(self.bundle.tables[0].quantise(latent_chw, level), level=level)
        done = time.perf_counter()
        seconds = {"preprocess": cropped - begin, "encoder": encoded - cropped, "coding": done - encoded}
        return Encoded(packet, level, {stage: round(1000 * spent, 3) for stage, spent in seconds.items()}, place)

    def ask(
        self,
        picture: Picture,
        *,
        link: Callable[[bytes], bytes],
        level: int | None = None,
        fit: Fit = "crop",
        side: int | None = None,
    ) -> Answer:
        """Encode a picture, send the packet over `link` and return the edge's answer.

        Boxes and label maps come back in pixels of the upright picture.
        Raises as `encode`, LinkGarbled if what comes back is not an answer, and what the link raises (LinkError).
        """
        encoded = self.encode_timed(picture, level=level, fit=fit, side=side)
        return in_picture(parse_answer(link(encoded.packet)), encoded.place)

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
