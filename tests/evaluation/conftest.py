"""A folder of labelled pictures that the tiny bundle's teacher reads right, but for one; and a report made of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.result import Report
from splitcodec.wire.bundle import Bundle

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
