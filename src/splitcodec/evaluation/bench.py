"""Pictures through everything: each level of a bundle, its teacher, and image codecs.   used by: rate.py

Ours goes the way that ships: picture -> `Device` -> packet bytes -> `Edge` -> answer; its rate is `len(packet)`. The
encoder runs once per picture and every level is coded from that latent, which `Device.encode` is held against. Codecs
get the same crop, and the same network reads what they give back, scaled up where they coded fewer pixels.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import GraphError, PictureError
from splitcodec.evaluation.codecs import Codec, Images
from splitcodec.evaluation.labels import Labelled
from splitcodec.evaluation.sweep import Setting, floor_bytes, scaled


@final
@dataclass(frozen=True, slots=True)
class Read:
    """One picture: what the teacher and each of S settings made of it."""

    path: Path
    teacher: bool
    right_s: NDArray[np.bool_]
    bytes_s: NDArray[np.int64]
    overhead_l: NDArray[np.float64]  # packet bytes minus ideal code length


@final
class Bench:
    """Both shores and the settings to put each picture through; used by several threads at once."""

    def __init__(self, device: Device, edge: Edge, settings: Sequence[Setting]) -> None:
        self._device = device
        self._edge = edge
        self._settings = settings
        self._tables = device.bundle.tables[0]

    @property
    def at_once(self) -> int:
        """Return how many pictures `read` should get: as many as the codec that asks for most."""
        return max((codec.at_once for codec, _, _ in self._settings if codec is not None), default=1)

    def read(self, pictures: Sequence[Labelled], *, hold: int) -> list[Read | PictureError]:
        """Put pictures through everything; the packets of the first `hold` are held against `Device.encode`."""
        crop_of: dict[int, NDArray[np.uint8]] = {}
        found: dict[int, Read | PictureError] = {}
        for k, picture in enumerate(pictures):
            try:
                crop_of[k] = self._device.crop(picture.path)[0]
            except PictureError as error:
                found[k] = error
        crops = list(crop_of.values())
        latents = [self._device.encoder.latent_chw(image_hwc[None]) for image_hwc in crops]
        held = [pictures[k].path if k < hold else None for k in crop_of]
        columns, overhead = [], []
        for setting in self._settings if crops else ():
            if setting.codec is None:
                packets = [
                    self._packet(latent_chw, setting.value, path=path)
                    for latent_chw, path in zip(latents, held, strict=True)
                ]
                ideal = [self._tables.bits(self._tables.quantise(one, setting.value), setting.value) for one in latents]
                overhead.append([len(one) - bits / 8 for one, bits in zip(packets, ideal, strict=True)])
                columns.append([(self._answer(one), len(one)) for one in packets])
            else:
                columns.append(self._rival(setting.codec, setting.value, setting.side, crops=crops))
        for n, k in enumerate(crop_of):
            index = pictures[k].index
            right_s = np.array([column[n][0] == index for column in columns], dtype=np.bool_)
            bytes_s = np.array([column[n][1] for column in columns], dtype=np.int64)
            overhead_l = np.array([level[n] for level in overhead], dtype=np.float64)
            found[k] = Read(pictures[k].path, self._top(crops[n]) == index, right_s, bytes_s, overhead_l)
        return [found[k] for k in range(len(pictures))]

    def floors(self) -> list[int]:
        """Return the bytes that carry no picture, per setting."""
        crop = self._device.bundle.manifest.crop
        return [floor_bytes(setting, crop=crop) for setting in self._settings]

    def encode_ms(self, paths: Sequence[Path]) -> list[float]:
        """Return the median milliseconds from crop to bytes, per setting; a codec gets as many at once as it asks."""
        crops = [self._device.crop(path)[0] for path in paths]
        return [statistics.median(self._times(setting, crops)) for setting in self._settings]

    def _times(self, setting: Setting, crops: Sequence[NDArray[np.uint8]]) -> list[float]:
        codec, value, side = setting
        step = 1 if codec is None else codec.at_once
        times: list[float] = []
        for at in range(0, len(crops), step):
            some = crops[at : at + step]
            begin = time.perf_counter()
            if codec is None:
                self._packet(self._device.encoder.latent_chw(some[0][None]), value, path=None)
            else:
                codec.encode(scaled(some, side), value)
            times += [1000 * (time.perf_counter() - begin) / len(some)] * len(some)
        return times

    def _rival(self, codec: Codec, value: int, side: int | None, *, crops: Images) -> list[tuple[int, int]]:
        """Return per crop the class that the network sees in a codec's picture, and the bytes of its file."""
        files = codec.encode(scaled(crops, side), value)
        back = scaled(codec.decode(files), None if side is None else crops[0].shape[0])
        return [(self._top(image_hwc), len(data)) for image_hwc, data in zip(back, files, strict=True)]

    def _packet(self, latent_chw: NDArray[np.float32], level: int, *, path: Path | None) -> bytes:
        """Return a latent's packet; with a path, hold it against what `Device.encode` makes of that file."""
        packet = self._device.pack(self._tables.quantise(latent_chw, level), level=level)
        if path is not None and packet != self._device.encode(path, level=level):
            raise GraphError(f"{path.name}: encoding twice gave two packets; the encoder graph varies")
        return packet

    def _answer(self, packet: bytes) -> int:
        return self._edge.answer(packet, top=1)["answers"]["classify"][0]["index"]

    def _top(self, image_hwc: NDArray[np.uint8]) -> int:
        return self._edge.picture_answer(image_hwc[None], top=1)["answers"]["classify"][0]["index"]
