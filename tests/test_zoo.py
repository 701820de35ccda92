"""The bundles that ship: within their limits, true to their golden vectors, and of use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.evaluation.replay import replay
from splitcodec.wire.archive import GRAPHS, is_shared
from splitcodec.wire.bundle import Bundle, open_bundle, zoo_folder, zoo_names


@pytest.fixture(scope="module")
def default() -> Bundle:
    return open_bundle("efficientnet-lite0")


@pytest.mark.parametrize("name", zoo_names())
def test_every_file_is_what_the_manifest_says(name: str) -> None:
    bundle = open_bundle(name)
    assert bundle.ident == name
    for file in bundle.manifest.files:
        assert len(bundle.read(file)) == bundle.manifest.files[file].bytes


@pytest.mark.parametrize("name", zoo_names())
def test_golden_vectors_replay(name: str) -> None:
    result = replay(name)
    assert result.answers
    assert result.int8_refused is None  # on x86 without VNNI too, where 8-bit products may saturate


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("efficientnet-lite0-tiny", 25e6),
        ("efficientnet-lite0", 60e6),
        ("efficientnet-lite0-medium", 100e6),
        ("efficientnet-lite0-large", 150e6),
    ],
)
def test_encoders_are_small_enough_for_their_devices(name: str, macs: float) -> None:
    manifest = open_bundle(name).manifest
    assert manifest.encoder["macs"] <= macs
    assert manifest.encoder["parameters"] <= 200_000
    assert manifest.levels >= 6


def test_the_zoo_is_small() -> None:
    assert sum(path.stat().st_size for path in zoo_folder().rglob("*") if path.is_file()) <= 45e6


def test_every_level_costs_more_than_the_one_below(default: Bundle) -> None:
    device = Device(default)
    sizes = [
        sum(len(device.encode(photo.read(), level=level)) for photo in PHOTOGRAPHS)
        for level in range(default.manifest.levels)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < 1000 * len(PHOTOGRAPHS) < sizes[-1]


@pytest.mark.parametrize("name", zoo_names())
def test_contexts_pay_for_pictures_that_nobody_learned_from(name: str) -> None:
    bundle = open_bundle(name)
    by_channel, by_context = (Device(bundle, threads=1, coding=coding) for coding in (0, 2))
    random = np.random.default_rng(0)
    places = np.arange(224)
    pictures = {
        "black": np.zeros((224, 224)),
        "noise": random.integers(0, 256, (224, 224)),
        "squares": 255 * ((places[:, None] // 8 + places // 8) % 2),
        "stripes": 255 * np.repeat(places[:, None] % 4 < 2, 224, axis=1),
    }
    for what, grey in pictures.items():
        picture = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
        for level in range(bundle.manifest.levels):
            sizes = [len(device.encode(picture, level=level)) for device in (by_context, by_channel)]
            assert sizes[0] <= sizes[1], (what, level)


def test_high_levels_answer_as_the_uncompressed_teacher(default: Bundle) -> None:
    device, edge = Device(default), Edge(default)
    for photo in PHOTOGRAPHS:
        packet = device.encode(photo.read(), level=default.manifest.levels - 1)
        top3 = [guess["index"] for guess in edge.answer(packet, top=3)["answers"]["classify"]]
        assert edge.picture_answer(device.crop(photo.read()))["answers"]["classify"][0]["index"] in top3, photo.name


def test_the_latent_grid_follows_the_picture(default: Bundle) -> None:
    import numpy as np

    device, edge = Device(default), Edge(default)
    stride, channels = default.manifest.stride, default.manifest.channels
    image_bhwc = np.random.default_rng(3).integers(0, 256, (1, 10 * stride, 24 * stride, 3), dtype=np.uint8)
    latent_chw = device.encoder.latent_chw(image_bhwc)
    assert latent_chw.shape == (channels, 10, 24)
    symbols_chw = default.tables[0].quantise(latent_chw, 2)
    answer = edge.answer(device.pack(symbols_chw, level=2))
    assert answer["answers"]["classify"]


def test_shared_graphs_are_those_that_bundles_name() -> None:
    named = {
        f"{entry.sha256}.onnx"
        for name in zoo_names()
        for file, entry in open_bundle(name).manifest.files.items()
        if is_shared(file)
    }
    assert {path.name for path in (zoo_folder() / GRAPHS).iterdir()} <= named


@pytest.mark.parametrize("name", zoo_names())
def test_the_licences_tell_of_every_graph_that_ships(name: str) -> None:
    text = (Path(__file__).parents[1] / "LICENSES.md").read_text(encoding="utf-8")
    for file in open_bundle(name).manifest.files:
        if file.endswith(".onnx"):
            assert f"`{file.replace('.int8', '')}`" in text, file
