"""What encoding costs on one thread, as ratios in one run: the whole network, our encoders, and image codecs.

    python benchmarks/encode.py [--bundle B] [--photos DIR] --out reports/encode.json

Stages are run in turns, picture by picture, so that a busy moment hits all of them, each twice, of which the second is
timed; of every stage the median over pictures of the fastest turn counts. "network" is head.onnx and tail_classify.onnx
in ONNX Runtime on the crop; ours is encoder and entropy coding at the default level, from the crop to the packet, with
either coder; JPEG and WebP (method 4) are Pillow's, from the crop to the file, at --quality.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from report import pictures_of, write
from splitcodec.cli.show import complain, print_table
from splitcodec.device.client import Device
from splitcodec.errors import SplitcodecError
from splitcodec.evaluation.agreement import KINDS, has_int8
from splitcodec.session import Graph
from splitcodec.wire.bundle import Bundle, open_bundle

TARGETS = {"of_network": 1 / 6, "of_webp": 1.0, "aim_of_network": 1 / 15, "aim_of_jpeg": 1.2}
Crop = NDArray[np.uint8]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="default: those of the demo")
    parser.add_argument("--most", type=int, default=20, metavar="N", help="photographs")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--quality", type=int, default=20, help="of JPEG and WebP")
    parser.add_argument("--out", type=Path, default=Path("reports/encode.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        report = measure(options)
        write(report, options.out, name="encode.py", options=options)
    except SplitcodecError as error:
        complain(error)
        return 2
    rows = [(name, f"{ms:.3f}") for name, ms in report["ms"].items()]
    print_table(f"{report['bundle']}, one thread", ("stage", "ms"), rows)
    print(json.dumps(report["ratios"], indent=1))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the report."""
    bundle = open_bundle(options.bundle)
    stages = _stages(bundle, quality=options.quality)
    cropper = Device(bundle, threads=1)
    crops = [cropper.crop(picture) for picture in pictures_of(options.photos, most=options.most)]
    best: dict[str, list[float]] = {name: [] for name in stages}
    for crop in crops:
        fastest = dict.fromkeys(stages, float("inf"))
        for _ in range(options.turns):
            for name, stage in stages.items():
                stage(crop)  # its data into the caches, which the stage before has filled with its own
                begin = time.perf_counter()
                stage(crop)
                fastest[name] = min(fastest[name], time.perf_counter() - begin)
        for name, seconds in fastest.items():
            best[name].append(1000 * seconds)
    ms = {name: float(np.median(found)) for name, found in best.items()}
    ours = {name: value for name, value in ms.items() if name.startswith("encode ")}
    return {
        "bundle": bundle.ident,
        "encoder": dict(bundle.manifest.encoder),
        "level": bundle.manifest.default_level,
        "photographs": len(crops),
        "ms": ms,
        "ratios": {
            name: {f"of_{rival}": value / ms[rival] for rival in ("network", "jpeg", "webp")}
            for name, value in ours.items()
        },
        "targets": TARGETS,
    }


def _stages(bundle: Bundle, *, quality: int) -> dict[str, Callable[[Crop], object]]:
    head = Graph(bundle.read("head.onnx"), name="head.onnx", threads=1)
    tail = Graph(bundle.read("tail_classify.onnx"), name="tail_classify.onnx", threads=1)
    stages: dict[str, Callable[[Crop], object]] = {"network": lambda crop: tail(head(crop))}
    for kind in KINDS if has_int8(bundle) else KINDS[:1]:
        for plain, coder in ((False, "constriction"), (True, "plain")):
            device = Device(bundle, threads=1, encoder=kind, plain_coder=plain)
            stages[f"encode {kind}, {coder}"] = partial(_encode, device)
        stages[f"encoder {kind} alone"] = device.encoder.latent_chw
    stages["jpeg"] = partial(_save, format="JPEG", quality=quality)
    stages["webp"] = partial(_save, format="WEBP", quality=quality, method=4)
    return stages


def _encode(device: Device, crop: Crop) -> bytes:
    level = device.bundle.manifest.default_level
    return device.pack(device.bundle.tables[0].quantise(device.encoder.latent_chw(crop), level), level=level)


def _save(crop: Crop, **settings: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(crop[0]).save(file, **settings)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
