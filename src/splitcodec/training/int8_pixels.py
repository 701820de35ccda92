"""A QDQ encoder whose first convolution takes the picture's bytes as they come, four pixels of a row at a time.

Quantised in the usual way, an encoder makes floats of bytes, scales them, and quantises them again; and ONNX Runtime's
8-bit kernels want input channels by fours. Four pixels of a row are twelve channels without moving a byte. The
convolution over such groups has the same weights, laid out anew, and gives all places above a group at once.

The graph is left alone where its first convolution is not quantised or is built in another way.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from splitcodec.training.int8_graph import Quantised, View, attributes_of, copied

PIXELS: Final = 4
_COLOURS: Final = 3
_DEEPEST: Final = 16  # nodes between the picture and the first convolution


class _Scaling(NamedTuple):
    """x = slope * byte + offset, and whether the channels have come to the front."""

    slope: float = 1.0
    offset: float = 0.0
    moved: bool = False


class _Layout(NamedTuple):
    """A convolution over groups of four pixels: outputs per group, first and last group that each of them sees."""

    outputs: int
    low: int
    high: int


class _Stem(NamedTuple):
    """A quantised first convolution, the nodes before it, and the one that quantises what it gives."""

    before: list[onnx.NodeProto]
    conv: onnx.NodeProto
    after: onnx.NodeProto
    scaling: _Scaling
    quantised: Quantised
    layout: _Layout


def on_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model, its first convolution on groups of pixels."""
    model = copied(model)
    view = View(model)
    stem = _stem(view)
    if stem is None:
        return model
    dead = [*stem.before, *(view.makers[name] for name in stem.conv.input[1:]), stem.conv, stem.after]
    position = list(model.graph.node).index(stem.conv)
    for node in _new_nodes(model.graph, stem):
        model.graph.node.insert(position, node)
        position += 1
    for node in dead:
        model.graph.node.remove(node)
    return model


def _stem(view: View) -> _Stem | None:
    scaling, before, name = _Scaling(), list[onnx.NodeProto](), str(view.graph.input[0].name)
    for _ in range(_DEEPEST):
        node = view.only_taker(name)
        if node is None:
            return None
        if node.op_type == "Conv":
            return _checked(view, before, node, scaling) if scaling.moved and scaling.slope > 0 else None
        before.append(node)
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            followed = _followed(view, node, name, scaling)
            if followed is None:
                return None
            scaling = followed
        name = str(node.output[0])
    return None


def _followed(view: View, node: onnx.NodeProto, name: str, scaling: _Scaling) -> _Scaling | None:
    """Return the scaling behind one more node; None for a node that does something else."""
    slope, offset, moved = scaling
    if node.op_type == "Cast":
        return scaling
    if node.op_type == "Transpose":
        return _Scaling(slope, offset, not moved) if list(attributes_of(node)["perm"]) == [0, 3, 1, 2] else None
    number = view.constant(node.input[1]) if len(node.input) == 2 and node.input[0] == name else None
    if number is None or number.size != 1:
        return None
    value = float(number.reshape(()))
    made = {
        "Mul": (slope * value, offset * value),
        "Div": (slope / value if value else 0.0, offset / value if value else 0.0),
        "Add": (slope, offset + value),
        "Sub": (slope, offset - value),
    }.get(node.op_type)
    return None if made is None else _Scaling(*made, moved)


def _checked(view: View, before: list[onnx.NodeProto], conv: onnx.NodeProto, scaling: _Scaling) -> _Stem | None:
    after, quantised = view.only_taker(conv.output[0]), view.quantised(conv)
    shared = any(view.only_taker(name) is None for name in conv.input[1:])
    if after is None or after.op_type != "QuantizeLinear" or quantised is None or shared:
        return None
    layout = _layout(conv, quantised.weight_oikk)
    fits = layout is not None and 0 <= round(-scaling.offset / scaling.slope) <= 255
    return _Stem(before, conv, after, scaling, quantised, layout) if fits and layout is not None else None


def _layout(conv: onnx.NodeProto, weight_oikk: NDArray[np.int8]) -> _Layout | None:
    attributes = attributes_of(conv)
    (_, stride), width = attributes.get("strides", (1, 1)), weight_oikk.shape[3]
    _, left, _, right = attributes.get("pads", (0, 0, 0, 0))
    plain = weight_oikk.shape[1] == _COLOURS and set(attributes.get("dilations", [1])) == {1}
    if not plain or PIXELS % stride or (left + right - width) // stride != -1:  # an output for every `stride` columns
        return None
    outputs = PIXELS // stride
    return _Layout(outputs, -left // PIXELS, (stride * (outputs - 1) - left + width - 1) // PIXELS)


def _new_nodes(graph: onnx.GraphProto, stem: _Stem) -> list[onnx.NodeProto]:
    """Return the nodes that take the place of all from the picture to the first convolution's quantised output."""
    (slope, offset, _), layout = stem.scaling, stem.layout
    _, weight_oikk, scale_o, bias_o = stem.quantised
    attributes = attributes_of(stem.conv)
    (down, right), (top, left, bottom, _) = attributes.get("strides", (1, 1)), attributes.get("pads", (0, 0, 0, 0))
    zero = round(-offset / slope)
    left_over = offset + slope * zero  # x = slope * (byte - zero) + this, which the bias takes
    bias_o = bias_o + left_over * scale_o * weight_oikk.sum(axis=(1, 2, 3), dtype=np.int64)
    step_o = slope * np.tile(scale_o, layout.outputs)
    laid_out = _laid_out(weight_oikk, layout, stride=right, left=left)
    constants = {
        "four": np.array([0, 0, -1, _COLOURS * PIXELS]),
        "slope": np.float32(slope),
        "zero": np.uint8(zero),
        "weight": laid_out,
        "weight_scale": np.tile(scale_o, layout.outputs),
        "weight_zero": np.zeros(len(step_o), np.int8),
        "bias": np.round(np.tile(bias_o, layout.outputs) / step_o).astype(np.int32),
        "bias_scale": step_o.astype(np.float32),
        "bias_zero": np.zeros(len(step_o), np.int32),
        "apart": np.array([0, 0, -1, len(weight_oikk)]),
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"pixels_{name}"))
    make = helper.make_node
    return [
        make("Reshape", [graph.input[0].name, "pixels_four"], ["pixels_four_bhwc"]),
        make("Transpose", ["pixels_four_bhwc"], ["pixels_four_bchw"], perm=[0, 3, 1, 2]),
        make("DequantizeLinear", ["pixels_four_bchw", "pixels_slope", "pixels_zero"], ["pixels_x"]),
        make("DequantizeLinear", ["pixels_weight", "pixels_weight_scale", "pixels_weight_zero"], ["pixels_w"], axis=0),
        make("DequantizeLinear", ["pixels_bias", "pixels_bias_scale", "pixels_bias_zero"], ["pixels_b"], axis=0),
        make(
            "Conv",
            ["pixels_x", "pixels_w", "pixels_b"],
            ["pixels_c"],
            name=stem.conv.name,
            kernel_shape=laid_out.shape[2:],
            strides=[down, 1],
            pads=[top, -layout.low, bottom, layout.high],
        ),
        make("QuantizeLinear", ["pixels_c", *stem.after.input[1:]], ["pixels_quantised"]),
        make("Transpose", ["pixels_quantised"], ["pixels_out_bhwc"], perm=[0, 2, 3, 1]),
        make("Reshape", ["pixels_out_bhwc", "pixels_apart"], ["pixels_apart_bhwc"]),
        make("Transpose", ["pixels_apart_bhwc"], [stem.after.output[0]], perm=[0, 3, 1, 2]),
    ]


def _laid_out(weight_oikk: NDArray[np.int8], layout: _Layout, *, stride: int, left: int) -> NDArray[np.int8]:
    """Return the weight over groups of four pixels, (outputs * O, 12, rows, groups)."""
    out, below, rows, cols = weight_oikk.shape
    found = np.zeros((layout.outputs, out, PIXELS, below, rows, layout.high - layout.low + 1), np.int8)
    for place in range(layout.outputs):
        for col in range(cols):
            group, pixel = divmod(stride * place - left + col, PIXELS)
            found[place, :, pixel, :, :, group - layout.low] = weight_oikk[:, :, :, col]
    return found.reshape(layout.outputs * out, PIXELS * below, rows, -1)
