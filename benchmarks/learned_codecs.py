"""Points of the hyperprior image codec for the arena: finished runs of recipes/rivals/hyperprior_*.yaml.

    python benchmarks/learned_codecs.py --data DIR --out reports/hyperprior.json runs/hyperprior_*
    python benchmarks/rate_accuracy.py --data DIR --points reports/hyperprior.json

No packet carries a hyperprior: each symbol's table hangs on a float network that both shores would have to compute
alike. So its bytes are those of our entropy coder's stream in the frame of our packets (8 bytes of header, 4 of
checksum), with tables chosen on this machine: for the hyper-latent integer tables by channel, then for each symbol of
the latent one of 64 normal distributions. That is what it costs where both shores are the same machine.
The picture comes back in 8 bits and the unmodified network (head and tail of --bundle) reads it. The factorized codec
needs none of this: its runs export to bundles (`splitcodec export`) and are rivals like any other.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from outcome import exit_code

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from report import ready, save
from splitcodec.cli.show import complain, progress
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import DataError, PictureError, RecipeError
from splitcodec.evaluation.labels import labelled_pictures
from splitcodec.evaluation.machine import commit, machine
from splitcodec.evaluation.rivals import held, total, trainings
from splitcodec.model.hyperprior import SCALES, Hyperprior, Symbols
from splitcodec.model.pictures import EightBitColours
from splitcodec.model.student import Student
from splitcodec.training.build import build_student, build_teacher
from splitcodec.training.graphs import FromPixels, cost, folded
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run
from splitcodec.wire.bundle import open_bundle
from splitcodec.wire.coder import Coder
from splitcodec.wire.tables import Tables, quantise_mass

FRAME = 12  # bytes of header and checksum around the payload, as our packets have
REACH = 2047  # largest symbol that has a column
TAIL = 1e-9  # mass of a distribution outside its table
METHOD = "hyperprior"
_TOTALS = {"images_seen": "images", "seconds": "seconds", "processor_seconds": "processor_seconds"}


@dataclass(frozen=True)
class Codec:
    """One trained run: networks and integer tables."""

    name: str
    student: Student
    neck: Hyperprior
    recipe: Recipe
    report: dict[str, Any]
    rows: Tables
    """A row for each channel of the hyper-latent, then one for each of `SCALES`."""
    colours: EightBitColours


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled photographs, as `evaluate`")
    parser.add_argument("--bundle", default="efficientnet-lite0", help="whose head and tail read the pictures")
    parser.add_argument("--out", type=Path, default=Path("reports/hyperprior.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    ready(options.out)
    body = measure([load(run) for run in options.runs], data=options.data, bundle=options.bundle)
    save(body, options.out)
    for point in body["points"]:
        print(f"{point['setting']}: {point['bytes_mean']:,.0f} bytes, top-1 {point['top1']:.2f} %")


def load(folder: Path) -> Codec:
    """Open a finished run. Raises RecipeError for a run of another kind, RunError without weights."""
    if not (folder / "recipe.yaml").exists():
        raise RecipeError(f"no run in {folder}; train recipes/rivals/hyperprior_0.025.yaml first")
    run = Run(folder)
    recipe, report = run.recipe(), run.report()
    if recipe.student.kind != "hyperprior":
        raise RecipeError(f"{folder} is a run of kind {recipe.student.kind}, not hyperprior; export it to a bundle")
    student = build_student(recipe, build_teacher(recipe))
    student.load_state_dict(run.weights())
    student.eval()
    neck = student.bottleneck
    if not isinstance(neck, Hyperprior):
        raise RecipeError(f"{folder}: no hyperprior")
    step_c, offset_c = recipe.teacher.colours()
    colours = EightBitColours(torch.tensor(step_c), torch.tensor(offset_c))
    return Codec(recipe.name, student, neck, recipe, report, tables_of(neck), colours)


def measure(codecs: Sequence[Codec], *, data: Path, bundle: str) -> dict[str, Any]:
    """Return the points file: a point per run, and what the largest encoder costs."""
    names = [one.name for one in codecs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RecipeError(f"several runs of {', '.join(sorted(twice))}; give one of each recipe")
    opened = open_bundle(bundle)
    device, edge = Device(opened), Edge(opened)
    pictures = labelled_pictures(data, opened.manifest)
    sizes: dict[str, list[int]] = {one.name: [] for one in codecs}
    right: dict[str, list[bool]] = {one.name: [] for one in codecs}
    seconds = dict.fromkeys(sizes, 0.0)
    with progress() as bar:
        task = bar.add_task("coding", total=len(pictures), note="")
        for picture in pictures:
            bar.advance(task)
            try:
                crop_hwc = device.crop(picture.path)[0]
            except PictureError as error:
                complain(error)
                continue
            for codec in codecs:
                begin = time.perf_counter()
                symbols = code(codec, crop_hwc)
                sizes[codec.name].append(bytes_of(codec, symbols))
                seconds[codec.name] += time.perf_counter() - begin
                back = edge.picture_answer(decode(codec, symbols)[None], top=1)
                right[codec.name].append(back["answers"]["classify"][0]["index"] == picture.index)
    if not all(sizes.values()):
        raise DataError(f"none of {len(pictures)} pictures in {data} can be read; give others")
    points = [
        {
            "method": METHOD,
            "setting": name,
            "bytes_mean": float(np.mean(sizes[name])),
            "payload_mean": float(np.mean(sizes[name])) - FRAME,
            "top1": 100 * float(np.mean(right[name])),
            "encode_ms": 1000 * seconds[name] / len(sizes[name]),
        }
        for name in sizes
    ]
    return {
        "images": len(sizes[names[0]]),
        "points": points,
        "encoders": {METHOD: encoder(codecs)},
        "bundle": opened.ident,
        "machine": machine(),
        "commit": commit(),
        "note": "bytes of our entropy coder and frame, with tables chosen by float networks on one machine",
    }


def code(codec: Codec, crop_hwc: NDArray[np.uint8]) -> Symbols:
    """Return the symbols of a crop uint8 (H, W, 3)."""
    step, offset = codec.colours.get_buffer("step"), codec.colours.get_buffer("offset")
    image = torch.from_numpy(crop_hwc.copy()).permute(2, 0, 1)[None].float() * step + offset
    with torch.no_grad():
        return codec.neck.symbols(codec.student.latent(image))


def decode(codec: Codec, symbols: Symbols) -> NDArray[np.uint8]:
    """Return the picture uint8 (H, W, 3) that comes back."""
    step, offset = codec.colours.get_buffer("step"), codec.colours.get_buffer("offset")
    with torch.no_grad():
        image: Tensor = codec.colours(codec.student.decoder(symbols.latent_bchw))
    pixels = torch.round((image - offset) / step)[0].permute(1, 2, 0)
    return pixels.numpy().astype(np.uint8)


def stream(codec: Codec, symbols: Symbols) -> tuple[Coder, NDArray[np.int32]]:
    """Return a coder with the row of every symbol of one picture, and the symbols, the hyper-latent's first.

    A decoder knows the rows of the others once it has decoded those.
    """
    second_cn = symbols.second_bchw[0].flatten(1).numpy()
    first_n, scale_n = symbols.first_bchw.flatten().numpy(), symbols.scale_bchw.flatten().numpy()
    width, each = second_cn.shape
    row_n = np.concatenate([np.repeat(np.arange(width), each), width + scale_n]).astype(np.int32)
    gain_lc = np.ones((1, len(row_n)), np.float32)
    tables = replace(codec.rows, table_of_lxc=row_n[None, None], gain_lc=gain_lc)
    return Coder(tables, plain=True), tables.clip(np.concatenate([second_cn.ravel(), first_n])[:, None, None], 0)


def bytes_of(codec: Codec, symbols: Symbols) -> int:
    """Return the bytes of one picture: its stream, and the frame of a packet."""
    coder, symbols_n = stream(codec, symbols)
    return FRAME + len(coder.encode(symbols_n, 0))


def tables_of(neck: Hyperprior) -> Tables:
    """Return the integer tables of the hyper-latent's channels and of the 64 normal distributions."""
    grid = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    normal = [[torch.special.ndtr((grid + half) / float(scale)) for half in (0.5, -0.5)] for scale in SCALES]
    rows = [_cut(mass_s) for mass_s in [*neck.masses(-REACH, REACH), *((up - low).numpy() for up, low in normal)]]
    freq_ks = np.zeros((len(rows), max(len(mass) for _, mass in rows)), np.uint32)
    for k, (_, mass) in enumerate(rows):
        freq_ks[k, : len(mass)] = quantise_mass(mass)
    return Tables(
        freq_ks=freq_ks,
        size_k=np.array([len(mass) for _, mass in rows], np.int32),
        offset_k=np.array([low for low, _ in rows], np.int32),
        table_of_lxc=np.arange(len(rows), dtype=np.int32).reshape(1, 1, -1),
        gain_lc=np.ones((1, len(rows)), np.float32),
    )


def _cut(mass_s: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
    """Return the first symbol of a row, and the row: all but the outermost mass; at least -1, 0 and 1."""
    cumulative = np.cumsum(mass_s) / mass_s.sum()
    low = min(int(np.searchsorted(cumulative, TAIL / 2)), REACH - 1)
    high = max(int(np.searchsorted(cumulative, 1 - TAIL / 2)), REACH + 1)
    return low - REACH, mass_s[low : high + 1]


def encoder(codecs: Sequence[Codec]) -> dict[str, Any]:
    """Return what the largest encoder costs (both transforms that the device runs), and all the training."""
    parts = trainings([(one.name, one.report) for one in codecs])
    prices = [price(one) for one in codecs]
    return {
        "macs": max(macs for macs, _ in prices),
        "parameters": max(parameters for _, parameters in prices),
        "bytes": max(2 * parameters for _, parameters in prices),
        **{key: total(parts, told) for key, told in _TOTALS.items()},
        "device_seconds": held(parts),
        "levelled": all(one.report.get("levelled") is True for one in codecs),
    }


def price(codec: Codec) -> tuple[int, int]:
    """Return multiply-accumulates and parameters of what the device runs: encoder and both hyper-transforms."""
    crop = codec.recipe.teacher.crop
    pixels = torch.zeros(1, crop, crop, 3, dtype=torch.uint8)
    first = cost(FromPixels(folded(codec.student.squeeze), scale=1.0, offset=0.0), pixels)  # as bundles count it
    with torch.no_grad():
        latent = codec.student.latent(torch.zeros(1, 3, crop, crop))
        second = cost(codec.neck.analysis, latent)
        third = cost(codec.neck.synthesis, codec.neck.analysis(latent))
    parts = (first, second, third)
    return sum(part.macs for part in parts), sum(part.parameters for part in parts)


if __name__ == "__main__":
    sys.exit(main())
