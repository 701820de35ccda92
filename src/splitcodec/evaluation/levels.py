"""A bundle + photographs -> the same bundle with rate levels where somebody wants them.   asked by: cli/contexts.py

A level is nothing but a gain for each channel and the tables that go with it, so levels can be put anywhere between and
somewhat beyond those that were trained: encoder and decoder stay. Sizes are what packets cost by channel, on average of
the photographs given; contexts belong to the old levels and go (`splitcodec contexts` learns new ones).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

import splitcodec
from splitcodec.errors import BundlePart, SettingsError
from splitcodec.evaluation.contextual import untold
from splitcodec.evaluation.golden import anew
from splitcodec.wire.bundle import CARD, Bundle, derive
from splitcodec.wire.coder import BY_CHANNEL, Coder
from splitcodec.wire.contexts import FILE as CONTEXTS
from splitcodec.wire.packet import OVERHEAD
from splitcodec.wire.tables import MAX_LEVELS, PRECISION_BITS, Tables
from splitcodec.wire.tabulate import (
    REACH,
    Counts,
    empty_counts,
    gains_at,
    geometric_prior,
    tables_of,
)

PLACED_ON: Final = 320
"""Photographs that sizes are measured on."""
COUNTED: Final = 2000
"""Photographs whose symbols are counted for the tables."""
SAME: Final = 0.02
"""A level whose size is the wanted one within this share stays as it is."""
_BEYOND: Final = 6.0  # levels; gains of trained levels say little further out
_STEPS: Final = 14  # of bisection
_UNEVEN: Final = 3.0  # bytes that the coder's whole words have more than the price of their symbols, as measured


@final
@dataclass(frozen=True, slots=True)
class Placed:
    """Where a new level lies among the old ones (2.5: half-way between 2 and 3; -1: before them), and its size."""

    place: float
    wanted: float
    bytes_mean: float

    def to_json(self) -> dict[str, float]:
        """Return the level as JSON values."""
        return {"place": round(self.place, 3), "bytes_wanted": self.wanted, "bytes": round(self.bytes_mean, 1)}


def place(tables: Tables, latents: Sequence[NDArray[np.float32]], sizes: Sequence[float]) -> list[Placed]:
    """Return where levels of these mean packet bytes by channel lie, for latents (C, H, W) before gain.

    Raises SettingsError for sizes that do not rise, are too many, or lie further out than gains can be told.
    """
    check_sizes(sizes)
    some = latents[:: max(1, len(latents) // PLACED_ON)][:PLACED_ON]
    log_gain_lc = np.log(tables.gain_lc.astype(np.float64))

    def size(at: float) -> float:
        return mean_price(_gain_c(tables, log_gain_lc, at), some)

    top = float(tables.levels - 1)
    old = [size(float(level)) for level in range(tables.levels)]
    low, high = size(-_BEYOND), size(top + _BEYOND)
    found = []
    for wanted in sizes:
        if not low <= wanted <= high:
            raise SettingsError(
                f"{wanted:g} bytes: on these photographs the levels reach from {old[0]:,.0f} to {old[-1]:,.0f} bytes, "
                f"and can be stretched to {low:,.0f} and {high:,.0f}"
            )
        near = int(np.argmin([abs(one - wanted) for one in old]))
        if abs(old[near] - wanted) <= SAME * wanted:
            found.append(float(near))
            continue
        left, right = -_BEYOND, top + _BEYOND
        for _ in range(_STEPS):
            middle = (left + right) / 2
            left, right = (middle, right) if size(middle) < wanted else (left, middle)
        found.append((left + right) / 2)
    coder = Coder(_tables(tables, found, latents))
    means = [np.mean([len(coder.encode_latent(one, level)) for one in some]) for level in range(len(found))]
    return [Placed(at, wanted, OVERHEAD + float(mean)) for at, wanted, mean in zip(found, sizes, means, strict=True)]


def mean_price(gain_c: NDArray[np.float32], latents: Sequence[NDArray[np.float32]]) -> float:
    """Return about what packets by channel of latents (C, H, W) have under gains, by tables counted on these latents.

    On average, in bytes, and by the tables' own prices: no packet is made.
    """
    seen_lcs = _counted(gain_c[None], latents)
    tables = tables_of(geometric_prior(seen_lcs), seen_lcs, gain_c[None])
    bits = 0.0
    for count_s, freq_s, offset in zip(seen_lcs[0], tables.freq_ks, tables.offset_k, strict=True):
        (column,) = np.nonzero(count_s)
        bits += float(count_s[column] @ (PRECISION_BITS - np.log2(freq_s[column - REACH - offset])))
    return OVERHEAD + _UNEVEN + bits / 8 / len(latents)


def check_sizes(sizes: Sequence[float], *, default: int | None = None) -> None:
    """Refuse sizes, or a default level among them, that make no sense on any photographs. Raises SettingsError."""
    finite = all(OVERHEAD < size < float("inf") for size in sizes)
    if not finite or list(sizes) != sorted(set(sizes)) or not 1 <= len(sizes) <= MAX_LEVELS:
        raise SettingsError(
            f"sizes {list(sizes)}: expected 1 to {MAX_LEVELS} of them, rising, each more than {OVERHEAD} bytes"
        )
    if default is not None and not 0 <= default < len(sizes):
        raise SettingsError(f"default level {default}: expected 0 to {len(sizes) - 1}")


def check_movable(bundle: Bundle) -> None:
    """Refuse a bundle whose levels cannot be moved. Raises BundlePart for a device's half, SettingsError."""
    if bundle.is_device_half:
        raise BundlePart(f"{bundle.ident} is the device's half; levels are for both, so take the whole bundle")
    if len(bundle.tables) > 1:
        raise SettingsError(f"{bundle.ident} has {len(bundle.tables)} table sets; levels can be moved for one alone")


def nearest(placed: Sequence[Placed], level: int) -> int:
    """Return which of the new levels lies nearest to an old one."""
    return min(range(len(placed)), key=lambda one: abs(placed[one].place - level))


def with_levels(
    bundle: Bundle,
    placed: Sequence[Placed],
    latents: Sequence[NDArray[np.float32]],
    *,
    default: int,
    version: int | None = None,
) -> Bundle:
    """Return the bundle with these levels alone, tables counted on latents (C, H, W); nothing is written.

    `default` is the new default level, `version` the new version (none: the next). Both shores need the new bundle, for
    its fingerprint is another. Raises BundlePart for a device's half, SettingsError.
    """
    manifest, tables = bundle.manifest, bundle.tables[0]
    check_movable(bundle)
    if not 0 <= default < len(placed):
        raise SettingsError(f"default level {default}: expected 0 to {len(placed) - 1}")
    file = io.BytesIO()
    _tables(tables, [one.place for one in placed], latents).save(file)
    note = {
        "from": bundle.ident,
        "levels": [one.to_json() for one in placed],
        "photographs": len(latents),
        "splitcodec": splitcodec.__version__,
    }
    number = manifest.version + 1 if version is None else version
    fresh = replace(
        manifest,
        version=number,
        levels=len(placed),
        default_level=default,
        codings=(BY_CHANNEL,),
        provenance={**{k: v for k, v in manifest.provenance.items() if k != "contexts"}, "placed": note},
    )
    files = {manifest.table_sets[0]: file.getvalue()}
    if bundle.has(CARD):
        files[CARD] = _card(bundle, fresh.ident, placed).encode()
    new = derive(bundle, fresh, files=files, without={CONTEXTS})
    return derive(new, new.manifest, files=anew(bundle, new))


def _tables(old: Tables, places: Sequence[float], latents: Sequence[NDArray[np.float32]]) -> Tables:
    """Return the tables of levels at these places among the old ones, counted on latents (C, H, W)."""
    log_gain_lc = np.log(old.gain_lc.astype(np.float64))
    gain_lc = np.stack([_gain_c(old, log_gain_lc, at) for at in places])
    seen_lcs = _counted(gain_lc, latents[:: max(1, len(latents) // COUNTED)][:COUNTED])
    return tables_of(geometric_prior(seen_lcs), seen_lcs, gain_lc)


def _gain_c(tables: Tables, log_gain_lc: NDArray[np.float64], at: float) -> NDArray[np.float32]:
    """Return the gains at a place; those of an old level to the last bit."""
    if at == int(at) and 0 <= at < tables.levels:
        return np.array(tables.gain_lc[int(at)], np.float32)
    gain_c: NDArray[np.float32] = np.exp(gains_at(log_gain_lc, at)).astype(np.float32)
    return gain_c


def _counted(gain_lc: NDArray[np.float32], latents: Sequence[NDArray[np.float32]]) -> Counts:
    seen_lcs = empty_counts(*gain_lc.shape)
    channel_c1 = np.arange(gain_lc.shape[1])[:, None]
    for latent_chw in latents:
        latent_cn = latent_chw.reshape(len(latent_chw), -1)
        for level, gain_c in enumerate(gain_lc):
            column_cn = np.clip(np.rint(latent_cn * gain_c[:, None]), -REACH, REACH).astype(np.int64) + REACH
            np.add.at(seen_lcs[level], (channel_c1, column_cn), 1)
    return seen_lcs


def _card(bundle: Bundle, ident: str, placed: Sequence[Placed]) -> str:
    title, _, rest = bundle.read(CARD).decode(errors="replace").rstrip().partition("\n")
    rest = untold(rest).replace(f" {bundle.manifest.levels} rate levels", f" {len(placed)} rate levels", 1)
    sizes = ", ".join(f"{one.bytes_mean:,.0f}" for one in placed)
    told = (
        f"`splitcodec levels` made of `{bundle.ident}` {len(placed)} levels of {sizes} bytes by channel; levels in a "
        "table above are the earlier ones."
    )
    return f"{title.replace(bundle.ident, ident)}\n{rest}\n\n{told}\n"
