"""A bundle + somebody's photographs -> the same bundle with tables that fit them, and what that saves.

Nothing is trained: graphs, gains and ranges stay, so symbols and answers do too; packets become shorter. What it saves
is counted in packets of photographs that the new tables have not seen. Tables are what both shores share, so the new
bundle has a fingerprint of its own, and both shores need it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

import splitcodec
from splitcodec.ahead import ahead, cores
from splitcodec.device.client import Device
from splitcodec.errors import DataError, PictureError, SettingsError
from splitcodec.evaluation.card import card_with
from splitcodec.evaluation.golden import remade
from splitcodec.evaluation.refit import ContextCounts, Counts, best_strength, refit, refit_contexts
from splitcodec.layouts.folders import find_photographs
from splitcodec.wire.bundle import Bundle, derive, open_bundle, renamed, write_folder
from splitcodec.wire.contexts import FILE as CONTEXTS
from splitcodec.wire.contexts import Contexts
from splitcodec.wire.durable import check_free
from splitcodec.wire.tables import Tables

Progress = Callable[[int, int], None]

HELD_OUT: Final = 5
"""One photograph in so many is set aside for measuring."""
MOST_HELD_OUT: Final = 500


@final
@dataclass(frozen=True, slots=True)
class LevelBytes:
    """Mean bytes of the held-out photographs' packets at one level, with the old tables and with the new ones.

    `clipped` is the share of symbols, in per cent, that lay beyond the tables' range.
    """

    level: int
    before: float
    after: float
    clipped: float

    @property
    def change(self) -> float:
        """Return the difference in per cent; negative is fewer bytes."""
        return 100.0 * (self.after / self.before - 1.0)


@final
@dataclass(frozen=True, slots=True)
class Calibration:
    """The new bundle, the old one's name@version and fingerprint, photographs counted and held out, what it saves.

    `strength` is the weight that the old tables kept, in photographs, `strength_by_context` that of the old rows of
    contexts, where the bundle has some; `skipped` are the photographs that could not be read, each with the reason.
    """

    bundle: Bundle
    made_of: str
    was: bytes
    photographs: int
    held_out: int
    strength: float
    strength_by_context: float | None
    levels: tuple[LevelBytes, ...]
    skipped: tuple[tuple[str, str], ...]

    @property
    def change(self) -> float:
        """Return the mean over the levels of the difference in per cent."""
        return float(np.mean([one.change for one in self.levels]))

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "bundle": self.bundle.ident,
            "path": str(self.bundle.path),
            "fingerprint": self.bundle.fingerprint.hex(),
            "bundle_before": self.made_of,
            "fingerprint_before": self.was.hex(),
            "photographs": self.photographs,
            "held_out": self.held_out,
            "strength": self.strength,
            "strength_by_context": self.strength_by_context,
            "change_percent": round(self.change, 2),
            "levels": [
                {
                    "level": one.level,
                    "bytes_before": round(one.before, 1),
                    "bytes_after": round(one.after, 1),
                    "change_percent": round(one.change, 2),
                    "clipped_percent": round(one.clipped, 4),
                }
                for one in self.levels
            ],
            "skipped": [{"photograph": name, "why": why} for name, why in self.skipped],
        }


def calibrate(
    bundle: str | Path | Bundle,
    photos: Sequence[str | Path],
    out: str | Path,
    *,
    name: str | None = None,
    version: int | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Calibration:
    """Refit a bundle's tables to the photographs below some folders and write it as a new bundle folder `out`.

    A fifth of them, at most 500, are only measured. Those that cannot be read are left out and listed. A device's half
    will do, but its edge needs the same tables. `name` and `version` are the new bundle's (none: the old ones').
    `threads` photographs are read at a time (none: as many as there are cores); `progress` is told (done, all). Nothing
    is written before the end.

    Raises DataError without at least two photographs, OutputError, SettingsError, BundleError, GraphError.
    """
    if threads is not None and threads < 1:
        raise SettingsError(f"threads {threads}; expected at least 1")
    check_free(out)
    old = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    named = renamed(old, name, version)
    counts, paths = Counts(old), shuffled(photos)
    by_context = None if old.contexts is None else ContextCounts(old.contexts, old.tables[0])
    both = [one for one in (counts, by_context) if one is not None]
    before, tell, total = Device(old, threads=1), progress or (lambda *_: None), len(paths) + _quota(len(paths))
    held, skipped = _count(before, paths, both, threads=threads or cores(), tell=lambda done: tell(done, total))
    strength = best_strength(counts)
    note = {
        "photographs": counts.photographs,
        "held_out": len(held),
        "strength": strength,
        "from": old.ident,
        "fingerprint_before": old.fingerprint.hex(),
        "splitcodec": splitcodec.__version__,
    }
    contexts, of_rows = None, None
    if by_context is not None:
        of_rows = best_strength(by_context)
        contexts = refit_contexts(by_context, strength=of_rows)
        note["strength_by_context"] = of_rows
    new = _calibrated(named, refit(counts, strength=strength), contexts, note=note)
    after, sizes_nl2 = Device(new, threads=1), []
    for done, latent_chw in enumerate(held, 1):
        sizes_nl2.append(_sizes_l2(before, after, latent_chw))
        tell(min(len(paths) + done, total), total)
    sizes_l2 = np.mean(sizes_nl2, axis=0)
    return Calibration(
        bundle=write_folder(new, out),
        made_of=old.ident,
        was=old.fingerprint,
        photographs=counts.photographs,
        held_out=len(held),
        strength=strength,
        strength_by_context=of_rows,
        levels=tuple(
            LevelBytes(level, float(old_size), float(new_size), counts.clipped(level))
            for level, (old_size, new_size) in enumerate(sizes_l2)
        ),
        skipped=tuple(skipped),
    )


def shuffled(folders: Sequence[str | Path]) -> list[Path]:
    """Return the pictures below the folders in an order that has nothing to do with their names, always the same."""
    paths = find_photographs(folders)
    return [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]


def _quota(photographs: int) -> int:
    return min(MOST_HELD_OUT, max(1, photographs // HELD_OUT))


def _count(
    device: Device,
    paths: Sequence[Path],
    counters: Sequence[Counts | ContextCounts],
    *,
    threads: int,
    tell: Callable[[int], None],
) -> tuple[list[NDArray[np.float32]], list[tuple[str, str]]]:
    """Count photographs; returns the latents of those held out, and which could not be read, with the reason."""

    def read(path: Path) -> NDArray[np.float32] | PictureError:
        try:
            return device.encoder.latent_chw(device.crop(path))
        except PictureError as error:
            return error

    def count(latent_chw: NDArray[np.float32]) -> None:
        for one in counters:
            one.add(latent_chw)

    held, skipped, quota = list[NDArray[np.float32]](), list[tuple[str, str]](), _quota(len(paths))
    tell(0)
    for done, (path, latent) in enumerate(zip(paths, ahead(read, paths, threads=threads), strict=True), 1):
        if isinstance(latent, PictureError):
            skipped.append((str(path), str(latent)))
        elif len(held) < quota:
            held.append(latent)
        else:
            count(latent)
        tell(done)
    readable = len(paths) - len(skipped)
    if readable < 2:
        why = f": {skipped[0][1]}" if skipped else ""
        raise DataError(f"{readable} of {len(paths)} photographs can be read, expected at least 2{why}")
    quota = _quota(readable)  # a fifth of those that could be read
    for latent_chw in held[quota:]:
        count(latent_chw)
    return held[:quota], skipped


def _calibrated(old: Bundle, tables: Tables, contexts: Contexts | None, *, note: Mapping[str, Any]) -> Bundle:
    """Return the bundle with other tables, and with golden vectors and a card that go with them; nothing is written."""
    file = io.BytesIO()
    tables.save(file)
    files = {old.manifest.table_sets[0]: file.getvalue()}
    if contexts is not None:
        files[CONTEXTS] = contexts.dump()
    files |= card_with(
        old,
        f"Tables calibrated by `splitcodec calibrate` on {note['photographs']} photographs of a user "
        f"({note['held_out']} more held out). Sizes above are from before.",
    )
    manifest = replace(old.manifest, provenance={**old.manifest.provenance, "calibrated": dict(note)})
    new = derive(old, manifest, files=files)
    return derive(new, new.manifest, files=remade(old, new))


def _sizes_l2(before: Device, after: Device, latent_chw: NDArray[np.float32]) -> list[list[int]]:
    """Return the bytes of one photograph's packets at every level, by the old bundle and by the new one."""
    tables = before.bundle.tables[0]  # gains and ranges are the same in both
    symbols = [tables.quantise(latent_chw, level) for level in range(tables.levels)]
    return [[len(device.pack(chw, level=level)) for device in (before, after)] for level, chw in enumerate(symbols)]
