"""The wheel for devices: the zoo's device halves, the same packets, and clear words where the rest is asked for."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundlePart
from splitcodec.evaluation.golden import FILE, read_golden
from splitcodec.evaluation.replay import replay
from splitcodec.wire.bundle import open_bundle, zoo_folder, zoo_names

SCRIPT = Path(__file__).parents[1] / "deploy" / "device_wheel.py"


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the zoo as the wheel for devices has it."""
    spec = importlib.util.spec_from_file_location("device_wheel", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    zoo = tmp_path_factory.mktemp("device") / "zoo"
    shutil.copytree(zoo_folder(), zoo, ignore=shutil.ignore_patterns("__pycache__"))
    module.halve(zoo)
    return zoo


@pytest.mark.parametrize("name", zoo_names())
def test_a_device_needs_no_more_than_its_half(name: str, halves: Path) -> None:
    whole, half = open_bundle(name), open_bundle(name, zoo=halves)
    assert half.is_device_half
    assert half.fingerprint == whole.fingerprint
    picture = PHOTOGRAPHS[0].read()
    assert Device(half).encode(picture) == Device(whole).encode(picture)
    with pytest.raises(BundlePart, match="the device's half"):
        Edge(half)


@pytest.mark.parametrize("name", zoo_names())
def test_a_half_is_a_tenth_of_its_bundle_and_has_no_graph_of_the_edge(name: str, halves: Path) -> None:
    whole, half = (open_bundle(name, zoo=zoo).manifest.files for zoo in (zoo_folder(), halves))
    assert sum(entry.bytes for entry in half.values()) < 0.1 * sum(entry.bytes for entry in whole.values())
    assert {one for one in half if one.endswith(".onnx")} <= {"encoder.onnx", "encoder.int8.onnx"}
    assert not list((halves / "graphs").glob("*.onnx"))


@pytest.mark.parametrize("name", zoo_names())
def test_golden_vectors_replay_though_their_pictures_lie_there_once(name: str, halves: Path) -> None:
    half = open_bundle(name, zoo=halves)
    assert np.array_equal(read_golden(half, FILE).image_bhwc, read_golden(open_bundle(name), FILE).image_bhwc)
    assert replay(half).pictures == 3
    assert len(list((halves / "graphs").iterdir())) == 1


def test_the_halves_are_a_small_part_of_the_zoo(halves: Path) -> None:
    sizes = [
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in (halves, zoo_folder())
    ]
    assert sizes[0] < 6.96e6  # 0.16 of a zoo with two heads; more than half are the networks that both shores have
    assert sizes[0] < sizes[1] / 6
    assert zoo_names(halves) == zoo_names()
