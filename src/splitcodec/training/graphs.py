"""PyTorch modules -> ONNX graphs: dynamic batch and spatial axes, weights stored as float16 and computed as float32."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.export import Dim
from torch.fx.experimental.optimization import fuse

from splitcodec.model.gdn import settled

OPSET = 20


class Cost(NamedTuple):
    """What a network costs: multiply-accumulates of its convolutions and matrix products, and parameters."""

    macs: int
    parameters: int


@final
class FromPixels(nn.Module):
    """Image uint8 (B, H, W, 3) -> scaled colours -> a network."""

    def __init__(self, network: nn.Module, *, scale: float, offset: float) -> None:
        super().__init__()
        self.network, self.scale, self.offset = network, scale, offset

    def forward(self, image_bhwc: Tensor) -> Any:
        """Map pixels to what the network gives for them."""
        return self.network(image_bhwc.permute(0, 3, 1, 2).float() * self.scale + self.offset)


@final
class LogitsOnly(nn.Module):
    """A teacher's tail without its later features."""

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, feature_bchw: Tensor) -> Tensor:
        """Map the feature at the cut to logits (B, classes)."""
        out = self.tail(feature_bchw)
        logits: Tensor = out[0] if isinstance(out, tuple) else out
        return logits


def folded(module: nn.Module) -> nn.Module:
    """Return a copy in eval mode with batch norm folded into the convolutions, and GDN in the form of one."""
    out: nn.Module = fuse(settled(module.eval()))
    return out


def cost(module: nn.Module, example: Tensor) -> Cost:
    """Count what one example costs."""
    macs = 0

    def count(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal macs
        weight = layer.get_parameter("weight")  # of a transposed convolution by its inputs
        macs += (given[0] if isinstance(layer, nn.ConvTranspose2d) else out).numel() * weight[0].numel()

    counted = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, counted)]
    with torch.no_grad():
        module(example)
    for hook in hooks:
        hook.remove()
    return Cost(macs, sum(p.numel() for p in module.parameters()))


def to_onnx(
    module: nn.Module, example: Tensor, *, source: str, target: str, rows: int, cols: int, step: int, least: int = 1
) -> bytes:
    """Export a module with one input and one output.

    Axes `rows` and `cols` of the input take multiples of `step`, at least `least` of them.
    """
    batch = Dim("batch", min=1, max=4096)
    high, wide = Dim("high", min=least, max=4096 // step), Dim("wide", min=least, max=4096 // step)
    shapes = {0: batch, rows: step * high if step > 1 else high, cols: step * wide if step > 1 else wide}
    return exported(module, (example,), [source], [target], shapes=(shapes,))


def exported(
    module: nn.Module, examples: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str], *, shapes: Any
) -> bytes:
    """Export a module whose inputs have these dynamic shapes."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            module.eval(),
            tuple(examples),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            external_data=False,
            optimize=True,
            verbose=False,
        )
        model = onnx.load(path)
    data: bytes = slim(model).SerializeToString()
    return data


def slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store weights as float16 behind a Cast each, and drop names of this machine's source files."""
    casts = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < 64 or np.abs(array).max() > np.finfo(np.float16).max:
            continue
        small = numpy_helper.from_array(array.astype(np.float16), tensor.name + "_f16")
        casts.append(helper.make_node("Cast", [small.name], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(small)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:], model.metadata_props[:], model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    onnx.checker.check_model(model)
    return model
