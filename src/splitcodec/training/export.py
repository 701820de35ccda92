"""A trained run -> a bundle: ONNX graphs, integer tables, golden vectors, model card."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

import splitcodec
from splitcodec.errors import RecipeError
from splitcodec.model.parts import TableBottleneck
from splitcodec.model.pictures import EightBitColours
from splitcodec.model.pyramid import answer_and_maps
from splitcodec.model.student import Student
from splitcodec.model.teacher import PACKAGED, Teacher
from splitcodec.training.build import MAX_GRID, build_student, build_teacher, class_names, latent_side, latent_stride
from splitcodec.training.earlier import report_of_run
from splitcodec.training.graphs import Cost, FromPixels, LogitsOnly, cost, folded, to_onnx
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run
from splitcodec.training.students import ReducedRecipe
from splitcodec.training.tabulate import build_tables
from splitcodec.training.task_graphs import joint_onnx
from splitcodec.training.teacher_file import check_teacher_file
from splitcodec.wire.bundle import CARD, Bundle, Colour, Manifest, write_bundle
from splitcodec.wire.durable import check_free

MAX_SIDE = 1024

Golden = Callable[[Bundle], bytes]
"""Makes golden/vectors.npz with a bundle that lacks only them."""


def export(run_folder: Path, out: Path, *, golden: Golden, maps: Sequence[str] = ()) -> Bundle:
    """Write the run's student as a bundle folder `out`, which must not exist yet.

    A run still going on is exported from its last checkpoint, and provenance and card say so. With `maps`, layers
    behind the cut, the classifier's graph gives their features too, for heads of other tasks. Raises RunError,
    RecipeError, OutputError, BundleError, TeacherError.
    """
    check_free(out)
    run = Run(run_folder)
    recipe = run.recipe()
    teacher = build_teacher(recipe)
    student = build_student(recipe, teacher)
    if not isinstance(student.bottleneck, TableBottleneck):
        raise RecipeError(
            f"student.kind: no packet carries what a {recipe.student.kind} codes; "
            "measure the run with benchmarks/learned_codecs.py"
        )
    student.load_state_dict(run.weights())
    check_teacher_file(run_folder, run.provenance(), recipe)
    student.eval()
    joint = {"tail_classify.onnx": _joint_tail(recipe, student, maps)} if maps else {}  # a layer that is none: now
    graphs, price = _graphs(recipe, teacher, student)
    graphs |= joint
    tables = BytesIO()
    flat = isinstance(recipe.student, ReducedRecipe) and recipe.student.flat
    built = build_tables(student.tabled(), None if flat else run.counts())
    built.save(tables)
    labels, wnids = class_names(recipe)
    stride = latent_stride(recipe, teacher)
    side = min(MAX_SIDE, MAX_GRID * stride)
    side -= stride * max(0, latent_side(recipe, side, stride=stride) - MAX_GRID)
    side = max(recipe.teacher.crop, side)
    provenance: dict[str, Any] = {
        **run.provenance(),
        "report": report_of_run(run),
        "splitcodec": splitcodec.__version__,
        **({"wnids": wnids} if wnids else {}),
    }
    manifest = Manifest(
        name=recipe.name,
        version=recipe.version,
        colour=_colour(recipe),
        stride=stride,
        resize=recipe.teacher.resize,
        crop=recipe.teacher.crop,
        channels=recipe.student.channels,
        levels=recipe.levels.count,
        default_level=recipe.levels.default,
        max_symbols=recipe.student.channels * latent_side(recipe, side, stride=stride) ** 2,
        max_side=side,
        classes=tuple(labels),
        tasks=("classify",),
        encoder={"macs": price.macs, "parameters": price.parameters, "bytes": len(graphs["encoder.onnx"])},
        provenance=provenance,
    )
    files = {**graphs, "tables.npz": tables.getvalue(), CARD: _card(recipe, manifest).encode()}
    with tempfile.TemporaryDirectory() as folder:
        vectors = golden(write_bundle(Path(folder) / "draft", manifest, files=files))
    return write_bundle(out, manifest, files={**files, "golden/vectors.npz": vectors})


def _graphs(recipe: Recipe, teacher: Teacher, student: Student) -> tuple[dict[str, bytes], Cost]:
    colour, crop = _colour(recipe), recipe.teacher.crop
    stride = latent_stride(recipe, teacher)
    pixels = torch.zeros(2, crop, crop, 3, dtype=torch.uint8)
    encoder = FromPixels(
        nn.Sequential(teacher.stem, folded(student.squeeze)), scale=colour.scale, offset=colour.offset
    ).eval()
    head = FromPixels(nn.Sequential(teacher.stem, teacher.rest), scale=colour.scale, offset=colour.offset).eval()
    own = teacher.tail if student.tail is None else student.tail
    decoder, tail = folded(student.decoder), LogitsOnly(own).eval()
    if recipe.is_image_codec():
        step_c, offset_c = recipe.teacher.colours()
        decoder = nn.Sequential(decoder, EightBitColours(torch.tensor(step_c), torch.tensor(offset_c))).eval()
    with torch.no_grad():
        latent, feature = encoder(pixels), head(pixels)
    image, plane = {"rows": 1, "cols": 2, "step": stride}, {"rows": 2, "cols": 3, "step": 1}
    extra = latent_side(recipe, crop, stride=stride) - crop // stride
    graphs = {
        "encoder.onnx": to_onnx(
            encoder, pixels, source="image_bhwc", target="latent_bchw", least=1 + max(0, -extra), **image
        ),
        "head.onnx": to_onnx(head, pixels, source="image_bhwc", target="feature_bchw", **image),
        "decoder.onnx": to_onnx(
            decoder, latent, source="latent_bchw", target="feature_bchw", least=1 + max(0, extra), **plane
        ),
        "tail_classify.onnx": to_onnx(tail, feature, source="feature_bchw", target="logits", **plane),
    }
    return graphs, cost(encoder, pixels[:1])


def _joint_tail(recipe: Recipe, student: Student, maps: Sequence[str]) -> bytes:
    if student.tail is not None:
        raise RecipeError("maps: this run tuned its tail, and heads of other tasks are made for the teacher's")
    wanted = recipe.teacher.model_copy(update={"later": tuple(maps)})
    teacher = build_teacher(recipe.model_copy(update={"teacher": wanted}))
    side = recipe.teacher.crop // teacher.stride
    feature = torch.zeros(2, teacher.width, side, side)
    return joint_onnx(answer_and_maps(teacher.tail).eval(), [feature], ["feature_bchw"], ["logits", *maps])


def _colour(recipe: Recipe) -> Colour:
    scale, offset = recipe.teacher.affine()
    return Colour(scale=scale, offset=offset)


def _card(recipe: Recipe, manifest: Manifest) -> str:
    known = manifest.provenance
    report = known.get("report") or {}
    told = report.get("holdout", [])
    held = "\n".join(f"| {p['level']} | {p['bytes_estimate']:.0f} | {p['agreement']:.1f} |" for p in told)
    weights = recipe.teacher.weights if recipe.teacher.weights == PACKAGED else Path(recipe.teacher.weights).name
    shown = recipe.model_dump(mode="json")
    shown["teacher"]["weights"] = weights  # a file's name, not where it lay
    if recipe.teacher.classes is not None:
        shown["teacher"]["classes"] = recipe.teacher.classes.name
    for key, folder in (("start", recipe.start), ("lead", recipe.lead)):
        if folder is not None:
            shown[key] = folder.name
    return f"""# {manifest.ident}

Entropic student of `{recipe.teacher.model}` (weights: {weights}), cut after `{recipe.teacher.cut}`.
The device runs {recipe.student.words()}:
{manifest.encoder["macs"] / 1e6:.1f} M multiply-accumulates at {manifest.crop} x {manifest.crop},
{manifest.encoder["parameters"]:,} parameters. {manifest.levels} rate levels, {manifest.channels} latent channels,
stride {manifest.stride}.

{_trained(known, report)} {_built_on(report)}{_tail(recipe)}

Held-out photographs of the same folders: agreement with the uncompressed teacher, packets estimated from the prior.

| level | bytes (estimate) | agreement, % |
|---|---|---|
{held}

Answers are no better than the teacher's: {_classes(recipe, manifest)}, centre crops of photographs. Not for decisions
about people.

Recipe:

```json
{json.dumps(shown, indent=1)}
```
"""


def _trained(known: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """Say who trained it, on what."""
    folders = ", ".join(known.get("folders", []))
    file = report.get("checkpoint")
    if file is not None:
        return (
            f"Trained elsewhere, with the paper's published code: its weights are those of `{file['file']}`\n"
            f"(sha256 {file['sha256']}),\n"
            f"imported at commit {known.get('commit')}. Symbols were counted on "
            f"{_photographs(known, report)} ({folders})."
        )
    seconds, images = report.get("seconds", 0), report.get("images", "unknown number of")
    stage = f", in {report['stage']}" if "stage" in report else ""
    early = (
        "" if report.get("finished", True) else f" Not finished: the weights are those of its last checkpoint{stage}."
    )
    return (
        f"Trained by `splitcodec train` on {_photographs(known, report)} ({folders};\n"
        f"{images} pictures seen, {seconds / 60:.0f} minutes) at commit\n{known.get('commit')}.{early}"
    )


def _classes(recipe: Recipe, manifest: Manifest) -> str:
    return "ImageNet-1k classes" if recipe.teacher.classes is None else f"{len(manifest.classes)} classes of its own"


def _photographs(known: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """Say how many photographs served, and how many had labels where that mattered."""
    used = report.get("counted" if "checkpoint" in report else "photographs")
    count = known.get("photographs") if used is None else used  # all that there are, where a run has not finished
    if "labelled" not in report:
        return f"{count} unlabelled photographs"
    return f"{count} photographs, {report['labelled']} with labels, else by the teacher's own answer"


def _built_on(report: dict[str, Any]) -> str:
    """Say what earlier runs had seen that this one builds upon."""
    names = ", ".join(f"`{one['recipe']}`" for one in report.get("builds_on", []))
    return f"It builds on {names}: {report['images_cumulative']} pictures in all. " if names else ""


def _tail(recipe: Recipe) -> str:
    if recipe.own_tail():
        return "The tail was tuned as well: with `head.onnx` it is not quite the teacher."
    return "The tail is the teacher's own, untouched."
