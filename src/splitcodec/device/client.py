"""Stages 1 to 5 of 7 on one shore: a picture in, a packet or an answer out.   inside: image, encoder, wire, link

    packet = Device("efficientnet-lite0").encode("cat.jpg", level=3)
    packet = Device("efficientnet-lite0").encode("cat.jpg", max_bytes=222, force_fit=True)

`encode` needs no network; `ask` also sends the packet over a link, any function from packet bytes to answer bytes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.device.budget import Deadline, Fitted, Prices, check_deadline, checked_max_bytes
from splitcodec.device.encoder import Encoder, Precision
from splitcodec.device.image import Picture
from splitcodec.device.overlay import in_picture
from splitcodec.device.packing import Packing
from splitcodec.device.placed import Letterbox
from splitcodec.device.tuned import tuned
from splitcodec.device.view import Fit, View, task_specs
from splitcodec.errors import BudgetTooSmall, SettingsError
from splitcodec.wire.answer import Answer, parse_answer
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.coder import BY_CHANNEL
from splitcodec.wire.given import whole
from splitcodec.wire.task import TaskSpec

SAVING: Final = 0.28
"""Share of their price that packets by context are taken to save until one was made."""
DROPPED: Final = 1.2
"""How many times the limit level 0 may have for symbols to be dropped rather than the picture shrunk (docs/LOG.md)."""
WORTH: Final = 0.7
"""What the picture's side may be multiplied by for level 1 to fit, rather than level 0 at the larger side."""


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
    `coding` is the coding id of packets (none: 2, by context, where the bundle has it; 0, by channel, takes less time
    and more bytes).

    Raises BundleError, GraphError, MissingExtra or SettingsError.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle = "efficientnet-lite0",
        *,
        threads: int | None = None,
        plain_coder: bool | None = None,
        encoder: Precision | Literal["tuned"] = "fp32",
        coding: int | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        choice = tuned(self.bundle) if encoder == "tuned" else None
        if choice is not None:
            threads = choice.threads if threads is None else threads
        self.precision: Precision = encoder if encoder != "tuned" else choice.encoder if choice is not None else "fp32"
        self.encoder = Encoder(self.bundle, precision=self.precision, threads=threads)
        self._packing = Packing(self.bundle, coding=coding, plain=plain_coder)
        self.coding = self._packing.coding
        self._prices = Prices(self.bundle.tables[0], saving=0.0 if self.coding == BY_CHANNEL else SAVING)
        self._coding_ms: float | None = None  # what pricing and coding under a limit took last (none: not known yet)

    @property
    def plain_coder(self) -> bool:
        """Say whether the entropy coder is the one in plain Python."""
        return self._packing.plain

    def crop(self, picture: Picture) -> NDArray[np.uint8]:
        """Return what the network will see of a picture: uint8 (1, crop, crop, 3). Raises PictureError."""
        return self.view(picture)[0]

    def view(
        self, picture: Picture, *, fit: Fit = "crop", side: int | None = None
    ) -> tuple[NDArray[np.uint8], Letterbox]:
        """Return what the network will see of a picture, uint8 (1, rows, cols, 3), and where the picture lies in it.

        "crop" is what the classifier learned on; "letterbox" shows the whole picture, its longest side scaled to `side`
        (none: as the bundle's tasks want it), padded with grey to multiples of the stride or what the tasks want.
        Raises PictureError, SettingsError for a side that the bundle does not take.
        """
        seen = View(self.bundle, picture, specs=self._specs, fit=fit, side=side)
        return seen.pixels_bhwc(seen.side), seen.place(seen.side)

    def symbols(
        self, picture: Picture, *, level: int | None = None, fit: Fit = "crop", side: int | None = None
    ) -> NDArray[np.int32]:
        """Return the picture's symbols at a level (none: the bundle's default): int32 (C, rows, columns)."""
        level = self.checked_level(level)
        latent_chw = self.encoder.latent_chw(self.view(picture, fit=fit, side=side)[0])
        return self.bundle.tables[0].quantise(latent_chw, level)

    def pack(self, symbols_chw: NDArray[Any], *, level: int) -> bytes:
        """Return the packet of symbols, integers (C, rows, columns) within the tables' range.

        Raises SettingsError, TablesError, or PacketGrid for more symbols than the bundle allows.
        """
        return self._packing.pack(symbols_chw, self.checked_level(level))

    def pack_latent(self, latent_chw: NDArray[np.float32], *, level: int) -> bytes:
        """Return the packet of a latent, float32 (C, rows, columns): that of its symbols, in less time.

        Raises SettingsError, TablesError, or PacketGrid for more symbols than the bundle allows.
        """
        return self._packing.pack_latent(latent_chw, self.checked_level(level))

    def prices(self, picture: Picture) -> list[int]:
        """Return the length of the picture's packet at every level, in bytes; the encoder runs once."""
        latent_chw = self.encoder.latent_chw(self.crop(picture))
        return [len(self.pack_latent(latent_chw, level=level)) for level in range(self.bundle.manifest.levels)]

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
        would be too many, it first encodes the picture at a smaller size. `fit` and `side` say what of the picture the
        network sees; see `view`.

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
        look: Callable[[NDArray[np.float32]], object] = lambda _: None,
    ) -> Encoded:
        """Do as `encode`, and say what each stage and limit cost; `look` gets the latent first, and may raise."""
        check_deadline(deadline)
        most = None if max_bytes is None else checked_max_bytes(max_bytes)
        limited = most is not None or deadline is not None
        level = self.bundle.manifest.levels - 1 if limited and level is None else self.checked_level(level)
        begin = time.perf_counter()
        seen = View(self.bundle, picture, specs=self._specs, fit=fit, side=side)
        image_bhwc = seen.pixels_bhwc(seen.side)
        cropped = time.perf_counter()
        latent_chw = self.encoder.latent_chw(image_bhwc)
        look(latent_chw)
        encoded = time.perf_counter()
        fitting = partial(self._fitted, seen, latent_chw, level=level, force=force_fit)
        if deadline is not None:
            taken, fitted = self._in_time(fitting, deadline, most=most, begin=begin)
        elif most is not None:
            taken, fitted = fitting(most)
        else:
            packet = self.pack_latent(latent_chw, level=level)
            taken, fitted = seen.side, Fitted(packet, level, 0)
        stages = {"preprocess": cropped - begin, "encoder": encoded - cropped, "coding": time.perf_counter() - encoded}
        ms = {stage: round(1000 * spent, 3) for stage, spent in stages.items()}
        place = seen.place(taken)
        return Encoded(fitted.packet, fitted.level, ms, place, max(place.rows, place.cols), fitted.dropped)

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

        Boxes and label maps come back in pixels of the upright picture. Raises as `encode`, what the link raises
        (LinkError), and LinkGarbled where what comes back is no answer, or lacks one of the link's `tasks`.
        """
        if not callable(link):
            raise SettingsError(f"link {link!r:.80}; expected a function of packet bytes, such as http(url) gives")
        encoded = self.encode_timed(
            picture, level=level, max_bytes=max_bytes, deadline=deadline, force_fit=force_fit, fit=fit, side=side
        )
        return in_picture(parse_answer(link(encoded.packet), tasks=getattr(link, "tasks", None)), encoded.place)

    def _in_time(
        self, fitting: Callable[..., tuple[int, Fitted]], deadline: Deadline, *, most: int | None, begin: float
    ) -> tuple[int, Fitted]:
        """Return side and packet that keep a deadline counted from `begin`, and at most `most` bytes.

        Coding takes time as well: as much as last time, or, the first time, what it turns out to take.
        """

        def coded(*, set_aside_ms: float) -> tuple[int, Fitted]:
            start = time.perf_counter()
            in_time = deadline.bytes_left(1000 * (start - begin) + set_aside_ms)
            what = f"{in_time} bytes are left of {deadline.ms:g} ms at {deadline.kbit_per_s:.4g} kbit/s"
            try:
                return fitting(in_time, what=what) if most is None or in_time < most else fitting(most)
            finally:
                self._coding_ms = 1000 * (time.perf_counter() - start)

        known = self._coding_ms
        found = coded(set_aside_ms=known or 0.0)
        if known is None and len(found[1].packet) > deadline.bytes_left(1000 * (time.perf_counter() - begin)):
            found = coded(set_aside_ms=self._coding_ms or 0.0)
        return found

    def _fitted(
        self,
        seen: View,
        latent_chw: NDArray[np.float32],
        most: int,
        *,
        level: int,
        force: bool,
        what: str | None = None,
    ) -> tuple[int, Fitted]:
        """Return the packet that fits, and the side: by force the largest one at which little has to be dropped.

        Or else a smaller one, by no more than `WORTH`, at which level 1 fits as it is.
        """
        sides, tables, shortest = seen.sides, self.bundle.tables[0], self._packing.shortest
        fit = partial(self._prices.fit, max_bytes=most, pack=shortest, highest=level, force=force, what=what)
        if not force:
            full, least, (_, rows, cols) = seen.grid(seen.side), seen.grid(sides[-1]), latent_chw.shape
            return seen.side, fit(latent_chw, least_grid=(rows - full[0] + least[0], cols - full[1] + least[1]))

        @cache
        def latent(side: int) -> NDArray[np.float32]:
            return latent_chw if side == seen.side else self.encoder.latent_chw(seen.pixels_bhwc(side))

        def size(side: int, level: int) -> int:
            return len(shortest(tables.quantise(latent(side), level), level))

        for side in sides:
            if size(side, 0) > DROPPED * most:
                continue
            near = [one for one in sides if WORTH * side <= one <= side] if min(level, tables.levels - 1) else []
            better = next((one for one in near if size(one, 1) <= most), side)
            with contextlib.suppress(BudgetTooSmall):
                return better, fit(latent(better))
        return sides[-1], fit(latent(sides[-1]))

    @cached_property
    def _specs(self) -> list[TaskSpec]:
        return task_specs(self.bundle)

    def checked_level(self, level: int | None) -> int:
        """Return a rate level (none: the bundle's default). Raises SettingsError for one that the bundle lacks."""
        manifest = self.bundle.manifest
        if level is None:
            return manifest.default_level
        number = whole(level)
        if number is None or not 0 <= number < manifest.levels:
            raise SettingsError(f"level {level!r:.40}; {self.bundle.ident} has levels 0 to {manifest.levels - 1}")
        return number
