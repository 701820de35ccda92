"""One picture through everything: each level of a bundle, its teacher, and image codecs.   used by: rate.py

Ours goes the way that ships: picture -> `Device` -> packet bytes -> `Edge` -> answer; its rate is `len(packet)`. The
encoder runs once per picture and every level is coded from that latent, which `Device.encode` is held against. Codecs
get the same crop, and the same network reads what they give back.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import GraphError
from splitcodec.evaluation.codecs import Codec
from splitcodec.evaluation.labels import Labelled
from splitcodec.evaluation.result import OURS


class Setting(NamedTuple):
    """One column of what is measured: a level (codec None) or a codec's setting."""

    codec: Codec | None
    value: int

    @property
    def method(self) -> str:
        """Return the method's name in reports."""
        return OURS if self.codec is None else self.codec.name

    @property
    def words(self) -> str:
        """Return the setting in words."""
        return f"{'level' if self.codec is None else 'quality'} {self.value}"


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

    def read(self, picture: Labelled, *, hold: bool) -> Read:
        """Put one picture through everything; `hold` its packets against `Device.encode`."""
        image_bhwc = self._device.crop(picture.path)
        teacher = self._top(image_bhwc) == picture.index
        latent_chw = self._device.encoder.latent_chw(image_bhwc)
        right, sizes, overhead = [], [], []
        for codec, value in self._settings:
            if codec is None:
                symbols_chw = self._tables.quantise(latent_chw, value)
                packet = self._device.pack(symbols_chw, level=value)
                if hold and packet != self._device.encode(picture.path, level=value):
                    raise GraphError(f"{picture.path.name}: encoding twice gave two packets; the encoder graph varies")
                overhead.append(len(packet) - self._tables.bits(symbols_chw, value) / 8)
                found = self._edge.answer(packet, top=1)["answers"]["classify"][0]["index"]
                sizes.append(len(packet))
            else:
                data = codec.encode(image_bhwc[0], value)
                found = self._top(codec.decode(data)[None])
                sizes.append(len(data))
            right.append(found == picture.index)
        return Read(picture.path, teacher, np.array(right, dtype=np.bool_), np.array(sizes), np.array(overhead))

    def encode_ms(self, paths: Sequence[Path]) -> list[float]:
        """Return the median milliseconds from crop to bytes, per setting."""
        spent: list[list[float]] = [[] for _ in self._settings]
        for path in paths:
            image_bhwc = self._device.crop(path)
            for (codec, value), times in zip(self._settings, spent, strict=True):
                begin = time.perf_counter()
                if codec is None:
                    latent_chw = self._device.encoder.latent_chw(image_bhwc)
                    self._device.pack(self._tables.quantise(latent_chw, value), level=value)
                else:
                    codec.encode(image_bhwc[0], value)
                times.append(1000 * (time.perf_counter() - begin))
        return [statistics.median(times) for times in spent]

    def _top(self, image_bhwc: NDArray[np.uint8]) -> int:
        return self._edge.picture_answer(image_bhwc, top=1)["answers"]["classify"][0]["index"]
