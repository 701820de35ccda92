"""How an INT8 encoder is made: of one whose channels are unlike, with shortcuts and real biases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import splitcodec.training.quantise as made_by
from splitcodec.session import Graph
from splitcodec.training.quantise import Quantised, quantise_encoder
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.tables import Tables
from tests.training.conftest import draw, encoder_of

Crops = list[NDArray[np.uint8]]
GAINS = {0: (1.0, 2.0, 4.0, 8.0), 1: (3.0, 1.0, 0.5, 1.0), 2: (1.0, 1.0, 1.0, 30.0)}


def unlike() -> bytes:
    """An encoder of stride 16: channels that differ a hundredfold, 14 of them depthwise, shortcuts."""
    random = np.random.default_rng(3)
    spread_c = np.geomspace(0.05, 5, 14)
    weights = {
        "w1": random.normal(size=(14, 3, 4, 4)) / 7 * spread_c[:, None, None, None],
        "b1": random.normal(size=14) / 10 * spread_c,
        "w2": random.normal(size=(14, 1, 3, 3)) / 2,
        "b2": random.normal(size=14) / 10 * spread_c,
        "w3": random.normal(size=(22, 14, 4, 4)) / 16 / spread_c[:, None, None],
        "b3": random.normal(size=22) / 10,
        "w4": random.normal(size=(22, 22, 1, 1)) / 5,
        "b4": random.normal(size=22) / 10,
        "w5": random.normal(size=(4, 22, 1, 1)) / 4,
        "b5": np.array([0.5, -1.0, 2.0, 0.1]),
        "w6": random.normal(size=(4, 22, 1, 1)) / 5,
        "zero": np.array(0.0),
        "six": np.array(6.0),
    }
    nodes = [
        helper.make_node("Conv", ["bchw", "w1", "b1"], ["c1"], strides=[4, 4]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], group=14, pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c2", "zero", "six"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], strides=[4, 4]),
        helper.make_node("Relu", ["c3"], ["r3"]),
        helper.make_node("Conv", ["r3", "w4", "b4"], ["c4"]),
        helper.make_node("Add", ["c4", "r3"], ["s4"]),
        helper.make_node("Relu", ["s4"], ["r4"]),
        helper.make_node("Conv", ["r4", "w5", "b5"], ["deep"]),
        helper.make_node("Conv", ["r3", "w6"], ["short"]),
        helper.make_node("Add", ["deep", "short"], ["latent_bchw"]),
    ]
    return encoder_of(weights, nodes)


def crops_of(seeds: Sequence[int]) -> Crops:
    return [np.asarray(draw((64, 64), seed))[None] for seed in seeds]


@pytest.fixture(scope="module")
def tables(tiny: Bundle) -> Tables:
    gains = np.array([GAINS[level] for level in range(tiny.tables[0].levels)], np.float32)
    return replace(tiny.tables[0], gain_lc=gains)


@pytest.fixture(scope="module")
def whole(tables: Tables) -> Quantised:
    return quantise_encoder(unlike(), crops_of(range(12)), tables=tables, level=0)


def latents(graph: bytes, crops: Crops) -> NDArray[np.float32]:
    opened = Graph(graph, name="graph", threads=1)
    return np.concatenate([opened(crop) for crop in crops])


def weights(graph: bytes) -> dict[str, NDArray[Any]]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_from_string(graph).graph.initializer}


def scales(graph: bytes) -> dict[str, float]:
    return {name: float(value) for name, value in weights(graph).items() if name.endswith("_scale") and value.size == 1}


@pytest.mark.parametrize("level", [0, 2])
def test_the_error_is_that_of_the_scaled_latent_on_the_first_quarter(level: int, tables: Tables) -> None:
    made = quantise_encoder(unlike(), crops_of(range(12)), tables=tables, level=level)
    shown, gain_c11 = crops_of(range(3)), np.array(GAINS[level])[:, None, None]
    off = (latents(made.graph, shown) - latents(unlike(), shown)) * gain_c11
    assert made.error == pytest.approx(np.square(off).mean(), rel=1e-4)


def test_the_calibrator_with_the_smaller_error_is_taken(whole: Quantised) -> None:
    tried = whole.tried
    assert set(tried) == {"minmax", "percentile"}
    assert tried["minmax"] != tried["percentile"]
    assert (whole.error, whole.kept_float) == (min(tried.values()), ())
    assert tried[whole.calibrator] == whole.error


def test_ranges_are_those_of_crops_that_are_not_measured_on(tables: Tables, whole: Quantised) -> None:
    """A crop brighter than all others among the first quarter changes nothing but the error that is told."""
    crops = crops_of(range(12))
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = quantise_encoder(unlike(), [stripes, *crops[1:]], tables=tables, level=0)
    seen = quantise_encoder(unlike(), [*crops[:-1], stripes], tables=tables, level=0)
    assert (shown.calibrator, shown.graph) == (whole.calibrator, whole.graph)
    assert shown.error != whole.error
    assert scales(seen.graph) != scales(whole.graph) == scales(shown.graph)


def test_percentiles_leave_out_what_hardly_ever_occurs(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """One value in a hundred thousand does not widen a range, as it does the range from least to most."""
    crops = [np.full((1, 512, 512, 3), 100, np.uint8) for _ in range(12)]
    random = np.random.default_rng(2)
    crops = [crop + random.integers(0, 9, crop.shape, dtype=np.uint8) for crop in crops]
    crops[-1][:, :4, :4] = (255, 0, 255)
    found = {}
    for name, method in dict(made_by.CALIBRATORS).items():
        monkeypatch.setattr(made_by, "CALIBRATORS", {name: method})
        found[name] = weights(quantise_encoder(unlike(), crops, tables=tables, level=0).graph)["r2_scale"]
    assert found["percentile"] < 0.3 * found["minmax"]


def test_what_gives_the_latent_stays_float_and_all_else_is_8_bits(whole: Quantised) -> None:
    model = onnx.load_from_string(whole.graph)
    kept = weights(whole.graph)
    maker = {output: node for node in model.graph.node for output in node.output}
    users = {name: [node for node in model.graph.node if name in node.input] for name in maker}
    latent = maker["latent_bchw"]
    assert latent.op_type == "Add"
    assert all(maker[name].op_type == "Conv" for name in latent.input), "sums to the latent are of floats"
    assert all(kept[maker[name].input[1]].dtype == np.float32 for name in latent.input)
    others = [node for node in model.graph.node if node.op_type == "Conv" and node.output[0] not in latent.input]
    assert len(others) == 4
    for conv in others:
        weight, activation = maker[conv.input[1]], maker[conv.input[0]]
        assert (weight.op_type, activation.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert kept[weight.input[0]].dtype == np.int8
        assert kept[weight.input[1]].shape == (len(kept[weight.input[0]]),), "a step for each channel that comes out"
        assert [one.op_type for one in users[conv.output[0]]] == ["QuantizeLinear"]
        assert kept[users[conv.output[0]][0].input[2]].dtype == np.uint8
    assert {node.op_type for node in model.graph.node}.isdisjoint({"Relu", "Clip"}), "ranges begin at 0, and end at 6"
    assert kept["r2_scale"] <= np.float32(6 / 255) * 1.0001


def test_channels_are_padded_for_8_bit_kernels(whole: Quantised) -> None:
    kept = weights(whole.graph)
    assert [kept[f"w{n}_quantized"].shape[:2] for n in (2, 3, 4)] == [(16, 1), (22, 16), (22, 22)]
    assert not kept["w2_quantized"][14:].any()


def plainly(weight_oikk: Any, scale_o: Any, _: Any, *, most: int) -> tuple[Any, Any]:
    """Round every weight to the nearest."""
    return np.clip(np.round(weight_oikk / scale_o[:, None, None, None]), -most, most).astype(np.int8), scale_o


@pytest.mark.parametrize(
    ("name", "instead", "worse"),
    [
        ("equalised", lambda model, _: model, 4.0),
        ("rounded_for_all", plainly, 1.2),
    ],
)
def test_every_step_lowers_the_error(
    name: str,
    instead: Callable[..., Any],
    worse: float,
    whole: Quantised,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(made_by, name, instead)
    assert quantise_encoder(unlike(), crops_of(range(12)), tables=tables, level=0).error > worse * whole.error


def test_the_mean_error_of_every_latent_channel_is_taken_off(whole: Quantised) -> None:
    """Once: the latent is a sum of two convolutions, one of which had no bias."""
    seen = crops_of(range(3, 12))
    off_c = (latents(whole.graph, seen) - latents(unlike(), seen)).mean(axis=(0, 2, 3))
    assert np.abs(off_c).max() < 1e-5
    kept = weights(whole.graph)
    (corrected,) = [value for name, value in kept.items() if name.endswith("_corrected_bias")]
    assert 0 < np.abs(corrected).max() < 0.2
    np.testing.assert_array_equal(kept["b5"], np.array([0.5, -1.0, 2.0, 0.1], np.float32))


def test_the_convolutions_that_hurt_most_stay_float(tables: Tables, whole: Quantised) -> None:
    """Of all choices of one, the one kept is that whose 8 bits alone cost most."""
    crops = crops_of(range(12))
    kept = {
        number: quantise_encoder(unlike(), crops, tables=tables, level=0, keep_float=number) for number in (1, 2, 4)
    }
    assert [len(one.kept_float) for one in kept.values()] == [1, 2, 4]
    assert kept[2].kept_float[:1] == kept[1].kept_float
    assert whole.error > kept[1].error > kept[2].error > kept[4].error
    assert kept[4].error < whole.error / 5, "all four float: one sum is left"
