"""What an encoder's graph is turned into before it is quantised, so that its INT8 twin is exact enough and quick.

- `equalised`: channels in front of depthwise and pointwise convolutions are scaled to one range, and the convolution
  behind them takes the scales back (cross-layer equalisation: Nagel, van Baalen, Blankevoort, Welling, "Data-free
  quantization through weight equalization and bias correction", ICCV 2019). One 8-bit scale then serves them all.
- `aligned`: depthwise channels are padded with zeros to multiples of 16, which ONNX Runtime's 8-bit kernels want:
  28 channels took five times as long as 32. So are channels between two others that are no multiple of 4: 9 took
  three times as long as 16.

Both give the same network, and leave alone what is built in another way. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from splitcodec.errors import GraphError
from splitcodec.training.rounding import Window

Floats = NDArray[np.float32]

ACTIVATIONS: Final = ("Clip", "Relu")
ALIGN: Final = 16
GROUP: Final = 4  # 8-bit products are summed by fours
_ROOM: Final = 1.1  # above the largest value that was seen
_MOST: Final = 64.0  # times that a channel is scaled at most


class Weights(NamedTuple):
    """A convolution's constants: weight (O, I, rows, cols) and bias (O,)."""

    weight_oikk: Floats
    bias_o: Floats


class Quantised(NamedTuple):
    """A quantised convolution: its weight's name and integers, their scale per output channel, the bias as floats."""

    name: str
    weight_oikk: NDArray[np.int8]
    scale_o: Floats
    bias_o: Floats


@final
class View:
    """A model's nodes by what they take and give, and its constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.makers: dict[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.output}
        self._constants = {one.name: one for one in model.graph.initializer}
        self._takers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._takers.setdefault(name, []).append(node)
        self._given = {one.name for one in model.graph.output}

    def only_taker(self, name: str) -> onnx.NodeProto | None:
        """Return the one node that takes a value; None where several do, or where it is the model's output."""
        takers = self._takers.get(name, [])
        return takers[0] if len(takers) == 1 and name not in self._given else None

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a constant's value."""
        found = self._constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def put(self, name: str, value: NDArray[Any]) -> None:
        """Change a constant."""
        self._constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))

    def weights(self, conv: onnx.NodeProto) -> Weights | None:
        """Return a convolution's constants where it has both and nobody else takes them, else None."""
        if len(conv.input) != 3 or any(self.only_taker(name) is None for name in conv.input[1:]):
            return None
        weight, bias = self.constant(conv.input[1]), self.constant(conv.input[2])
        return None if weight is None or bias is None or weight.ndim != 4 else Weights(weight, bias)

    def quantised(self, conv: onnx.NodeProto) -> Quantised | None:
        """Return a quantised convolution's constants; None where it is not."""
        made = [self.makers.get(name) for name in conv.input[1:]]
        if len(made) != 2 or any(node is None or node.op_type != "DequantizeLinear" for node in made):
            return None
        weight, bias = ([self.constant(name) for name in node.input] for node in made if node is not None)
        if any(one is None for one in (*weight, *bias)) or np.any(weight[2]):
            return None
        name: str = made[0].input[0]  # type: ignore[union-attr]  # checked above
        bias_o: Any = bias[0] * np.ravel(bias[1])  # type: ignore[arg-type]  # as above
        weight_oikk: Any = weight[0]
        return Quantised(name, weight_oikk, np.ravel(weight[1]), bias_o)  # type: ignore[arg-type]  # as above

    def requantise(self, conv: onnx.NodeProto, weight_oikk: NDArray[np.int8], scale_o: Floats) -> None:
        """Change a quantised convolution's integers and their scale per output channel; the bias stays what it is."""
        old = self.quantised(conv)
        if old is None:
            raise GraphError(f"{conv.name} is not a quantised convolution")
        weight, bias = (self.makers[name].input for name in conv.input[1:])
        step_o = np.ravel(self.constant(bias[1])) * (scale_o / old.scale_o)  # type: ignore[arg-type]  # it has one
        self.put(weight[0], weight_oikk)
        self.put(weight[1], scale_o.astype(np.float32))
        self.put(bias[0], np.round(old.bias_o / step_o).astype(np.int32))
        self.put(bias[1], step_o.astype(np.float32))

    def behind(self, conv: onnx.NodeProto) -> Pair | None:
        """Return a convolution and the one that alone takes what an activation makes of it, if it is so built."""
        name = str(conv.output[0])
        activation = self.only_taker(name)
        if activation is None or activation.op_type not in ACTIVATIONS or activation.input[0] != name:
            return None
        name = str(activation.output[0])
        taker = self.only_taker(name)
        if taker is None or taker.op_type != "Conv" or taker.input[0] != name:
            return None
        first, second = self.weights(conv), self.weights(taker)
        return None if first is None or second is None else Pair(conv, first, activation, taker, second)


class Pair(NamedTuple):
    """Two convolutions with nothing but an activation between them."""

    first: onnx.NodeProto
    of_first: Weights
    activation: onnx.NodeProto
    second: onnx.NodeProto
    of_second: Weights

    @property
    def value(self) -> str:
        """Return what lies between them."""
        return str(self.activation.output[0])

    @property
    def depthwise(self) -> bool:
        """Say whether the second takes each channel by itself."""
        return 1 < group_of(self.second) == len(self.of_first.bias_o) == len(self.of_second.bias_o)


def equalised(model: onnx.ModelProto, largest: Callable[[Sequence[str]], Sequence[Floats]]) -> onnx.ModelProto:
    """Return the model with channels between convolutions scaled to one range.

    `largest` measures: of values by name, each channel's largest number over calibration crops, float (C,).
    """
    model = copied(model)
    view = View(model)
    names = [pair.value for pair in _pairs(view)]
    for name, top_c in zip(names, largest(names) if names else [], strict=True):
        # one pair's second is the next one's first, so each is looked up as it is by now
        pair = view.behind(view.makers[view.makers[name].input[0]])
        if pair is not None:
            _equalise(view, pair, top_c)
    return model


def aligned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with channels of zeros where a depthwise convolution has no multiple of 16, others none of 4."""
    model = copied(model)
    view = View(model)
    for first in [node for node in model.graph.node if node.op_type == "Conv" and group_of(node) == 1]:
        if (chain := _depthwise_chain(view, first)) and (more := -len(chain[0].of_first.bias_o) % ALIGN):
            _pad(view, chain, more)
    for first in [node for node in model.graph.node if node.op_type == "Conv" and group_of(node) == 1]:
        if (pair := _straight(view, first)) and len(pair[0].bias_o) % GROUP:
            _widen(view, first, pair, more=-len(pair[0].bias_o) % ALIGN)
    del model.graph.value_info[:]
    return model


def window(conv: onnx.NodeProto, weight_oikk: Floats) -> Window:
    """Return what of its input a place of a convolution's output sees."""
    attributes, (rows, cols) = attributes_of(conv), weight_oikk.shape[2:]
    down, right = attributes.get("strides", (1, 1))
    top, left, bottom, end = attributes.get("pads", (0, 0, 0, 0))
    return Window(rows, cols, (down, right), (top, left, bottom, end), group_of(conv))


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name."""
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def group_of(conv: onnx.NodeProto) -> int:
    """Return the number of groups of a convolution."""
    return int(attributes_of(conv).get("group", 1))


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that may be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _pairs(view: View) -> Iterator[Pair]:
    for node in view.graph.node:
        if node.op_type == "Conv" and (pair := view.behind(node)) is not None:
            yield pair


def _equalise(view: View, pair: Pair, top_c: Floats) -> None:
    first, second, depthwise = pair.of_first, pair.of_second, pair.depthwise
    if not depthwise and group_of(pair.second) > 1:
        return
    whole = float(top_c.max())
    alive = top_c > 1e-3 * whole
    scale_c = np.where(alive, whole / np.maximum(_ROOM * top_c, 1e-9), 1.0)
    if not depthwise:  # whose weights share a scale over these channels: each side takes half of the differences
        weight_c = np.abs(second.weight_oikk).max(axis=(0, 2, 3))
        share_c = np.where(alive & (weight_c > 0), weight_c / max(float(weight_c.max()), 1e-9), 1.0)
        scale_c = np.minimum(scale_c, np.sqrt(scale_c * share_c))
    scale_c = np.clip(scale_c, 1 / _MOST, _MOST)
    if pair.activation.op_type == "Clip":  # the bound is the same for all, so none may move away from it
        scale_c = np.maximum(scale_c, 1.0)
    scale_c = scale_c.astype(np.float32)
    view.put(pair.first.input[1], first.weight_oikk * scale_c[:, None, None, None])
    view.put(pair.first.input[2], first.bias_o * scale_c)
    back = scale_c[:, None, None, None] if depthwise else scale_c[None, :, None, None]
    view.put(pair.second.input[1], second.weight_oikk / back)


def _depthwise_chain(view: View, first: onnx.NodeProto) -> list[Pair]:
    """Return a convolution and the depthwise ones behind it, pair by pair to the one that ends them; none: empty."""
    chain: list[Pair] = []
    pair = view.behind(first)
    while pair is not None and pair.depthwise:
        chain.append(pair)
        pair = view.behind(pair.second)
    return [*chain, pair] if chain and pair is not None and group_of(pair.second) == 1 else []


def _pad(view: View, chain: Sequence[Pair], more: int) -> None:
    for pair in chain:
        weight_oikk, bias_o = pair.of_first
        view.put(pair.first.input[1], np.pad(weight_oikk, [(0, more), (0, 0), (0, 0), (0, 0)]))
        view.put(pair.first.input[2], np.pad(bias_o, (0, more)))
        for one in pair.first.attribute:
            if one.name == "group" and one.i > 1:
                one.i += more
    last = chain[-1]
    view.put(last.second.input[1], np.pad(last.of_second.weight_oikk, [(0, 0), (0, more), (0, 0), (0, 0)]))


def _straight(view: View, first: onnx.NodeProto) -> tuple[Weights, onnx.NodeProto, Weights] | None:
    """Return a convolution's constants, the one that alone takes what it gives, with no activation between, and its."""
    name = str(first.output[0])
    taker = view.only_taker(name)
    if taker is None or taker.op_type != "Conv" or taker.input[0] != name or group_of(taker) > 1:
        return None
    own, theirs = view.weights(first), view.weights(taker)
    return None if own is None or theirs is None else (own, taker, theirs)


def _widen(view: View, first: onnx.NodeProto, pair: tuple[Weights, onnx.NodeProto, Weights], *, more: int) -> None:
    (weight_oikk, bias_o), taker, theirs = pair
    view.put(first.input[1], np.pad(weight_oikk, [(0, more), (0, 0), (0, 0), (0, 0)]))
    view.put(first.input[2], np.pad(bias_o, (0, more)))
    view.put(taker.input[1], np.pad(theirs.weight_oikk, [(0, 0), (0, more), (0, 0), (0, 0)]))
