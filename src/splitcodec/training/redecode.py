"""A bundle -> the same bundle with the decoder that a run has learned for it; devices and packets stay what they are.

The run begins with a bundle (`start`) and tunes the decoder alone (`stage1: {tune: decoder}`). Any bundle with the
decoder that it began with can take the new one: bundles that share a decoder go on sharing it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from splitcodec.errors import BundlePart, OutputError, RunError
from splitcodec.training.build import build_student, build_teacher
from splitcodec.training.earlier import is_run
from splitcodec.training.from_bundle import opened
from splitcodec.training.graphs import folded, to_onnx
from splitcodec.training.run import Run
from splitcodec.wire.bundle import Bundle, derive, write_folder

DECODER = "decoder.onnx"

Remade = Callable[[Bundle, Bundle], dict[str, bytes]]
"""Makes golden vectors anew: (the old bundle, one with the new decoder) -> files."""


def redecode(bundle: Bundle, run_folder: Path, out: Path, *, remade: Remade, version: int | None = None) -> Bundle:
    """Write `bundle` with the run's decoder as a new folder `out`; tables, encoder and fingerprint stay.

    The version is the next one unless given. Raises BundlePart for a device's half, RunError where the run tuned more
    than the decoder or began with another one, RecipeError, TeacherError, OutputError.
    """
    if out.exists():
        raise OutputError(f"{out} exists; choose another folder or remove it first")
    if bundle.is_device_half:
        raise BundlePart(f"{bundle.ident}: the device's half of a bundle has no decoder to replace; give the whole one")
    run = Run(run_folder)
    recipe, manifest = run.recipe(), bundle.manifest
    if recipe.start is None or is_run(recipe.start) or any(stage.tune != "decoder" for _, stage in recipe.stages()):
        raise RunError(
            f"{run_folder}: no run that begins with a bundle and tunes its decoder alone (start: BUNDLE, stage1: "
            "{tune: decoder}); write it with `splitcodec export` instead"
        )
    began = opened("start", recipe.start)
    if began.manifest.files.get(DECODER) != manifest.files[DECODER]:
        raise RunError(f"{run_folder}: it began with the decoder of {began.ident}, and {bundle.ident} has another")
    student = build_student(recipe, build_teacher(recipe))
    student.load_state_dict(run.weights())
    rows = manifest.crop // manifest.stride
    latent = torch.zeros(2, manifest.channels, rows, rows)
    graph = to_onnx(
        folded(student.decoder), latent, source="latent_bchw", target="feature_bchw", rows=2, cols=3, step=1
    )
    note = {"from": bundle.ident, "began_with": began.ident, **run.provenance()}
    number = manifest.version + 1 if version is None else version
    provenance = {**manifest.provenance, "report": run.report(), "redecoded": note}  # whose pictures count the old ones
    fresh = replace(manifest, version=number, provenance=provenance)
    files = {DECODER: graph, "MODEL_CARD.md": _card(bundle, fresh.ident, run.report().get("images", 0)).encode()}
    new = derive(bundle, fresh, files=files)
    return write_folder(derive(new, new.manifest, files=remade(bundle, new)), out)


def _card(bundle: Bundle, ident: str, images: int) -> str:
    card = bundle.read("MODEL_CARD.md").decode() if bundle.has("MODEL_CARD.md") else f"# {bundle.ident}\n"
    return f"""{card.replace(f"# {bundle.ident}", f"# {ident}", 1).rstrip()}

## Another decoder

`{ident}` is `{bundle.ident}` with a decoder that learned for {images:,} pictures more: the same packets, other answers.
"""
