"""What the factorized prior is worth: our bundle's latents without one, 8 bits and deflate, on the same photographs.

    python benchmarks/ablations.py --data DIR --out reports/ablation_prior.json
    python benchmarks/rate_accuracy.py --data DIR --points reports/ablation_prior.json

Two ways to do without: "gains, deflate" keeps the symbols of each level as bytes and packs them by zlib at level 9, so
answers are those of our packets (coded by channel: by the prior alone) and bytes alone differ; "uniform, deflate" does
without the learned gains as well and quantises the latent uniformly over its range in each picture, to 8 bits and
fewer. Both are charged the 12 bytes of header and checksum that packets have, the latter 8 more for the range. Channels
lie one after another, or interleaved: whichever packs better. The other ablations are trainings of their own:
recipes/ablations/, rivals in the arena.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outcome import exit_code

import numpy as np
from numpy.typing import NDArray

from report import ready, write
from splitcodec.cli.show import complain, progress
from splitcodec.device.client import Device
from splitcodec.edge.tail import Tail
from splitcodec.errors import DataError, PictureError
from splitcodec.evaluation.bd import bd_rate
from splitcodec.evaluation.hull import upper_hull
from splitcodec.evaluation.labels import labelled_pictures
from splitcodec.session import Graph
from splitcodec.wire.bundle import open_bundle
from splitcodec.wire.coder import BY_CHANNEL

FRAME, RANGE = 12, 8  # bytes
STEPS = (256, 64, 32, 16, 8, 4)
OURS, GAINS, UNIFORM = "splitcodec", "gains, deflate", "uniform, deflate"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled photographs, as `evaluate`")
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--out", type=Path, default=Path("reports/ablation_prior.json"), metavar="FILE")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    ready(options.out)
    body = measure(options.data, bundle=options.bundle, threads=options.threads)
    write(body, options.out, name="ablations.py", options=options)
    for point in [*body["ours"], *body["points"]]:
        print(f"{point['method']}, {point['setting']}: {point['bytes_mean']:,.0f} bytes, top-1 {point['top1']:.2f} %")
    for method, percent in body["bd_rate"].items():
        print(f"bytes of packets against {method}: {'-' if percent is None else f'{percent:+.1f} %'}")


def measure(data: Path, *, bundle: str, threads: int) -> dict[str, Any]:
    """Return the points file; `ours`, the bundle's own packets, beside it."""
    opened = open_bundle(bundle)
    device = Device(opened, threads=threads, coding=BY_CHANNEL)  # contexts are more than the prior
    tables = opened.tables[0]
    decoder = Graph(opened.graph("decoder"), name="decoder.onnx", threads=threads)
    head = Graph(opened.graph("head"), name="head.onnx", threads=threads)
    tail = Tail(opened, "classify", threads=threads)
    pictures = labelled_pictures(data, opened.manifest)
    found: dict[tuple[str, str], list[tuple[int, bool]]] = {}
    teacher: list[bool] = []

    def top(feature_bchw: NDArray[np.float32]) -> int:
        return tail.classify(feature_bchw, top=1)[0][0]["index"]

    with progress() as bar:
        task = bar.add_task("coding", total=len(pictures), note="")
        for picture in pictures:
            bar.advance(task)
            try:
                crop_bhwc = device.crop(picture.path)
            except PictureError as error:
                complain(error)
                continue
            teacher.append(top(head(crop_bhwc)) == picture.index)
            latent_chw = device.encoder.latent_chw(crop_bhwc)
            for level in range(opened.manifest.levels):
                symbols_chw = tables.quantise(latent_chw, level)
                seen_chw = tables.dequantise(symbols_chw, level)
                right = top(decoder(seen_chw[None])) == picture.index
                size = len(device.pack(symbols_chw, level=level))
                found.setdefault((OURS, f"level {level}"), []).append((size, right))
                found.setdefault((GAINS, f"level {level}"), []).append((FRAME + deflated(symbols_chw), right))
            for steps in STEPS:
                seen_chw, size = uniform(latent_chw, steps=steps)
                right = top(decoder(seen_chw[None])) == picture.index
                found.setdefault((UNIFORM, f"{steps} steps"), []).append((FRAME + RANGE + size, right))
    if not teacher:
        raise DataError(f"none of {len(pictures)} pictures in {data} can be read; give others")
    points = [
        {
            "method": method,
            "setting": setting,
            "bytes_mean": float(np.mean([size for size, _ in some])),
            "payload_mean": float(np.mean([size for size, _ in some])) - FRAME,
            "top1": 100 * float(np.mean([right for _, right in some])),
        }
        for (method, setting), some in found.items()
    ]
    score = 100 * float(np.mean(teacher))
    return {
        "images": len(teacher),
        "points": [point for point in points if point["method"] != OURS],
        "ours": [point for point in points if point["method"] == OURS],
        "teacher_top1": score,
        "bd_rate": {method: _bd_rate(points, method, teacher=score) for method in (GAINS, UNIFORM)},
        "bundle": opened.ident,
        "data": data.resolve().name,
    }


def deflated(symbols_chw: NDArray[np.int32]) -> int:
    """Return the bytes of symbols as 8-bit numbers, packed by zlib; those of more than 8 bits count as 16."""
    small = symbols_chw.min() >= -128 and symbols_chw.max() <= 127
    values_chw = symbols_chw.astype(np.int8 if small else "<i2")
    orders = values_chw, np.moveaxis(values_chw, 0, -1)
    return min(len(zlib.compress(np.ascontiguousarray(one).tobytes(), 9)) for one in orders)


def uniform(latent_chw: NDArray[np.float32], *, steps: int) -> tuple[NDArray[np.float32], int]:
    """Return a latent quantised uniformly over its range, as the decoder sees it, and its packed bytes."""
    low, high = float(latent_chw.min()), float(latent_chw.max())
    scale = max(high - low, 1e-6) / (steps - 1)
    symbols_chw = np.rint((latent_chw - low) / scale).astype(np.int32)
    seen_chw = (symbols_chw * scale + low).astype(np.float32)
    return seen_chw, deflated(symbols_chw - steps // 2)


def _bd_rate(points: Sequence[dict[str, Any]], method: str, *, teacher: float) -> float | None:
    ours, theirs = (
        upper_hull((one["bytes_mean"], one["top1"]) for one in points if one["method"] == name)
        for name in (OURS, method)
    )
    value = bd_rate(theirs, ours, teacher=teacher).value
    return None if value is None else round(value, 2)


if __name__ == "__main__":
    sys.exit(main())
