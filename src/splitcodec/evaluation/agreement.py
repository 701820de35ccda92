"""What the INT8 encoder of a bundle loses: agreement with the teacher at equal bytes, on photographs kept out.

Both encoders see the same crops; every packet goes through decoder and tail. A point of agreement is one photograph in
a hundred for which a packet gets the class that the teacher gives the uncompressed crop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.ahead import ahead, cores
from splitcodec.device.client import Device
from splitcodec.device.encoder import FILES, Precision
from splitcodec.edge.answer import Edge
from splitcodec.errors import DataError, PictureError, SettingsError, SplitcodecError
from splitcodec.evaluation.refit import STRENGTH, Counts, refit
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.tables import PRECISION_BITS, Tables

KINDS: Final[tuple[Precision, ...]] = ("fp32", "int8")
_RESAMPLES = 1000


@final
@dataclass(frozen=True, slots=True)
class LevelLoss:
    """Means at one level, fp32 first: bytes of a packet, agreement in per cent, and points that INT8 lacks.

    `loss` is against fp32 at INT8's bytes, between levels on a line over log bytes; `symbols_equal` in per cent.
    """

    level: int
    bytes: tuple[float, float]
    agreement: tuple[float, float]
    loss: float
    symbols_equal: float


@final
@dataclass(frozen=True, slots=True)
class Agreement:
    """INT8 against fp32 on `photographs` pictures; `loss` is the mean over levels with a bootstrap 95 % interval.

    `own_tables` and `refitted` are the change of ideal bytes, in per cent, by tables counted on half of the photographs
    and priced on the other: of INT8's symbols, and, as a yardstick, of fp32's.
    """

    bundle: str
    photographs: int
    levels: tuple[LevelLoss, ...]
    loss: float
    interval: tuple[float, float]
    own_tables: float
    refitted: float
    skipped: tuple[tuple[str, str], ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            **asdict(self),
            "levels": [asdict(one) for one in self.levels],
            "skipped": [{"photograph": path, "why": why} for path, why in self.skipped],
        }


def agreement(
    bundle: Bundle,
    paths: Sequence[Path],
    *,
    levels: Sequence[int] | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Agreement:
    """Measure both encoders of a bundle on pictures that neither training nor calibration has seen.

    `levels` are those to measure (none: all), `threads` pictures at a time (none: one per core). Pictures that cannot
    be read are left out and listed. Raises BundlePart for a bundle without INT8 encoder, head or decoder, DataError.
    """
    wanted = tuple(range(bundle.manifest.levels)) if levels is None else tuple(levels)
    check_levels(bundle, wanted)
    bench = _Bench(bundle, wanted)
    reads, skipped = [], []
    found = ahead(bench.read, paths, threads=threads or cores())
    for done, (path, read) in enumerate(zip(paths, found, strict=True), 1):
        if isinstance(read, PictureError):
            skipped.append((str(path), str(read)))
        else:
            for kind, latent_chw in zip(KINDS, read.latents, strict=True):
                bench.counts[kind].add(latent_chw)
            reads.append(replace(read, latents=[]))  # counted, and too large to keep those of all photographs
        if progress is not None:
            progress(done, len(paths))
    if not reads:
        raise DataError(f"none of {len(paths)} photographs can be read; give others")
    bytes_nkl, right_nkl = np.array([one.bytes_kl for one in reads]), np.array([one.right_kl for one in reads])
    loss_l = _losses(bytes_nkl.mean(axis=0), right_nkl.mean(axis=0))
    equal_l = np.array([one.equal_l for one in reads]).mean(axis=0)
    bytes_kl, agreed_kl = bytes_nkl.mean(axis=0), 100 * right_nkl.mean(axis=0)
    rows = tuple(
        LevelLoss(
            level,
            (float(bytes_kl[0, i]), float(bytes_kl[1, i])),
            (float(agreed_kl[0, i]), float(agreed_kl[1, i])),
            float(loss_l[i]),
            100 * float(equal_l[i]),
        )
        for i, level in enumerate(wanted)
    )
    return Agreement(
        bundle=bundle.ident,
        photographs=len(reads),
        levels=rows,
        loss=float(loss_l.mean()),
        interval=_interval(bytes_nkl, right_nkl),
        own_tables=_saved(bundle, bench.counts["int8"]),
        refitted=_saved(bundle, bench.counts["fp32"]),
        skipped=tuple(skipped),
    )


def check_levels(bundle: Bundle, levels: Sequence[int] | None) -> None:
    """Refuse levels that a bundle has not got, and none at all (None: all). Raises SettingsError."""
    if levels is not None and (not levels or not all(0 <= level < bundle.manifest.levels for level in levels)):
        raise SettingsError(f"levels {list(levels)}; {bundle.ident} has 0 to {bundle.manifest.levels - 1}")


@final
@dataclass(frozen=True, slots=True)
class _Read:
    """One photograph: bytes, and whether the packet's class is the teacher's, per kind and level."""

    bytes_kl: NDArray[np.int64]
    right_kl: NDArray[np.bool_]
    equal_l: NDArray[np.float64]
    latents: list[NDArray[np.float32]]


@final
class _Bench:
    """Both devices, the edge, and what their symbols count to."""

    def __init__(self, bundle: Bundle, levels: Sequence[int]) -> None:
        self._levels = levels
        self._devices = [Device(bundle, threads=1, encoder=kind) for kind in KINDS]
        self._edge = Edge(bundle, threads=1)
        self.counts = {kind: Counts(bundle) for kind in KINDS}

    def read(self, path: Path) -> _Read | PictureError:
        try:
            image_bhwc = self._devices[0].crop(path)
        except PictureError as error:
            return error
        teacher = _top(self._edge.picture_answer(image_bhwc, top=1))
        latents = [device.encoder.latent_chw(image_bhwc) for device in self._devices]
        tables: Tables = self._devices[0].bundle.tables[0]
        bytes_kl = np.zeros((len(KINDS), len(self._levels)), np.int64)
        right_kl, equal_l = np.zeros(bytes_kl.shape, np.bool_), np.zeros(len(self._levels))
        packets: dict[tuple[int, int], bytes] = {}
        for i, level in enumerate(self._levels):
            symbols = [tables.quantise(latent_chw, level) for latent_chw in latents]
            equal_l[i] = float(np.mean(symbols[0] == symbols[1]))
            for k, (device, symbols_chw) in enumerate(zip(self._devices, symbols, strict=True)):
                packets[k, i] = device.pack(symbols_chw, level=level)
                bytes_kl[k, i] = len(packets[k, i])
        questions = [self._edge.read(packet, tasks=["classify"], top=1) for packet in packets.values()]
        for place, outcome in zip(packets, self._edge.answer_all(questions), strict=True):
            if isinstance(outcome, SplitcodecError):
                raise outcome
            right_kl[place] = _top(outcome) == teacher
        return _Read(bytes_kl, right_kl, equal_l, latents)


def _top(answer: Any) -> int:
    return int(answer["answers"]["classify"][0]["index"])


def _losses(bytes_kl: NDArray[Any], right_kl: NDArray[Any]) -> NDArray[np.float64]:
    """Return the points that INT8 lacks at its own bytes; beyond fp32's range its nearest level counts."""
    order = np.argsort(bytes_kl[0])
    expected_l = np.interp(np.log(bytes_kl[1]), np.log(bytes_kl[0][order]), right_kl[0][order])
    loss_l: NDArray[np.float64] = 100 * (expected_l - right_kl[1])
    return loss_l


def _interval(bytes_nkl: NDArray[Any], right_nkl: NDArray[Any]) -> tuple[float, float]:
    random, n = np.random.default_rng(0), len(bytes_nkl)
    means = []
    for _ in range(_RESAMPLES):
        chosen = random.integers(0, n, n)
        means.append(_losses(bytes_nkl[chosen].mean(axis=0), right_nkl[chosen].mean(axis=0)).mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _saved(bundle: Bundle, counts: Counts) -> float:
    """Return the change of ideal bytes, in per cent, when one half is coded by tables counted on the other."""
    fitted, priced_ks = Counts(bundle), counts.half_ks[1]
    fitted.half_ks[0], fitted.photographs = counts.half_ks[0], (counts.photographs + 1) // 2
    if not priced_ks.any():
        return 0.0
    new = refit(fitted, strength=STRENGTH)
    bits = [
        float(np.sum(priced_ks * np.where(freq_ks > 0, PRECISION_BITS - np.log2(np.maximum(freq_ks, 1)), 0)))
        for freq_ks in (bundle.tables[0].freq_ks, new.freq_ks)
    ]
    return 100 * (bits[1] / bits[0] - 1)


def has_int8(bundle: Bundle) -> bool:
    """Say whether the bundle holds an INT8 encoder."""
    return bundle.has(FILES["int8"])
