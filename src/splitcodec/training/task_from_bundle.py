"""A bundle's task teacher -> the weights of a head, so that another bundle's head may be led by what ships.

A graph holds convolutions with batch norm folded in, or as a factor and a shift behind them; both become batch norms
that give what the graph gives, with the statistics of some pictures (`from_bundle.settle`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from splitcodec.errors import RecipeError
from splitcodec.model.fcos import Fcos
from splitcodec.model.segmenter import Segmenter
from splitcodec.training.from_bundle import load_convolutions, plain, settle
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.task import TaskSpec

_TOWERS: Final = {"class_layers": "class_tower", "edge_layers": "edge_tower"}
Values = dict[str, NDArray[np.float32]]


@torch.no_grad()
def begin_as_task_teacher(
    bundle: Bundle, spec: TaskSpec, head: nn.Module, *, layers: tuple[str, ...], run: Callable[[], object]
) -> None:
    """Give a head the weights of a bundle's task teacher; `run` shows it some uncompressed pictures.

    Raises RecipeError for another kind of head, other layers or sizes.
    """
    where = f"lead: {bundle.ident}: teacher_{spec.task}.onnx"
    if tuple(spec.layers) != tuple(layers):
        raise RecipeError(f"lead: {bundle.ident} has {', '.join(spec.layers)} for {spec.task}; make `layers` the same")
    graph = onnx.load_from_string(bundle.graph(f"teacher_{spec.task}")).graph
    found = {one.name.removesuffix("_f16"): numpy_helper.to_array(one).astype(np.float32) for one in graph.initializer}
    head.eval()
    if isinstance(head, Segmenter):
        load_convolutions(found, head, prefix="segmenter.", graph=where)
    elif isinstance(head, Fcos):
        load_convolutions(found, head.neck, prefix="head.neck.", graph=where)
        for name in ("classify", "edges", "quality"):
            load_convolutions(found, nn.ModuleDict({name: head.get_submodule(name)}), prefix="head.", graph=where)
        _load_towers(graph, found, head, where=where)
    else:
        raise RecipeError(f"lead: a bundle leads heads of kind fcos and segmenter alone, not {type(head).__name__}")
    settle(head, run)


def _load_towers(graph: Any, found: Values, head: Fcos, *, where: str) -> None:
    """Walk the graph level by level: a tower's convolution, its factor, its shift; and what is added to the edges."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    level = dict.fromkeys((*_TOWERS, "edges"), 0)
    for node in graph.node:
        name = node.input[1] if node.op_type == "Conv" and len(node.input) > 1 else ""
        part, _, rest = name.removeprefix("head.").partition(".")
        if part == "edges":
            head.scale[level[part]] = float(_constant(readers, found, node, where=where)[0].ravel()[0])
            level[part] += 1
        if part not in _TOWERS:
            continue
        depth = int(rest.partition(".")[0])
        tower: Any = head.get_submodule(_TOWERS[part])
        load_convolutions(
            {"layer.weight": found[name]}, nn.ModuleDict({"layer": tower.layers[depth]}), prefix="", graph=where
        )
        factor, scaled = _constant(readers, found, node, where=where)
        shift, _ = _constant(readers, found, scaled, where=where)
        plain(tower.norms[level[part]][depth], torch.from_numpy(shift.ravel()), torch.from_numpy(factor.ravel()))
        level[part] += depth == len(tower.layers) - 1


def _constant(
    readers: dict[str, list[Any]], found: Values, node: Any, *, where: str
) -> tuple[NDArray[np.float32], Any]:
    """Return the constant that is multiplied with, or added to, what a node gives, and the node that does so."""
    for reader in readers.get(node.output[0], []):
        for name in reader.input:
            if name in found and reader.op_type in ("Mul", "Add"):
                return found[name], reader
    raise RecipeError(f"{where} is no graph of this project's head of kind fcos; train a teacher of your own")
