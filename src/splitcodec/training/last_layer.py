"""A tail in ONNX -> what lies below its last layer, and the same tail with another one.   used by: own_classes.py

The last layer is the matrix product (Gemm, or MatMul and Add) that gives the first output, the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from splitcodec.errors import GraphError, one_line

_WEIGHT, _BIAS = "own_classes.weight", "own_classes.bias"
_LARGEST: Final = 65504.0  # of float16; a number that hardly ever says anything has a larger weight


def below_last_layer(graph: bytes, *, name: str) -> bytes:
    """Return a graph that gives what the last layer takes: float32 (B, D). Raises GraphError for another ending."""
    model = _loaded(graph, name=name)
    taken = _last_layer(model, name=name).input[0]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(taken, TensorProto.FLOAT, ["batch", "numbers"]))
    return _finished(model, list(model.graph.node))


def with_last_layer(graph: bytes, weight_kd: NDArray[np.float32], bias_k: NDArray[np.float32], *, name: str) -> bytes:
    """Return the tail with K logits, of weights (K, D) and a bias (K,), as float16 where that holds them.

    Raises GraphError.
    """
    model = _loaded(graph, name=name)
    old, output = _last_layer(model, name=name), model.graph.output[0]
    parts = {_WEIGHT: weight_kd, _BIAS: bias_k}
    small = {one: array.astype(np.float16) for one, array in parts.items() if np.abs(array).max() <= _LARGEST}
    casts = [helper.make_node("Cast", [f"{one}_f16"], [one], to=TensorProto.FLOAT) for one in small]
    last = helper.make_node("Gemm", [old.input[0], *parts], [output.name], transB=1)
    for one, array in parts.items():
        kept = (
            numpy_helper.from_array(small[one], f"{one}_f16") if one in small else numpy_helper.from_array(array, one)
        )
        model.graph.initializer.append(kept)
    batch = output.type.tensor_type.shape.dim[0]
    shape = [batch.dim_param or batch.dim_value or "batch", len(bias_k)]
    output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, shape))
    others = [one for one in model.graph.node if output.name not in one.output]
    return _finished(model, [*casts, *others, last])


def _loaded(graph: bytes, *, name: str) -> ModelProto:
    try:
        return onnx.load_from_string(graph)
    except Exception as error:  # protobuf's own errors have no common base
        raise GraphError(f"{name}: no ONNX graph ({one_line(error, most=120)})") from None


def _last_layer(model: ModelProto, *, name: str) -> NodeProto:
    made = {output: node for node in model.graph.node for output in node.output}
    output = model.graph.output[0].name
    node = made.get(output)
    if node is not None and node.op_type == "Add":
        node = next((made[one] for one in node.input if one in made and made[one].op_type == "MatMul"), node)
    if node is None or node.op_type not in ("Gemm", "MatMul"):
        raise GraphError(
            f"{name}: {output} comes of {'nothing' if node is None else node.op_type}, expected one matrix product; "
            "train a tail of your own instead, and give it to: splitcodec bundle retail"
        )
    return node


def _finished(model: ModelProto, nodes: Sequence[NodeProto]) -> bytes:
    """Return the file of a graph of these nodes, without those and the weights that no output comes of."""
    wanted, needed = {one.name for one in model.graph.output}, list[NodeProto]()
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            copied = NodeProto()
            copied.CopyFrom(node)
            needed.append(copied)
    weights = [one for one in model.graph.initializer if one.name in wanted]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(reversed(needed))
    copies = [numpy_helper.from_array(numpy_helper.to_array(one), one.name) for one in weights]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
