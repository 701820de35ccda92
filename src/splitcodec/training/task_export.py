"""A trained task run + a bundle -> the bundle with the task's tail: graphs, `task_<task>.json`, model card.

Nothing that the device or the classifier needs changes: the fingerprint stays, so packets of devices in the field are
answered by the new bundle. Bundles of several encoders with one decoder take the same heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import splitcodec
from splitcodec.errors import BundlePart, RunError
from splitcodec.model.fcos import Fcos
from splitcodec.model.segmenter import DeepLab, Segmenter
from splitcodec.training.graphs import cost
from splitcodec.training.task_data import MULTIPLE
from splitcodec.training.task_graphs import FcosTail, MapsTail, SegmentTail, folded_in_place, joint_onnx
from splitcodec.training.task_networks import Networks
from splitcodec.training.task_recipe import TaskRecipe
from splitcodec.training.task_run import TaskRun, put_weights
from splitcodec.wire.bundle import CARD, Bundle, derive, renamed, write_folder
from splitcodec.wire.task import TaskSpec, file_name


def export_task(
    run_folder: Path, bundle: Bundle, out: Path, *, name: str | None = None, version: int | None = None
) -> Bundle:
    """Write the bundle with the run's task added (or replaced) as a new folder `out`.

    `name` and `version` are the new bundle's (none: the old ones'). A run still going on is exported from its last
    checkpoint; before its student has begun, the teacher's head stands in for the student's. Raises RunError,
    RecipeError, BundlePart, BundleError, OutputError.
    """
    if bundle.is_device_half:
        raise BundlePart(f"{bundle.ident}: the device's half of a bundle has no tails; give the whole one")
    run = TaskRun(run_folder)
    facts, recipe = run.facts(), run.recipe()
    _check_made_for(bundle, facts, run_folder)
    bundle = renamed(bundle, name, version)
    fabric = Fabric(accelerator="cpu", devices=1)
    networks = Networks(recipe, bundle, fabric, classes=len(facts["classes"]), shares=None)
    parts = networks.trained(recipe)
    put_weights(parts, run.weights())
    if run.only_taught():
        networks.begin_as_teacher()
    task: Any = recipe.task
    own = [bundle.task(other) for other in bundle.manifest.tasks if other not in ("classify", task)]
    side = recipe.teacher.crop // bundle.manifest.stride
    latent = torch.zeros(2, bundle.manifest.channels, side, side)
    with torch.no_grad():
        feature = networks.packets.decoder(latent)
        maps = list(networks.backbone(feature))
    keeps = recipe.layers[0] == recipe.teacher.cut
    names, graphs = _before_the_head(recipe, networks, bundle, latent=latent, feature=feature, others=own)
    costs: dict[str, int] = {}
    if names["backbone"]:
        costs["backbone"] = cost(MapsTail(networks.backbone, keeps_feature=keeps).eval(), feature[:1]).macs
    inputs = [f"map_{place}" for place in range(len(maps))]
    files: dict[str, bytes] = {f"{names[key]}.onnx": data for key, data in graphs.items()}
    for file, head in ((f"tail_{task}", parts["head"]), (f"teacher_{task}", parts["teacher"])):
        tail, targets = _tail(head)
        files[f"{file}.onnx"] = joint_onnx(tail, maps, inputs, targets)
        costs[file] = _macs(tail, maps)
    spec = TaskSpec(
        task=task,
        classes=tuple(facts["classes"]),
        side=recipe.data.side,
        multiple=MULTIPLE,
        strides=tuple(level.stride for level in networks.levels),
        feature_stride=networks.levels[0].stride * (1 + networks.levels[0].doubled),
        keeps_feature=keeps,
        layers=recipe.layers,
        decoder=names["decoder"],
        backbone=names["backbone"],
        teacher_backbone=names["teacher_backbone"],
        provenance={
            **{key: facts[key] for key in ("recipe", "commit", "data", "pictures", "torch", "python")},
            "report": run.so_far(),
            "macs_of_a_crop": costs,
            "splitcodec": splitcodec.__version__,
        },
    )
    files[file_name(task)] = spec.to_json()
    if bundle.has(CARD):
        files[CARD] = _card(bundle.read(CARD).decode(), spec).encode()
    manifest = replace(bundle.manifest, tasks=tuple(dict.fromkeys((*bundle.manifest.tasks, task))))
    return write_folder(derive(bundle, manifest, files=files), out)


def _before_the_head(
    recipe: TaskRecipe,
    networks: Networks,
    bundle: Bundle,
    *,
    latent: Tensor,
    feature: Tensor,
    others: Sequence[TaskSpec],
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return what decoder and backbones are called, and those graphs that the bundle does not have yet, by their keys.

    A classifier that gives the layers' features as well is the backbone; else tasks of the same layers share one.
    """
    task, keeps = recipe.task, recipe.layers[0] == recipe.teacher.cut
    later = recipe.layers[int(keeps) :]
    names = {"decoder": "decoder", "backbone": "", "teacher_backbone": ""}
    graphs: dict[str, bytes] = {}
    if "decoder" in recipe.tune:
        names["decoder"] = f"decoder_{task}"
        graphs["decoder"] = joint_onnx(networks.decoder, [latent], ["latent_bchw"], ["feature_bchw"])
    if not later:
        return names, graphs
    if "backbone" not in recipe.tune and set(later) <= set(_outputs(bundle.graph("tail_classify"))):
        return {**names, "backbone": "tail_classify", "teacher_backbone": "tail_classify"}, graphs
    backbone = MapsTail(networks.backbone, keeps_feature=keeps).eval()
    shared = next((spec for spec in others if spec.layers == recipe.layers and spec.backbone == "backbone"), None)
    taken = shared is None and any(spec.backbone == "backbone" for spec in others)
    names["backbone"] = f"backbone_{task}" if "backbone" in recipe.tune or taken else "backbone"
    outputs = [f"map_{place + keeps}" for place in range(len(later))]
    if names["backbone"] != "backbone" or shared is None:
        graphs["backbone"] = joint_onnx(backbone, [feature], ["feature_bchw"], outputs)
    names["teacher_backbone"] = names["backbone"]
    if "backbone" in recipe.tune:  # the teacher's is another
        names["teacher_backbone"] = f"teacher_backbone_{task}"
        of_teacher = MapsTail(networks.teacher_backbone, keeps_feature=keeps).eval()
        graphs["teacher_backbone"] = joint_onnx(of_teacher, [feature], ["feature_bchw"], outputs)
    return names, graphs


def _outputs(graph: bytes) -> list[str]:
    return [one.name for one in onnx.load_from_string(graph).graph.output]


def _check_made_for(bundle: Bundle, facts: dict[str, Any], run_folder: Path) -> None:
    """Refuse a bundle with another decoder. One with it may have another encoder: the latent means the same."""
    if facts["decoder"] != bundle.manifest.files["decoder.onnx"].sha256:
        raise RunError(
            f"{run_folder} was trained on {facts['bundle']}, whose decoder is not that of {bundle.ident}; "
            "give the bundle that it was trained on, or one with the same decoder"
        )


def _tail(head: nn.Module) -> tuple[nn.Module, list[str]]:
    """Return a head as it is exported, and its outputs' names. Raises RunError for one that only trains."""
    head = head.eval()
    if isinstance(head, Fcos):
        return FcosTail(head).eval(), ["scores", "edges"]
    if isinstance(head, Segmenter | DeepLab):
        return SegmentTail(folded_in_place(head)).eval(), ["logits"]
    raise RunError(
        f"a head of {type(head).__name__} is scored while it trains (log.jsonl), but not exported; "
        "bundles take the kinds fcos, segmenter and deeplabv3"
    )


def _macs(tail: nn.Module, maps: list[Tensor]) -> int:
    class _Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tail = tail

        def forward(self, _: Tensor) -> Tensor:
            self.tail(*(one[:1] for one in maps))
            return _

    return cost(_Listed(), maps[0][:1]).macs


def _card(card: str, spec: TaskSpec) -> str:
    """Return the model card with a section on the task, in place of an older one."""
    title = f"## Task: {spec.task}"
    before, _, rest = card.partition(f"\n{title}\n")
    after = "".join(rest.partition("\n## ")[1:])
    known = spec.provenance or {}
    report = known.get("report") or {}
    scores = report.get("scores", {})
    lines = "\n".join(
        f"| {stage} | " + ", ".join(f"{key} {value:.1f}" for key, value in found.items()) + " |"
        for stage, found in scores.items()
    )
    own = [name for name in (spec.decoder, spec.backbone) if name.endswith(f"_{spec.task}")]
    early = ""
    if not report.get("finished", True):
        early = f"\n\nThe run had not finished: the weights are those of its last checkpoint, in {report.get('stage')}."
    shares = f"brings its own {' and '.join(own)}" if own else "uses the shared decoder and the frozen shared backbone"
    return f"""{before.rstrip()}

{title}

{len(spec.classes)} classes, pictures letterboxed to a longest side of {spec.side}. The head {shares}. Trained on
{report.get("pictures", known.get("pictures"))} labelled pictures of {known.get("data")} by recipe {
        known.get("recipe")
    }: few, so expect less
elsewhere. {report.get("task_epochs", "?")} task epochs for teacher and student alike, {
        report.get("distil_epochs", "?")
    } of distillation between.{early}

| stage | scores while training, %: teacher on uncompressed pictures, student at a middle level |
|---|---|
{lines}
{after}"""
