"""What a camera's large JPEG costs a device before its encoder, decoded whole and as `Device` does it.

    python benchmarks/large_pictures.py [--photos DIR] --out reports/large_pictures.json

Small photographs are enlarged to a camera's size (Lanczos) and written as JPEG, for none here are so large; so they
have less detail than a camera's. Times are the fastest of several turns on one thread, medians over photographs; the
share of symbols is at the bundle's default level.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from outcome import exit_code

import numpy as np
from PIL import Image

from report import at_least_one, pictures_of, ready, write
from splitcodec.cli.show import print_table
from splitcodec.device.client import Device
from splitcodec.device.image import load_picture
from splitcodec.errors import SettingsError

SIZES = ((4032, 3024), (1920, 1080))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="efficientnet-lite0", metavar="B")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="default: those of the demo")
    parser.add_argument("--most", type=int, default=20, metavar="N", help="photographs")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quality", type=int, default=92, help="of the JPEG")
    parser.add_argument("--out", type=Path, default=Path("reports/large_pictures.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    at_least_one("--turns", options.turns)
    if not 1 <= options.quality <= 100:
        raise SettingsError(f"--quality {options.quality}; expected 1 to 100")  # Pillow takes others for 75, or for 100
    ready(options.out)
    device = Device(options.bundle, threads=1)
    pictures = pictures_of(options.photos, most=options.most)
    sizes = [_of_size(device, pictures, size, turns=options.turns, quality=options.quality) for size in SIZES]
    report = {"bundle": device.bundle.ident, "photographs": len(pictures), "sizes": sizes}
    write(report, options.out, name="large_pictures.py", options=options)
    columns = ("size", "whole, ms", "as Device does, ms", "grey levels off, mean", "symbols equal, %")
    rows = [
        (
            f"{one['width']} x {one['height']}",
            f"{one['whole_ms']:.1f}",
            f"{one['reduced_ms']:.1f}",
            f"{one['grey_levels_off']:.2f}",
            f"{one['symbols_equal_percent']:.2f}",
        )
        for one in sizes
    ]
    print_table(f"{report['bundle']}, {report['photographs']} photographs, one thread", columns, rows)


def _of_size(
    device: Device, pictures: Sequence[Image.Image], size: tuple[int, int], *, turns: int, quality: int
) -> dict[str, Any]:
    found = [_of_picture(device, _jpeg(picture, size, quality=quality), turns=turns) for picture in pictures]
    whole_ms, reduced_ms, off, equal = (list(column) for column in zip(*found, strict=True))
    return {
        "width": size[0],
        "height": size[1],
        "whole_ms": float(np.median(whole_ms)),
        "reduced_ms": float(np.median(reduced_ms)),
        "grey_levels_off": float(np.mean(off)),
        "symbols_equal_percent": 100 * float(np.mean(equal)),
    }


def _of_picture(device: Device, data: bytes, *, turns: int) -> tuple[float, float, float, float]:
    whole_ms, whole_bhwc = _fastest(lambda: device.crop(load_picture(data)), turns=turns)
    reduced_ms, reduced_bhwc = _fastest(lambda: device.crop(data), turns=turns)
    symbols = [
        device.bundle.tables[0].quantise(device.encoder.latent_chw(seen), device.bundle.manifest.default_level)
        for seen in (whole_bhwc, reduced_bhwc)
    ]
    off = float(np.abs(whole_bhwc.astype(np.int16) - reduced_bhwc).mean())
    return whole_ms, reduced_ms, off, float((symbols[0] == symbols[1]).mean())


def _fastest(work: Callable[[], Any], *, turns: int) -> tuple[float, Any]:
    least, value = float("inf"), None
    for _ in range(turns):
        begin = time.perf_counter()
        value = work()
        least = min(least, time.perf_counter() - begin)
    return 1000 * least, value


def _jpeg(picture: Image.Image, size: tuple[int, int], *, quality: int) -> bytes:
    file = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=quality)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
