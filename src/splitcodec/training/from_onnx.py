"""A bundle's graph -> a PyTorch module with the same numbers, so that heads learn from what ships, on any device.

Only the handful of operators that encoders, decoders and heads are exported to; another one is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import onnx
import torch
import torch.nn.functional as nnf
from onnx import numpy_helper
from torch import Tensor, nn

from splitcodec.errors import RunError
from splitcodec.model.frozen import FastReLU6

_TYPES: Final = {1: torch.float32, 2: torch.uint8, 6: torch.int32, 7: torch.int64, 10: torch.float16}


@final
class FromOnnx(nn.Module):
    """A graph with one input and one output. Its weights are parameters, frozen until somebody thaws them.

    Raises RunError for an operator that is not known here.
    """

    def __init__(self, model: bytes, *, name: str) -> None:
        super().__init__()
        graph = onnx.load_from_string(model).graph
        self.name = name
        self._weights = nn.ParameterDict()
        self._constants: dict[str, Tensor] = {}
        for tensor in graph.initializer:
            self._keep(tensor.name, torch.from_numpy(numpy_helper.to_array(tensor).copy()))
        self._source, self._target = graph.input[0].name, graph.output[0].name
        self._steps: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = []
        for node in graph.node:
            said = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            if node.op_type == "Constant":
                self._keep(node.output[0], torch.from_numpy(numpy_helper.to_array(said["value"]).copy()))
            elif node.op_type == "Cast" and node.input[0] in self._constants:
                self._keep(node.output[0], self._constants[node.input[0]].to(_TYPES[said["to"]]))
            elif node.op_type in _OPS:
                self._steps.append((node.op_type, tuple(node.input), node.output[0], said))
            else:
                raise RunError(f"{name}: operator {node.op_type} is not known here; train on another bundle")
        used = {source for _, sources, _, _ in self._steps for source in sources}
        for key in list(self._constants):
            if key in used and self._constants[key].is_floating_point() and self._constants[key].ndim > 0:
                self._weights[_safe(key)] = nn.Parameter(self._constants[key].float(), requires_grad=False)
        self._relu6 = FastReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """Run the graph."""
        return self._run(x, self._source, first=0)

    def begins_as(self, other: FromOnnx) -> bool:
        """Say whether the other graph is this one's beginning: the same operators with the same weights."""
        if len(other._steps) > len(self._steps):
            return False
        names = {other._source: self._source}
        for (kind, sources, target, said), (kind_2, sources_2, target_2, said_2) in zip(
            self._steps, other._steps, strict=False
        ):
            if kind != kind_2 or said != said_2 or len(sources) != len(sources_2):
                return False
            for source, source_2 in zip(sources, sources_2, strict=True):
                if source_2 in names and names[source_2] == source:
                    continue
                ours, theirs = self._constants.get(source), other._constants.get(source_2)
                if ours is None or theirs is None or not torch.equal(ours, theirs):
                    return False
            names[target_2] = target
        return True

    def after(self, other: FromOnnx, value: Tensor) -> Tensor:
        """Run what comes after the beginning that `other` is, from its output."""
        count = len(other._steps)
        return self._run(value, self._steps[count - 1][2], first=count)

    def _run(self, x: Tensor, name: str, *, first: int) -> Tensor:
        known: dict[str, Any] = {name: x, "": None}
        for kind, sources, target, said in self._steps[first:]:
            values = [known[source] if source in known else self._value(source) for source in sources]
            if kind == "Clip" and _is_six(values):
                known[target] = self._relu6(values[0])
            else:
                known[target] = _OPS[kind](values, said)
        out: Tensor = known[self._target]
        return out

    def _keep(self, name: str, value: Tensor) -> None:
        self._constants[name] = value

    def _value(self, name: str) -> Tensor:
        """Return a constant: weights where the module is, numbers and axes, which are only read, where they were."""
        key = _safe(name)
        if key in self._weights:
            weight: Tensor = self._weights[key]
            return weight
        return self._constants[name]


def _safe(name: str) -> str:
    return name.replace(".", "_")


def _is_six(values: list[Any]) -> bool:
    return (
        len(values) == 3
        and all(v is not None and v.numel() == 1 for v in values[1:])
        and (float(values[1]) == 0.0 and float(values[2]) == 6.0)
    )


def _conv(values: list[Any], said: dict[str, Any]) -> Tensor:
    x, weight, *bias = values
    top, left, bottom, right = said.get("pads", [0, 0, 0, 0])
    if (top, left) == (bottom, right):
        padding: Any = (top, left)
    else:
        x, padding = nnf.pad(x, (left, right, top, bottom)), 0
    return nnf.conv2d(
        x,
        weight,
        bias[0] if bias else None,
        stride=tuple(said.get("strides", [1, 1])),
        padding=padding,
        dilation=tuple(said.get("dilations", [1, 1])),
        groups=said.get("group", 1),
    )


def _conv_transpose(values: list[Any], said: dict[str, Any]) -> Tensor:
    x, weight, *bias = values
    top, left, _, _ = said.get("pads", [0, 0, 0, 0])
    return nnf.conv_transpose2d(
        x,
        weight,
        bias[0] if bias else None,
        stride=tuple(said.get("strides", [1, 1])),
        padding=(top, left),
        output_padding=tuple(said.get("output_padding", [0, 0])),
        groups=said.get("group", 1),
    )


def _depth_to_space(values: list[Any], said: dict[str, Any]) -> Tensor:
    x, size = values[0], said["blocksize"]
    if said.get("mode", b"DCR") != b"CRD":
        batch, channels, rows, cols = x.shape
        inner = channels // size**2
        x = x.view(batch, size**2, inner, rows, cols).transpose(1, 2).reshape(batch, channels, rows, cols)
    return nnf.pixel_shuffle(x, size)


def _clip(values: list[Any], _: dict[str, Any]) -> Tensor:
    x, low, high = (*values, None, None)[:3]
    out: Tensor = torch.clamp(x, min=None if low is None else float(low), max=None if high is None else float(high))
    return out


def _pad(values: list[Any], said: dict[str, Any]) -> Tensor:
    pads = [int(side) for side in values[1].tolist()]
    half = len(pads) // 2
    flat = [side for axis in reversed(range(half)) for side in (pads[axis], pads[axis + half])]
    fill = float(values[2]) if len(values) > 2 and values[2] is not None else 0.0
    mode = said.get("mode", b"constant").decode()
    return nnf.pad(values[0], flat, value=fill) if mode == "constant" else nnf.pad(values[0], flat[:4], mode=mode)


_OPS: Final[dict[str, Callable[[list[Any], dict[str, Any]], Tensor]]] = {
    "Abs": lambda v, _: v[0].abs(),
    "Add": lambda v, _: v[0] + v[1],
    "AveragePool": lambda v, said: nnf.avg_pool2d(
        v[0],
        tuple(said["kernel_shape"]),
        stride=tuple(said.get("strides", [1, 1])),
        padding=tuple(said.get("pads", [0, 0])[:2]),
        ceil_mode=bool(said.get("ceil_mode", 0)),
        count_include_pad=bool(said.get("count_include_pad", 0)),
    ),
    "BatchNormalization": lambda v, said: nnf.batch_norm(
        v[0], v[3], v[4], v[1], v[2], training=False, eps=said.get("epsilon", 1e-5)
    ),
    "Cast": lambda v, said: v[0].to(_TYPES[said["to"]]),
    "Clip": _clip,
    "Concat": lambda v, said: torch.cat(v, dim=said["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": lambda v, _: v[0] / v[1],
    "Identity": lambda v, _: v[0],
    "MaxPool": lambda v, said: nnf.max_pool2d(
        v[0], tuple(said["kernel_shape"]), stride=tuple(said["strides"]), padding=tuple(said.get("pads", [0, 0])[:2])
    ),
    "Mul": lambda v, _: v[0] * v[1],
    "Neg": lambda v, _: -v[0],
    "Pad": _pad,
    "Reciprocal": lambda v, _: v[0].reciprocal(),
    "Relu": lambda v, _: v[0].relu(),
    "ReduceMean": lambda v, said: v[0].mean(tuple(v[1].tolist()), keepdim=bool(said.get("keepdims", 1))),
    "Sigmoid": lambda v, _: v[0].sigmoid(),
    "Sqrt": lambda v, _: v[0].sqrt(),
    "Sub": lambda v, _: v[0] - v[1],
    "Transpose": lambda v, said: v[0].permute(*said["perm"]),
}
