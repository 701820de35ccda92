"""Beside stage 1 of 7: what of a picture the network sees, and at which sizes.   inside: image.py   used by: client.py

A picture is taken smaller than its view wants only to force a packet into its limit: dropping most of the symbols of a
large picture leaves nothing to recognise, all symbols of a small one do (docs/LOG.md, "222 bytes"). Where the picture
lies in what was sent is known at every size, so boxes and label maps find back to its own pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.device.image import Picture, load_reduced, name_of
from splitcodec.device.placed import Letterbox, crop_bhwc, crop_place, letterbox_bhwc, letterbox_place
from splitcodec.errors import PictureTooLarge, SettingsError
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.given import whole
from splitcodec.wire.task import TaskSpec, file_name

SMALLEST_SIDE: Final = 0.4
"""Of the view's full side, how far a picture may shrink."""

REDUCED: Final = 2
"""Times the side that the network sees, as which a JPEG may be decoded at the least."""

Fit = Literal["crop", "letterbox"]


@final
class View:
    """One picture, cut out of the middle ("crop") or whole ("letterbox"), at its full side or smaller.

    A JPEG much larger than that is decoded smaller.
    `side` is the full one in pixels: the bundle's crop, or a letterbox's longest side (none: as the bundle's tasks want
    it); `specs` are those tasks. Raises SettingsError for a fit or side that the bundle does not take, PictureError.
    """

    def __init__(
        self,
        bundle: Bundle,
        picture: Picture,
        *,
        specs: Sequence[TaskSpec],
        fit: Fit = "crop",
        side: int | None = None,
    ) -> None:
        self.side = full_side(bundle, specs=specs, fit=fit, side=side)
        self._bundle, self._fit = bundle, fit
        manifest = bundle.manifest
        self._multiple = _multiple(bundle, specs)
        whole = fit == "letterbox"
        least = REDUCED * (self.side if whole else manifest.resize)
        self._picture, times = load_reduced(picture, least=least, longest=whole)
        self._name = name_of(picture)
        width, height = self._picture.size
        self._size = width * times, height * times

    @property
    def sides(self) -> list[int]:
        """Return the sides in pixels at which a forced picture may be encoded, the full one first."""
        stride = self._bundle.manifest.stride
        step = math.lcm(2 * stride, self._multiple)  # so that the maps of all tasks are whole
        least = max(SMALLEST_SIDE * self.side, 4 * stride)
        return [self.side, *(side for side in range(self.side // step * step, 0, -step) if least <= side < self.side)]

    def pixels_bhwc(self, side: int) -> NDArray[np.uint8]:
        """Return what the network sees at one of `sides`: uint8 (1, rows, cols, 3). Raises PictureTooLarge."""
        (rows, cols), most = self.grid(side), self._bundle.manifest.max_symbols
        if (symbols := rows * cols * self._bundle.manifest.channels) > most:  # which no edge would take
            raise PictureTooLarge(
                f"{self._name}: at a side of {side} pixels it is {symbols} symbols, {self._bundle.ident} takes {most}; "
                "give a smaller side"
            )
        if self._fit == "crop":
            return crop_bhwc(self._picture, resize=self._resize(side), crop=side, name=self._name)
        return letterbox_bhwc(self._picture, side=side, multiple=self._multiple)[0]

    def place(self, side: int) -> Letterbox:
        """Return where the picture lies in what the network sees at one of `sides`."""
        if self._fit == "crop":
            return crop_place(self._size, resize=self._resize(side), crop=side)
        return letterbox_place(self._size, side=side, multiple=self._multiple)

    def grid(self, side: int) -> tuple[int, int]:
        """Return the rows and columns of the latent at one of `sides`; unpadded convolutions may differ by one."""
        place, stride = self.place(side), self._bundle.manifest.stride
        return place.rows // stride, place.cols // stride

    def _resize(self, side: int) -> int:
        manifest = self._bundle.manifest
        return round(manifest.resize * side / manifest.crop)


def full_side(bundle: Bundle, *, specs: Sequence[TaskSpec], fit: Fit, side: int | None) -> int:
    """Return a view's full side in pixels, whatever the picture. Raises SettingsError as `View`."""
    manifest = bundle.manifest
    if fit not in ("crop", "letterbox"):
        raise SettingsError(f"fit {fit!r}; expected 'crop' or 'letterbox'")
    if fit == "crop":
        if side is not None:
            raise SettingsError(f"side {side} is that of a whole picture; give fit='letterbox' too, or no side")
        return manifest.crop
    wanted = max((spec.side for spec in specs), default=manifest.crop) if side is None else side
    multiple = _multiple(bundle, specs)
    most = manifest.max_side // multiple * multiple
    if whole(wanted) is None or not manifest.stride <= wanted <= most:
        raise SettingsError(f"side {wanted!r:.40}; {bundle.ident} takes {manifest.stride} to {most}")
    return wanted


def _multiple(bundle: Bundle, specs: Sequence[TaskSpec]) -> int:
    return math.lcm(bundle.manifest.stride, *(spec.multiple for spec in specs))


def task_specs(bundle: Bundle) -> list[TaskSpec]:
    """Return what the bundle says of its tasks beside classification. Raises BundleHash, BundleFormat."""
    return [bundle.task(task) for task in bundle.manifest.tasks if bundle.has(file_name(task))]
