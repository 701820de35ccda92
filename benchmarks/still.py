"""Scenes that stand still: how far a packet's latent moves by what is no change, and by what is one.

    python benchmarks/still.py --data DIR [--frames DIR] --out reports/still.json

Photographs below --data stand for what a fixed camera sees (`splitcodec watch --min-change D`). Each is taken twice,
with noise of 2 of 255 and as a JPEG of quality 90; between the two nothing changes but the noise, or there is more of
it, a poorer JPEG, other light, a camera that moved; or a square of another photograph lies somewhere in it. Of each the
percentiles, over photographs, of the change of the place that changes most; beside it how many symbols differ.

--frames has pictures of a fixed camera, in the order of their names. Between each and the one --apart later, places
count as moving where a quarter of their pixels differ by more than 20 of 255, as still where none does there or around.
A film that people walk through, as the figures in docs/field.md have it: `vtest.avi` of Debian's package opencv-doc,
`ffmpeg -i vtest.avi -vf fps=2 frames/%04d.png`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from outcome import exit_code

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from report import at_least_one, ready, write
from splitcodec.ahead import ahead
from splitcodec.cli.show import print_table, progress
from splitcodec.device.client import Device
from splitcodec.device.still import change
from splitcodec.errors import DataError
from splitcodec.evaluation.calibrate import shuffled
from splitcodec.layouts.folders import find_photographs
from splitcodec.wire.bundle import open_bundle

LEAST = 0.6
"""What docs/field.md says to try."""
PERCENTILES = (1, 50, 99)
MOVED = 20
"""By how much of 255 a pixel differs that has moved."""

Pixels = NDArray[np.uint8]
Case = Callable[[Pixels, Pixels, np.random.Generator], Pixels]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--frames", type=Path, metavar="DIR")
    parser.add_argument("--apart", type=int, default=2, metavar="N", help="frames between two that are compared")
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--most", type=int, default=200, help="photographs")
    parser.add_argument("--threads", type=int, default=2, help="photographs at a time")
    parser.add_argument("--out", type=Path, default=Path("reports/still.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    for option in ("most", "apart"):
        at_least_one(f"--{option}", getattr(options, option))
    at_least_one("--threads", options.threads)
    ready(options.out)
    report = measure(options.bundle, options.data, most=options.most, threads=options.threads)
    if options.frames is not None:
        report["camera"] = camera(options.bundle, options.frames, apart=options.apart)
    write(report, options.out, name="still.py", options=options)
    rows = [
        (name, *(f"{one['change'][f'p{n}']:.2f}" for n in PERCENTILES), f"{one['taken']:.1f}", one["differ"])
        for name, one in report["cases"].items()
    ]
    titles = ("between the two", *(f"change, {n} %" for n in PERCENTILES), f"taken at {LEAST}, %", "symbols differ, %")
    print_table(f"{report['bundle']}, {report['photographs']} photographs", titles, rows)
    for name, one in report.get("camera", {}).get("places", {}).items():
        print(f"{name} places of a fixed camera: {one['count']:,}, changed by {one['change']}")


def measure(bundle: str, data: Path, *, most: int, threads: int) -> dict[str, Any]:
    """Return the report. Raises DataError for no photographs, PictureError for a file that is none."""
    opened, paths = open_bundle(bundle), shuffled([data])[:most]
    device, gain_c = Device(opened, threads=1), opened.tables[0].gain_lc[opened.manifest.default_level]

    def scaled(pixels: Pixels) -> NDArray[np.float32]:
        latent_chw: NDArray[np.float32] = device.encoder.latent_chw(pixels[None]) * gain_c[:, None, None]
        return latent_chw

    def moved(number: int) -> dict[str, tuple[float, float]]:
        chance = np.random.default_rng(number)
        scene, other = (device.crop(paths[place % len(paths)])[0] for place in (number, number + 1))
        before, found = scaled(_taken(scene, chance)), {}
        for name, case in CASES.items():
            after = scaled(case(scene, other, chance))
            found[name] = change(before, after), 100 * float((np.rint(after) != np.rint(before)).mean())
        return found

    came = []
    with progress() as bar:
        task = bar.add_task("photographs", total=len(paths))
        for one in ahead(moved, range(len(paths)), threads=threads):
            came.append(one)
            bar.advance(task)
    return {
        "bundle": opened.ident,
        "level": opened.manifest.default_level,
        "photographs": len(paths),
        "least": LEAST,
        "cases": {name: _told([one[name] for one in came], changed=name in CHANGES) for name in CASES},
    }


def camera(bundle: str, folder: Path, *, apart: int) -> dict[str, Any]:
    """Return how far still and moving places of a fixed camera's pictures move.

    Raises DataError for too few pictures, PictureError for a file that is none.
    """
    opened = open_bundle(bundle)
    device, gain_c = Device(opened, threads=1), opened.tables[0].gain_lc[opened.manifest.default_level]
    paths = sorted(find_photographs([folder]))
    if len(paths) <= apart:
        raise DataError(f"{folder}: {len(paths)} pictures, which cannot lie {apart} apart; give more of them")
    before: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    places: dict[str, list[float]] = {"still": [], "moving": []}
    for path in paths:
        crop = device.crop(path)
        latent_chw = device.encoder.latent_chw(crop) * gain_c[:, None, None]
        before.append((latent_chw, crop[0].mean(axis=2, dtype=np.float32)))
        if len(before) > apart:
            (old_chw, old_hw), (new_chw, new_hw) = before.pop(0), before[-1]
            moved = np.sqrt(np.square(new_chw - old_chw).mean(axis=0))
            share = _blocks(np.abs(new_hw - old_hw) > MOVED, moved.shape)
            around = np.lib.stride_tricks.sliding_window_view(np.pad(share, 1), (3, 3)).max(axis=(2, 3))
            places["still"] += moved[around == 0].tolist()
            places["moving"] += moved[share > 1 / 4].tolist()
    return {
        "pictures": len(paths),
        "apart": apart,
        "places": {
            name: {
                "count": len(found),
                "change": {f"p{n}": round(float(np.percentile(found, n)), 3) for n in PERCENTILES} if found else {},
            }
            for name, found in places.items()
        },
    }


def _blocks(moving_hw: NDArray[np.bool_], grid: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the share of moving pixels of each place of a grid."""
    rows, cols = grid
    high, wide = (side // number for side, number in zip(moving_hw.shape, grid, strict=True))
    cut = moving_hw[: rows * high, : cols * wide].reshape(rows, high, cols, wide)
    share: NDArray[np.float64] = cut.mean(axis=(1, 3))
    return share


def _told(found: Sequence[tuple[float, float]], *, changed: bool) -> dict[str, Any]:
    moved, differ = np.array(found).T
    return {
        "is_change": changed,
        "change": {f"p{n}": round(float(np.percentile(moved, n)), 3) for n in PERCENTILES},
        "taken": round(100 * float((moved >= LEAST).mean()), 1),
        "differ": round(float(differ.mean()), 1),
    }


def _taken(pixels: Pixels, chance: np.random.Generator, *, noise: float = 2.0, quality: int = 90) -> Pixels:
    """Return what a camera makes of a scene."""
    seen = np.clip(np.rint(pixels + chance.normal(0, noise, pixels.shape)), 0, 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(seen).save(file, "JPEG", quality=quality)
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def _light(factor: float) -> Case:
    return lambda scene, _, chance: _taken(np.clip(scene * factor, 0, 255).astype(np.uint8), chance)


def _shifted(pixels: int) -> Case:
    return lambda scene, _, chance: _taken(np.roll(scene, pixels, axis=1), chance)


def _with(share: float) -> Case:
    """Return a case in which something has come that takes a share of the picture."""

    def case(scene: Pixels, other: Pixels, chance: np.random.Generator) -> Pixels:
        side = round(len(scene) * share**0.5)
        top, left = (int(chance.integers(0, long - side + 1)) for long in scene.shape[:2])
        there = scene.copy()
        there[top : top + side, left : left + side] = np.asarray(Image.fromarray(other).resize((side, side)))
        return _taken(there, chance)

    return case


CHANGES: dict[str, Case] = {
    f"something that takes {share:g} % of the picture": _with(share / 100) for share in (0.5, 1, 2, 5, 10)
}
CASES: dict[str, Case] = {
    "noise as before": lambda scene, _, chance: _taken(scene, chance),
    "noise of 4": lambda scene, _, chance: _taken(scene, chance, noise=4),
    "noise of 8": lambda scene, _, chance: _taken(scene, chance, noise=8),
    "JPEG of quality 75": lambda scene, _, chance: _taken(scene, chance, quality=75),
    "3 % more light": _light(1.03),
    "10 % more light": _light(1.10),
    "20 % less light": _light(0.8),
    "moved by 1 pixel": _shifted(1),
    "moved by 3 pixels": _shifted(3),
    **CHANGES,
}


if __name__ == "__main__":
    sys.exit(main())
