"""Pictures through everything: each level of each bundle, the teacher, and image codecs.   used by: rate.py

A bundle goes the way that ships: picture -> `Device` -> packet bytes -> `Edge` -> answer; its rate is `len(packet)`.
Its encoder runs once per picture and every level is coded from that latent, which `Device.encode` is held against.
Codecs get the same crop, and the same network reads what they give back, scaled up where they coded fewer pixels.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import GraphError, PictureError
from splitcodec.evaluation.codecs import Codec, Images
from splitcodec.evaluation.golden import top_of
from splitcodec.evaluation.labels import Labelled
from splitcodec.evaluation.memory import Memory
from splitcodec.evaluation.refit import ContextBits
from splitcodec.evaluation.rivals import Entrant
from splitcodec.evaluation.sweep import Setting, floor_bytes, scaled
from splitcodec.wire.coder import BY_CONTEXT
from splitcodec.wire.packet import unpack


@final
@dataclass(frozen=True, slots=True)
class Read:
    """One picture: what the teacher and each of S settings made of it."""

    path: Path
    teacher: bool
    right_s: NDArray[np.bool_]
    bytes_s: NDArray[np.int64]
    overhead_l: NDArray[np.float64]  # packet bytes minus ideal code length, per level of the main bundle


@final
class Bench:
    """The bundles' shores, the main one first, and the settings to put each picture through; for several threads.

    What codecs gave is looked up in, and added to, `memory` where there is one.
    """

    def __init__(
        self, entrants: Sequence[Entrant], settings: Sequence[Setting], *, memory: Memory | None = None
    ) -> None:
        self._entrants = entrants
        self._main = entrants[0]
        self._settings = settings
        self._memory = memory
        contexts = self._main.bundle.contexts
        self._by_context = None if contexts is None else ContextBits(contexts)

    @property
    def at_once(self) -> int:
        """Return how many pictures `read` should get: as many as the codec that asks for most."""
        return max((one.source.at_once for one in self._settings if not isinstance(one.source, Entrant)), default=1)

    def read(self, pictures: Sequence[Labelled], *, hold: int) -> list[Read | PictureError]:
        """Put pictures through everything; the packets of the first `hold` are held against `Device.encode`."""
        crop_of: dict[int, NDArray[np.uint8]] = {}
        found: dict[int, Read | PictureError] = {}
        for k, picture in enumerate(pictures):
            try:
                crop_of[k] = self._main.device.crop(picture.path)[0]
            except PictureError as error:
                found[k] = error
        crops = list(crop_of.values())
        latents = {
            one: [one.device.encoder.latent_chw(image_hwc[None]) for image_hwc in crops] for one in self._entrants
        }
        held = [_file(pictures[k].path) if k < hold else None for k in crop_of]
        columns, overhead = [], []
        for source, value, side in self._settings if crops else ():
            if isinstance(source, Entrant):
                packets = [
                    _packet(source, latent_chw, value, file=file)
                    for latent_chw, file in zip(latents[source], held, strict=True)
                ]
                if source is self._main:
                    pairs = zip(packets, latents[source], strict=True)
                    overhead.append([len(one) - self._ideal_bytes(one, latent_chw) for one, latent_chw in pairs])
                columns.append([(top_of(source.edge, one), len(one)) for one in packets])
            else:
                columns.append(self._rival(source, value, side, crops=crops))
        for n, k in enumerate(crop_of):
            index = pictures[k].index
            right_s = np.array([column[n][0] == index for column in columns], dtype=np.bool_)
            bytes_s = np.array([column[n][1] for column in columns], dtype=np.int64)
            overhead_l = np.array([level[n] for level in overhead], dtype=np.float64)
            found[k] = Read(pictures[k].path, self._top(crops[n]) == index, right_s, bytes_s, overhead_l)
        return [found[k] for k in range(len(pictures))]

    def floors(self) -> list[int]:
        """Return the bytes that carry no picture, per setting."""
        crop = self._main.bundle.manifest.crop
        return [floor_bytes(setting, crop=crop) for setting in self._settings]

    def crops(self, paths: Iterable[Path], *, most: int) -> list[NDArray[np.uint8]]:
        """Return the crops of the first pictures that can be read, uint8 (H, W, 3)."""
        found: list[NDArray[np.uint8]] = []
        for path in paths:
            if len(found) == most:
                break
            with contextlib.suppress(PictureError):
                found.append(self._main.device.crop(path)[0])
        return found

    def encode_ms(self, crops: Images) -> list[float]:
        """Return the median milliseconds from crop to bytes, per setting; a codec gets as many at once as it asks."""
        return [statistics.median(_times(setting, crops)) for setting in self._settings]

    def _rival(self, codec: Codec, value: int, side: int | None, *, crops: Images) -> list[tuple[int, int]]:
        """Return per crop the class that the network sees in a codec's picture, and the bytes of its file."""
        if self._memory is None:
            return self._coded(codec, value, side, crops=crops)
        keys = [self._memory.key(image_hwc, codec=codec.name, value=value, side=side) for image_hwc in crops]
        found = [self._memory.recall(key) for key in keys]
        missing = [n for n, one in enumerate(found) if one is None]
        fresh = self._coded(codec, value, side, crops=[crops[n] for n in missing]) if missing else []
        self._memory.keep({keys[n]: one for n, one in zip(missing, fresh, strict=True)})
        coded = iter(fresh)
        return [next(coded) if one is None else one for one in found]

    def _coded(self, codec: Codec, value: int, side: int | None, *, crops: Images) -> list[tuple[int, int]]:
        files = codec.encode(scaled(crops, side), value)
        back = scaled(codec.decode(files), None if side is None else crops[0].shape[0])
        return [(self._top(image_hwc), len(data)) for image_hwc, data in zip(back, files, strict=True)]

    def _ideal_bytes(self, packet: bytes, latent_chw: NDArray[np.float32]) -> float:
        """Return the ideal code length of what a packet of the main bundle holds, under the coding that it names."""
        tables, fields = self._main.bundle.tables[0], unpack(packet)
        symbols_chw = tables.quantise(latent_chw, fields.level)
        if fields.coding == BY_CONTEXT and self._by_context is not None:
            return self._by_context.of(symbols_chw, fields.level) / 8
        return tables.bits(symbols_chw, fields.level) / 8

    def _top(self, image_hwc: NDArray[np.uint8]) -> int:
        return self._main.edge.picture_answer(image_hwc[None], top=1)["answers"]["classify"][0]["index"]


def _times(setting: Setting, crops: Images) -> list[float]:
    source, value, side = setting
    step = 1 if isinstance(source, Entrant) else source.at_once
    times: list[float] = []
    for at in range(0, len(crops), step):
        some = crops[at : at + step]
        begin = time.perf_counter()
        if isinstance(source, Entrant):
            _packet(source, source.device.encoder.latent_chw(some[0][None]), value, file=None)
        else:
            source.encode(scaled(some, side), value)
        times += [1000 * (time.perf_counter() - begin) / len(some)] * len(some)
    return times


def _file(path: Path) -> tuple[str, bytes] | None:
    """Return a picture's name and file, read once for all levels; None if it is gone since it was cropped."""
    try:
        return path.name, path.read_bytes()
    except OSError:
        return None


def _packet(entrant: Entrant, latent_chw: NDArray[np.float32], level: int, *, file: tuple[str, bytes] | None) -> bytes:
    """Return a latent's packet; with a file, hold it against what `Device.encode` makes of that."""
    device = entrant.device
    packet = device.pack_latent(latent_chw, level=level)
    if file is not None and packet != device.encode(file[1], level=level):
        raise GraphError(f"{file[0]}: encoding twice gave two packets; the encoder graph varies")
    return packet
