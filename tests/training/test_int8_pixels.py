"""A quantised first convolution on groups of four pixels: the same numbers as place by place, or left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitcodec.session import Graph
from splitcodec.training.int8_graph import View
from splitcodec.training.int8_pixels import on_pixels

OUT = 5
BYTES = {"Mul": 1 / 64.0, "Add": -1.57, "Div": 64.0, "Sub": 1.57}  # nought lies between 100 and 101


class Stem(NamedTuple):
    """A first convolution: its kernel, and what ONNX says of it."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    scaling: tuple[str, ...] = ("Mul", "Add")
    attributes: dict[str, Any] = {}  # noqa: RUF012  # never changed
    perm: tuple[int, ...] = (0, 3, 1, 2)
    constants: dict[str, Any] = {}  # noqa: RUF012  # never changed


class Made(NamedTuple):
    """A quantised graph, and what its convolution computes with."""

    model: onnx.ModelProto
    weight_oikk: NDArray[np.float64]
    bias_o: NDArray[np.float64]
    step: float


def quantised(stem: Stem) -> Made:
    """Return what ONNX Runtime's quantiser makes of a stem, its input quantised to bytes once more."""
    random = np.random.default_rng(3)
    whole = random.integers(-20, 60, (OUT, 3, *stem.kernel)).astype(np.int8)  # so that brightness counts
    scale_o = np.array([0.01, 0.002, 0.03, 0.005, 0.001], np.float32)
    slope, bias_o = np.float32(1 / 64), random.integers(-900, 900, OUT).astype(np.int32)
    step = np.float32(0.25)
    constants: dict[str, NDArray[Any]] = {
        "in_scale": np.array(slope),
        "in_zero": np.array(100, np.uint8),
        "w": whole,
        "w_scale": scale_o,
        "w_zero": np.zeros(OUT, np.int8),
        "b": bias_o,
        "b_scale": slope * scale_o,
        "b_zero": np.zeros(OUT, np.int32),
        "out_scale": np.array(step),
        "out_zero": np.array(90, np.uint8),
    }
    constants |= {key: np.array(value, np.float32) for key, value in (BYTES | stem.constants).items()}
    make = helper.make_node
    nodes = [
        make("Cast", ["image_bhwc"], ["x"], to=TensorProto.FLOAT),
        make("Transpose", ["x"], ["x_moved"], perm=stem.perm),
    ]
    name = "x_moved"
    for word in stem.scaling:
        nodes.append(make(word, [name, word], [f"{name}_{word}"]))
        name = f"{name}_{word}"
    nodes += [
        make("QuantizeLinear", [name, "in_scale", "in_zero"], ["in_q"]),
        make("DequantizeLinear", ["in_q", "in_scale", "in_zero"], ["in_x"]),
        make("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_x"], axis=0),
        make("DequantizeLinear", ["b", "b_scale", "b_zero"], ["b_x"], axis=0),
        make("Conv", ["in_x", "w_x", "b_x"], ["c"], strides=stem.strides, pads=stem.pads, **stem.attributes),
        make("QuantizeLinear", ["c", "out_scale", "out_zero"], ["out_q"]),
        make("DequantizeLinear", ["out_q", "out_scale", "out_zero"], ["latent_bchw"]),
    ]
    used = {one for node in nodes for one in node.input}
    body = helper.make_graph(
        nodes,
        "stem",
        [helper.make_tensor_value_info("image_bhwc", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info("latent_bchw", TensorProto.FLOAT, ["batch", OUT, "rows", "cols"])],
        [numpy_helper.from_array(value, key) for key, value in constants.items() if key in used],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    weight_oikk = whole.astype(np.float64) * scale_o[:, None, None, None]
    return Made(model, weight_oikk, bias_o.astype(np.float64) * constants["b_scale"], float(step))


def convolved(image_hwc: NDArray[np.uint8], stem: Stem, made: Made) -> NDArray[np.float64]:
    """Return what the convolution gives, place by place; around the picture lies the byte that is nearest to nought."""
    x_v = np.arange(256.0)
    for word in stem.scaling:
        number = (BYTES | stem.constants)[word]
        x_v = {"Mul": x_v * number, "Div": x_v / number, "Add": x_v + number, "Sub": x_v - number}[word]
    top, left, bottom, right = stem.pads
    nought = int(np.abs(x_v).argmin())
    ends = [(0, 0), (top, bottom), (left, right)]
    padded = x_v[np.pad(image_hwc.transpose(2, 0, 1), ends, constant_values=nought)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, stem.kernel, axis=(1, 2))
    seen = seen[:, :: stem.strides[0], :: stem.strides[1]]
    found: NDArray[np.float64] = np.einsum("chwkl,ockl->ohw", seen, made.weight_oikk) + made.bias_o[:, None, None]
    return found


@pytest.mark.parametrize(
    "stem",
    [
        Stem((3, 3), (2, 2), (0, 0, 1, 1)),
        Stem((3, 3), (2, 2), (1, 1, 1, 1), ("Div", "Sub")),
        Stem((3, 3), (1, 1), (1, 1, 1, 1), ("Mul",)),
        Stem((5, 5), (2, 2), (2, 2, 2, 2), ("Add", "Mul"), constants={"Add": -100.5}),
        Stem((4, 4), (4, 4), (0, 0, 0, 0), ("Sub", "Div"), constants={"Sub": 100.5}),
        Stem((7, 7), (4, 4), (3, 3, 3, 3)),
        Stem((3, 5), (1, 2), (2, 2, 0, 1)),  # nothing is the same in rows and in columns
        Stem((2, 6), (2, 1), (0, 1, 1, 4)),
    ],
)
def test_the_same_numbers_come_out(stem: Stem) -> None:
    made = quantised(stem)
    model = on_pixels(made.model)
    assert next(node for node in model.graph.node if "image_bhwc" in node.input).op_type == "Reshape"
    assert not {"Cast", "Mul", "Add", "Div", "Sub"} & {node.op_type for node in model.graph.node}
    view = View(model)
    scale_o, step_o = view.constant("pixels_weight_scale"), view.constant("pixels_bias_scale")
    assert scale_o is not None
    assert step_o is not None
    np.testing.assert_allclose(step_o, scale_o / 64, rtol=1e-6)
    image_bhwc = np.random.default_rng(4).integers(0, 256, (2, 16, 24, 3), np.uint8)
    found = Graph(model.SerializeToString(), name="pixels", threads=1)(image_bhwc)
    wanted = np.stack([convolved(image_hwc, stem, made) for image_hwc in image_bhwc])
    assert found.shape == wanted.shape
    low, high = (made.step * (end - 90) for end in (0, 255))
    off = found - wanted.clip(low, high)
    assert np.abs(off).max() < 0.6 * made.step
    within = (wanted > low) & (wanted < high)
    assert within.mean() > 0.8
    mean_o = np.array([off[:, o][within[:, o]].mean() for o in range(OUT)])
    assert np.abs(mean_o).max() < 0.1 * made.step  # what is between two bytes went into the bias


def _left_alone() -> Sequence[Stem]:
    plain = Stem((3, 3), (2, 2), (0, 0, 1, 1))
    return [
        plain._replace(strides=(3, 3)),  # no place begins at each group of four pixels
        plain._replace(strides=(1, 1), pads=(0, 0, 0, 0)),  # fewer places than pixels
        plain._replace(attributes={"dilations": [2, 2]}, pads=(0, 0, 2, 2)),
        plain._replace(perm=(0, 3, 2, 1)),  # rows for columns
        plain._replace(constants={"Mul": -1 / 64, "Add": 1.57}),  # the brighter the less
        plain._replace(constants={"Add": 1.0}),  # nought is no byte
        plain._replace(constants={"Add": -5.0}),
        plain._replace(constants={"Mul": [[[0.01]], [[0.02]], [[0.03]]]}),  # each colour in its own way
        plain._replace(scaling=("Mul", "Pow"), constants={"Pow": 2.0}),
    ]


@pytest.mark.parametrize("stem", _left_alone())
def test_what_is_built_in_another_way_is_left_alone(stem: Stem) -> None:
    model = quantised(stem).model
    assert on_pixels(model) == model


def test_a_picture_that_something_else_takes_too_is_left_alone() -> None:
    model = quantised(Stem((3, 3), (2, 2), (0, 0, 1, 1))).model
    for name, kind in (("x_moved", TensorProto.FLOAT), ("w_x", TensorProto.FLOAT), ("c", TensorProto.FLOAT)):
        watched = onnx.ModelProto()
        watched.CopyFrom(model)
        watched.graph.output.append(helper.make_tensor_value_info(name, kind, None))
        assert on_pixels(watched) == watched
