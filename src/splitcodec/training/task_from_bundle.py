"""A run's or a bundle's task teacher -> the weights of a head, so that another bundle's head may be led by it.

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
from splitcodec.training.earlier import is_run
from splitcodec.training.from_bundle import load_convolutions, opened, plain, settle
from splitcodec.training.task_data import LabelledPictures
from splitcodec.training.task_networks import Networks
from splitcodec.training.task_recipe import TaskRecipe
from splitcodec.training.task_run import TaskRun, put_weights
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.task import TaskSpec

_TOWERS: Final = {"class_layers": "class_tower", "edge_layers": "edge_tower"}
_STREAM: Final = 3  # of the pictures shown: none that a stage learns from
Values = dict[str, NDArray[np.float32]]


def take_teacher(recipe: TaskRecipe, networks: Networks, pictures: LabelledPictures) -> None:
    """Give the task teacher the weights of the run or bundle that leads; nothing where none does.

    Raises RecipeError for a run that has not finished or a bundle without the task, RunError for a run of another head.
    """
    lead = recipe.lead
    if lead is None:
        return
    if is_run(lead):
        if not TaskRun(lead).report().get("finished"):
            raise RecipeError(f"lead: the run in {lead} has not finished; let it go to its end first")
        put_weights(networks.trained(recipe), TaskRun(lead).weights(), only=("teacher", "teacher_backbone"))
        return
    bundle = opened("lead", lead)
    if recipe.task not in bundle.manifest.tasks:
        raise RecipeError(f"lead: {bundle.ident} has no tail for {recipe.task}; give a bundle that has, or a run")
    image_u8, _ = next(pictures.batches(0, 1, batch=recipe.teach.batch, stream=_STREAM))
    begin_as_task_teacher(
        bundle,
        bundle.task(recipe.task),
        networks.teacher_head,
        layers=recipe.layers,
        run=lambda: networks.teacher_head(networks.teacher_backbone(networks.pictures(image_u8))),
    )


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
