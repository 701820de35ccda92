"""A bundle -> the same bundle cut later: the teacher's blocks between the cuts join the decoder.

What the device runs, packets and answers stay (the fingerprint too); head and tail become those of other bundles cut
there, so a zoo keeps one of each, and heads of tasks that were made for that cut fit.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from splitcodec.errors import BundlePart, RunError
from splitcodec.model.pyramid import Backbone
from splitcodec.model.teacher import Teacher
from splitcodec.training.build import build_teacher
from splitcodec.training.from_onnx import FromOnnx
from splitcodec.training.graphs import to_onnx
from splitcodec.training.recipe import Recipe
from splitcodec.wire.bundle import CARD, Bundle, derive, write_folder

CLOSE: Final = 1e-3
"""Largest relative squared difference between what must be the same."""


def recut(bundle: Bundle, recipe: Recipe, cut: str, onto: Bundle, out: Path, *, version: int | None = None) -> Bundle:
    """Write `bundle`, made by `recipe`, as a new folder `out` whose teacher is cut after the later layer `cut`.

    Head and classifier are taken from `onto`, a bundle of the same teacher cut there. The version is the next one
    unless given. Raises BundlePart for a device's half or a bundle with other tasks, TeacherError for a layer that is
    not behind the old cut, RunError where a bundle is not what recipe and cut say.
    """
    if bundle.is_device_half or bundle.manifest.tasks != ("classify",):
        raise BundlePart(f"{bundle.ident}: expected a whole bundle that classifies alone; add its tasks afterwards")
    old = _teacher(recipe, later=(cut,))
    new = _teacher(recipe, cut=cut)
    manifest, crop = bundle.manifest, recipe.teacher.crop
    _check_head(bundle, old, recipe)
    _check_head(onto, new, recipe)
    between = _Between(old, cut=cut, crop=crop)
    decoder = FromOnnx(bundle.graph("decoder"), name=f"{bundle.ident}: decoder.onnx")
    rows = crop // manifest.stride
    latent = torch.from_numpy(
        np.random.default_rng(0).normal(size=(2, manifest.channels, rows, rows)).astype(np.float32)
    )
    with torch.no_grad():
        early = decoder(latent)
        feature = between(early)
    step = early.shape[-1] // feature.shape[-1]
    block = to_onnx(between, early, source="cut_bchw", target="feature_bchw", rows=2, cols=3, step=step)
    joined = _joined(bundle.graph("decoder"), block)
    _hold(FromOnnx(joined, name="decoder.onnx")(latent), feature, bundle)
    fresh = replace(
        manifest,
        version=manifest.version + 1 if version is None else version,
        provenance={**manifest.provenance, "recut": {"from": bundle.ident, "was": recipe.teacher.cut, "cut": cut}},
    )
    files = {
        "decoder.onnx": joined,
        "head.onnx": onto.graph("head"),
        "tail_classify.onnx": onto.graph("tail_classify"),
        CARD: _card(bundle, fresh.ident, f"from `{recipe.teacher.cut}` to `{cut}`").encode(),
    }
    return write_folder(derive(bundle, fresh, files=files), out)


def _card(bundle: Bundle, ident: str, moved: str) -> str:
    card = bundle.read(CARD).decode() if bundle.has(CARD) else f"# {bundle.ident}\n"
    return f"""{card.replace(f"# {bundle.ident}", f"# {ident}", 1).rstrip()}

## Cut anew

`{ident}` is `{bundle.ident}` with the teacher's blocks {moved} moved into the decoder: the same packets, the same
answers.
"""


def _teacher(recipe: Recipe, *, cut: str | None = None, later: tuple[str, ...] = ()) -> Teacher:
    changed = recipe.teacher.model_copy(update={"later": later, **({"cut": cut} if cut else {})})
    return build_teacher(recipe.model_copy(update={"teacher": changed}))


class _Between(nn.Module):
    """The teacher's blocks between two cuts."""

    def __init__(self, teacher: Teacher, *, cut: str, crop: int) -> None:
        super().__init__()
        self.blocks = Backbone(teacher, cut="", layers=[cut], crop=crop)

    def forward(self, cut_bchw: Tensor) -> Tensor:
        """Map the feature at the old cut to that at the new one."""
        out: Tensor = self.blocks(cut_bchw)[0]
        return out


def _joined(decoder: bytes, block: bytes) -> bytes:
    """Return one graph of two, the second after the first."""
    first, second = onnx.load_from_string(decoder), onnx.load_from_string(block)
    _rename(first, "early_bchw")
    second = onnx.compose.add_prefix(second, "next_")
    both = onnx.compose.merge_models(first, second, io_map=[("early_bchw", "next_cut_bchw")])
    _rename(both, "feature_bchw")
    file = BytesIO()
    onnx.save(both, file)
    return file.getvalue()


def _rename(model: onnx.ModelProto, name: str) -> None:
    """Call the only output `name`."""
    old = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [name if one == old else one for one in node.output]
        node.input[:] = [name if one == old else one for one in node.input]
    model.graph.output[0].name = name


@torch.no_grad()
def _check_head(bundle: Bundle, teacher: Teacher, recipe: Recipe) -> None:
    """Hold a bundle's head against the teacher's."""
    side = recipe.teacher.crop
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8))
    scale, offset = recipe.teacher.affine()
    ours = teacher.head(image.permute(0, 3, 1, 2).float() * scale + offset)
    _hold(ours, FromOnnx(bundle.graph("head"), name=f"{bundle.ident}: head.onnx")(image), bundle)


def _hold(ours: Tensor, theirs: Tensor, bundle: Bundle) -> None:
    if ours.shape != theirs.shape or float((ours - theirs).square().mean()) > CLOSE * float(theirs.var()):
        raise RunError(f"{bundle.ident}: its teacher or cut is not that of the recipe; give the one it was made by")
