"""What encoding costs on one thread, as ratios in one run: the whole network, our encoders, and image codecs.

    python benchmarks/encode.py [--bundles B,...] [--photos DIR] [--rates rd.json] --out reports/encode.json

Stages are run in turns, picture by picture, so that a busy moment hits all of them, each twice, of which the second is
timed; of every stage the median over pictures of the fastest turn counts. "network" is head.onnx and tail_classify.onnx
in ONNX Runtime on the crop; ours is encoder and entropy coding at the default level, from the crop to the packet, by
channel with either coder, and by context where the bundle has that; JPEG and WebP (method 4) are Pillow's, from the
crop to the file, at equal accuracy: the setting of the fewest bytes whose top-1 in rd.json is at least our level's
there, at a lower resolution where that was cheapest (scaling then counts as well). rd.json is written by
benchmarks/rate_accuracy.py, all these bundles in one run.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from outcome import exit_code

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latency_parts.choose import Choice, Rates
from report import at_least_one, pictures_of, ready, write
from splitcodec.cli.show import print_table
from splitcodec.device.client import Device
from splitcodec.errors import DataError, SettingsError
from splitcodec.evaluation.agreement import KINDS, has_int8
from splitcodec.evaluation.sweep import scaled
from splitcodec.session import Graph
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.coder import BY_CHANNEL, BY_CONTEXT

TARGETS = {"of_network": 1 / 6, "of_webp": 1.0, "aim_of_network": 1 / 15, "aim_of_jpeg": 1.2}
CODECS: dict[str, dict[str, Any]] = {"jpeg": {"format": "JPEG"}, "webp": {"format": "WEBP", "method": 4}}
RATES = Path("reports/rate_accuracy/rd.json")
Crop = NDArray[np.uint8]
Stages = dict[str, Callable[[Crop], object]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", default="efficientnet-lite0", metavar="B,...")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="default: those of the demo")
    parser.add_argument("--most", type=int, default=20, metavar="N", help="photographs")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--rates", type=Path, default=RATES, metavar="FILE", help=f"default: {RATES}")
    parser.add_argument("--out", type=Path, default=Path("reports/encode.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    ready(options.out)
    report = measure(options)
    write(report, options.out, name="encode.py", options=options)
    for name, one in report["bundles"].items():
        rows = [(stage, f"{ms:.3f}") for stage, ms in one["ms"].items()]
        print_table(f"{name}, level {one['level']}, one thread", ("stage", "ms"), rows)
        print(json.dumps({"rivals": one["rivals"], "ratios": one["ratios"]}, indent=1))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the report. Raises SettingsError, and DataError for a bundle or codec that rd.json does not know."""
    at_least_one("--turns", options.turns)
    rates = Rates(options.rates)
    bundles = [open_bundle(name.strip()) for name in options.bundles.split(",") if name.strip()]
    if not bundles:
        raise SettingsError("--bundles names no bundle; give a zoo name, a folder or a .zip")
    rivals = {bundle.ident: _rivals(bundle, rates) for bundle in bundles}
    stages = {bundle.ident: _stages(bundle, rivals[bundle.ident]) for bundle in bundles}
    croppers = {bundle.ident: Device(bundle, threads=1).crop for bundle in bundles}
    pictures = pictures_of(options.photos, most=options.most)
    best: dict[str, dict[str, list[float]]] = {ident: {name: [] for name in some} for ident, some in stages.items()}
    for picture in pictures:
        crops = {ident: crop(picture) for ident, crop in croppers.items()}
        for ident, found in _fastest(stages, crops, turns=options.turns).items():
            for name, seconds in found.items():
                best[ident][name].append(1000 * seconds)
    return {
        "photographs": len(pictures),
        "rates": {"commit": rates.commit, "images": rates.images, "teacher_top1": rates.teacher_top1},
        "bundles": {
            bundle.ident: _summary(bundle, rates, rivals=rivals[bundle.ident], found=best[bundle.ident])
            for bundle in bundles
        },
        "targets": TARGETS,
    }


def _fastest(stages: dict[str, Stages], crops: dict[str, Crop], *, turns: int) -> dict[str, dict[str, float]]:
    """Return the seconds of each stage's fastest turn on one picture."""
    fastest = {ident: dict.fromkeys(some, float("inf")) for ident, some in stages.items()}
    for _ in range(turns):
        for ident, some in stages.items():
            for name, stage in some.items():
                stage(crops[ident])  # its data into the caches, which the stage before has filled with its own
                begin = time.perf_counter()
                stage(crops[ident])
                fastest[ident][name] = min(fastest[ident][name], time.perf_counter() - begin)
    return fastest


def _rivals(bundle: Bundle, rates: Rates) -> dict[str, Choice]:
    """Return each codec's cheapest setting that scores at least what our default level does."""
    ours = rates.of_level(bundle.ident, bundle.manifest.default_level)
    found = {name: rates.choose(name, within=rates.teacher_top1 - ours.top1) for name in CODECS}
    missing = [name for name, choice in found.items() if choice is None]
    if missing:
        raise DataError(f"{rates.path} has no points of {', '.join(missing)}; measure with --codecs jpeg,webp")
    return {name: choice for name, choice in found.items() if choice is not None}


def _summary(
    bundle: Bundle, rates: Rates, *, rivals: dict[str, Choice], found: dict[str, list[float]]
) -> dict[str, Any]:
    ms = {name: float(np.median(some)) for name, some in found.items()}
    level = bundle.manifest.default_level
    ours = rates.of_level(bundle.ident, level)
    return {
        "encoder": dict(bundle.manifest.encoder),
        "level": level,
        "bytes_mean": ours.bytes_mean,
        "top1": ours.top1,
        "rivals": {
            name: {key: value for key, value in asdict(choice).items() if key not in ("method", "trained", "read_off")}
            for name, choice in rivals.items()
        },
        "ms": ms,
        "ratios": {
            name: {f"of_{rival}": value / ms[rival] for rival in ("network", *CODECS)}
            for name, value in ms.items()
            if name.startswith("encode ")
        },
    }


def _stages(bundle: Bundle, rivals: dict[str, Choice]) -> Stages:
    head = Graph(bundle.read("head.onnx"), name="head.onnx", threads=1)
    tail = Graph(bundle.read("tail_classify.onnx"), name="tail_classify.onnx", threads=1)
    stages: Stages = {"network": lambda crop: tail.outputs(head(crop))[tail.output_names[0]]}
    for kind in KINDS if has_int8(bundle) else KINDS[:1]:
        for plain, coder in ((False, "constriction"), (True, "plain")):
            device = Device(bundle, threads=1, encoder=kind, plain_coder=plain, coding=BY_CHANNEL)
            stages[f"encode {kind}, {coder}"] = partial(_encode, device)
        if bundle.contexts is not None:
            stages[f"encode {kind}, constriction, by context"] = partial(
                _encode, Device(bundle, threads=1, encoder=kind, plain_coder=False, coding=BY_CONTEXT)
            )
        stages[f"encoder {kind} alone"] = device.encoder.latent_chw
    for name, choice in rivals.items():
        quality, side = choice.dial
        stages[name] = partial(_save, side=side, quality=quality, **CODECS[name])
    return stages


def _encode(device: Device, crop: Crop) -> bytes:
    level = device.bundle.manifest.default_level
    return device.pack_latent(device.encoder.latent_chw(crop), level=level)


def _save(crop: Crop, *, side: int | None, **settings: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(scaled([crop[0]], side)[0]).save(file, **settings)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
