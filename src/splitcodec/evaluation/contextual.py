"""A bundle + contexts -> the same bundle with coding id 2, and what that saves.   asked by: cli/contexts.py"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

import splitcodec
from splitcodec.device.client import Device
from splitcodec.errors import BundlePart, SettingsError
from splitcodec.evaluation.golden import remade
from splitcodec.evaluation.refit import ContextCounts, best_strength, refit_contexts
from splitcodec.wire.bundle import CARD, Bundle, derive
from splitcodec.wire.coder import BY_CHANNEL, BY_CONTEXT
from splitcodec.wire.contexts import FILE, Contexts

_TOLD = re.compile(r"\n\nSymbols are coded by context \(coding id 2\) since, learned from \d+ photographs; [^\n]*")


@final
@dataclass(frozen=True, slots=True)
class Saving:
    """Mean bytes of packets at one level, by channel and by context."""

    level: int
    by_channel: float
    by_context: float

    @property
    def change(self) -> float:
        """Return the difference in per cent."""
        return 100 * (self.by_context / self.by_channel - 1)

    def to_json(self) -> dict[str, float]:
        """Return the saving as JSON values."""
        return {
            "level": self.level,
            "bytes_by_channel": round(self.by_channel, 1),
            "bytes_by_context": round(self.by_context, 1),
            "change_percent": round(self.change, 2),
        }


def with_contexts(bundle: Bundle, contexts: Contexts, *, note: Mapping[str, Any], version: int | None = None) -> Bundle:
    """Return the bundle with coding ids 0 and 2; nothing is written. Graphs, tables and symbols stay, packets do not.

    `note` goes into the manifest's provenance, `version` is the new one (none: the next). Both shores need the new
    bundle, for the fingerprint is another. Raises BundlePart for a device's half, BundleFormat for contexts of another.
    """
    check_whole(bundle)
    number = bundle.manifest.version + 1 if version is None else version
    files = {FILE: contexts.dump()}
    if bundle.has(CARD):
        told = (
            f"Symbols are coded by context (coding id 2) since, learned from {note['photographs']} photographs; "
            "sizes above are from before."
        )
        title, _, rest = bundle.read(CARD).decode(errors="replace").rstrip().partition("\n")
        title = title.replace(bundle.ident, f"{bundle.manifest.name}@{number}")
        files[CARD] = f"{title}\n{untold(rest)}\n\n{told}\n".encode()
    provenance = {**bundle.manifest.provenance, "contexts": {**note, "splitcodec": splitcodec.__version__}}
    codings = (BY_CHANNEL, BY_CONTEXT)
    manifest = replace(bundle.manifest, codings=codings, version=number, provenance=provenance)
    new = derive(bundle, manifest, files=files)
    return derive(new, new.manifest, files=remade(bundle, new))


def untold(card: str) -> str:
    """Return a model card without what it says of contexts, which are others now, or gone."""
    return _TOLD.sub("", card)


def check_whole(bundle: Bundle) -> None:
    """Refuse the device's half of a bundle. Raises BundlePart."""
    if bundle.is_device_half:
        raise BundlePart(f"{bundle.ident} is the device's half; contexts are for both, so take the whole bundle")


def contexts_of(bundle: Bundle) -> Contexts:
    """Return a bundle's contexts. Raises BundlePart without."""
    if bundle.contexts is None:
        raise BundlePart(f"{bundle.ident} has no contexts; give a bundle of coding id 2")
    return bundle.contexts


def recounted(like: Bundle, bundle: Bundle, latents: Sequence[NDArray[np.float32]]) -> Contexts:
    """Return another bundle's contexts, their rows counted anew on latents of `bundle`.

    For bundles whose latents mean the same, as where one's encoder learned the other's. Raises BundlePart without
    contexts, SettingsError for another number of levels or channels.
    """
    check_alike(like, bundle)
    counts = ContextCounts(contexts_of(like), bundle.tables[0])
    for latent_chw in latents:
        counts.add(latent_chw)
    return refit_contexts(counts, strength=best_strength(counts))


def check_alike(like: Bundle, bundle: Bundle) -> None:
    """Refuse contexts that cannot serve a bundle. Raises as `recounted`."""
    one, tables = contexts_of(like), bundle.tables[0]
    if (one.levels, one.channels) != (tables.levels, tables.channels):
        raise SettingsError(
            f"{like.ident} has {one.levels} levels of {one.channels} channels, {bundle.ident} {tables.levels} of "
            f"{tables.channels}; their latents cannot mean the same"
        )


def savings(bundle: Bundle, latents: Sequence[NDArray[np.float32]]) -> list[Saving]:
    """Return what contexts save on latents, (C, H, W) before gain, at each level."""
    devices = [Device(bundle, threads=1, coding=coding) for coding in (BY_CHANNEL, BY_CONTEXT)]
    found = []
    for level in range(bundle.manifest.levels):
        sizes = [
            float(np.mean([len(device.pack_latent(latent_chw, level=level)) for latent_chw in latents]))
            for device in devices
        ]
        found.append(Saving(level, *sizes))
    return found
