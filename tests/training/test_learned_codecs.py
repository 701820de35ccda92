"""The script in benchmarks/ that measures the hyperprior codec, on a tiny run of its recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from splitcodec.device.client import Device
from splitcodec.evaluation.points import read_points
from splitcodec.training.distill import train
from splitcodec.training.recipe import Recipe
from tests.training.conftest import draw

Make = Callable[[], dict[str, Any]]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import learned_codecs

    return learned_codecs


@pytest.fixture(scope="module")
def run(recipe_data: Make, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = recipe_data()
    stage = {"kind": "pixels", "images": 64, "batch": 4, "learning_rate": 3e-3}
    student = {"kind": "hyperprior", "width": 8, "channels": 6}
    data.update(name="hyper", student=student, levels={"betas": [1e-3], "default": 0}, stage1=stage, stage2=None)
    out = tmp_path_factory.mktemp("runs") / "hyper"
    assert train(Recipe.model_validate(data), photos=[photos], out=out, report=lambda _: None)["finished"]
    return out


def test_the_stream_of_a_picture_is_decodable(script: ModuleType, run: Path, tiny_folder: Path) -> None:
    codec = script.load(run)
    crop_hwc = Device(tiny_folder, threads=1).crop(draw((80, 70), 4))[0]
    symbols = script.code(codec, crop_hwc)
    coder, symbols_n = script.stream(codec, symbols)
    payload = coder.encode(symbols_n, 0)
    assert script.bytes_of(codec, symbols) == len(payload) + 12
    assert (coder.decode(payload, symbols_n.shape, level=0) == symbols_n).all()
    assert len(symbols_n) == 8 * 1 + 6 * 4 * 4
    back = script.decode(codec, symbols)
    assert back.shape == crop_hwc.shape
    assert back.dtype == np.uint8
    assert np.abs(back.astype(float) - crop_hwc).mean() < 100


def test_points_are_those_that_the_arena_takes(
    script: ModuleType, run: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        draw((80, 70), n).save(tmp_path / f"{n:04d}_x.png")
    (tmp_path / "0003_broken.png").write_bytes(b"no picture")
    out = tmp_path / "out" / "points.json"
    command = ["--data", str(tmp_path), "--bundle", str(tiny_folder), "--out", str(out), str(run)]
    assert script.main(command) == 0
    assert "hyper: " in capsys.readouterr().out
    points, encoders = read_points([out], images=3, taken=[])
    assert [(one.method, one.setting) for one in points] == [("hyperprior", "hyper")]
    assert points[0].bytes_mean > 12
    assert encoders["hyperprior"].images_seen == 64
    assert (encoders["hyperprior"].macs or 0) > 1e5
    assert str(tmp_path) not in json.dumps(json.loads(out.read_bytes()))


def test_all_that_the_device_runs_is_priced(script: ModuleType, run: Path) -> None:
    """Divisive normalisation and transposed convolutions cost nothing, so the rival looked cheaper than it is."""
    squeeze = 32**2 * 8 * (75 + 8) + 16**2 * 8 * (200 + 8) + 8**2 * 8 * (200 + 8) + 4**2 * 6 * 200
    analysis = 4**2 * 8 * 54 + 2**2 * 8 * 200 + 8 * 200
    synthesis = 8 * 6 * 25 + 2**2 * 6 * 9 * 25 + 4**2 * 12 * 81
    assert script.price(script.load(run))[0] == squeeze + analysis + synthesis


def test_what_a_run_began_with_counts_though_its_recipe_has_the_same_name(script: ModuleType, run: Path) -> None:
    codec = script.load(run)
    first = {"key": "start", "recipe": "hyper", "images": 1000, "seconds": 10.0, "processor_seconds": 20.0}
    told = {"images": 64, "seconds": 1.0, "processor_seconds": 2.0, "levelled": True, "builds_on": [first]}
    found = script.encoder([replace(codec, report=told)])
    assert (found["images_seen"], found["seconds"], found["processor_seconds"]) == (1064, 11.0, 22.0)
    assert found["levelled"]
    other = replace(codec, name="other", report={"images": 5, "seconds": 1.0})
    found = script.encoder([replace(codec, report=told), other])
    assert (found["images_seen"], found["processor_seconds"], found["levelled"]) == (1069, None, False)


def test_other_runs_are_refused_in_a_line(
    script: ModuleType, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, says in ((finished, "run of kind squeeze, not hyperprior"), (tmp_path / "none", "no run in")):
        assert script.main(["--data", str(tmp_path), str(folder)]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert says in line
