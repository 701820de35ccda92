"""Pictures that the tiny bundle's teacher reads right, but for one; rivals of that bundle; reports made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.result import Report
from splitcodec.evaluation.rivals import Rival
from splitcodec.wire.bundle import Bundle, write_bundle

COUNT = 12


@pytest.fixture(scope="session")
def labelled(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 12 pictures and one broken file; the first picture bears a wrong label."""
    folder = tmp_path_factory.mktemp("labelled")
    device, edge, random = Device(tiny, threads=1), Edge(tiny, threads=1), np.random.default_rng(3)
    for k in range(COUNT):
        colours = Image.fromarray(random.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        picture = colours.resize((80, 80), Image.Resampling.BICUBIC)
        index = edge.picture_answer(device.crop(picture))["answers"]["classify"][0]["index"]
        picture.save(folder / f"{(index + (k == 0)) % 10:04d}_{k}.png")
    (folder / "0003_broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="session")
def report(tiny: Bundle, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Return a small evaluation of the tiny bundle, with JPEG and one foreign point."""
    points = tmp_path_factory.mktemp("points") / "points.json"
    point = {"method": "other", "setting": "a|b", "bytes_mean": 300, "top1": 50, "encode_ms": None}
    points.write_text(json.dumps({"points": [point]}))
    return evaluate(tiny, labelled, codecs=["jpeg"], points_files=[points], threads=2)


Make = Callable[..., Bundle]


@pytest.fixture(scope="session")
def like_tiny(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a function that writes the tiny bundle again: other fields, other files, another folder."""

    def make(name: str, *, folder: Path | None = None, files: dict[str, bytes] | None = None, **changes: Any) -> Bundle:
        held = {file: tiny.read(file) for file in tiny.manifest.files} | (files or {})
        out = folder or tmp_path_factory.mktemp("rival") / name
        return write_bundle(out, replace(tiny.manifest, name=name, **changes), files=held)

    return make


@pytest.fixture(scope="session")
def arena(tiny: Bundle, labelled: Path, like_tiny: Make) -> Report:
    """Return an evaluation with six methods: ours, another of ours, an undertrained and a trained rival, two codecs."""
    tail = bytearray(tiny.read("tail_classify.onnx"))
    raw = tail.find(b"\x4a\xa0\x01")  # the weights, 8 x 10 float16, as TensorProto.raw_data
    assert raw > 0
    for place in range(raw + 4, raw + 163, 2):
        tail[place] ^= 0x80  # the sign
    encoder = {"macs": 500_000_000, "parameters": 9_000, "bytes": 20_000}
    runs = [
        {"images": images, "seconds": 90.0 * images, "levelled": levelled}
        for images, levelled in ((1000, True), (3000, False))
    ]
    few, many = (
        like_tiny(f"tiny-{k}", encoder=encoder if k else tiny.manifest.encoder, provenance={"report": run})
        for k, run in enumerate(runs)
    )
    tuned = like_tiny("tuned", files={"tail_classify.onnx": bytes(tail)}, provenance={"report": {"levelled": True}})
    rivals = [
        Rival((like_tiny("tiny-large"),), ours=True),
        Rival((few, many), "paper"),
        Rival((tuned,)),
    ]
    return evaluate(tiny, labelled, codecs=["jpeg", "webp"], rivals=rivals, threads=2)
