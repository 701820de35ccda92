"""Recipe and bundle -> what a task run computes: features from pictures and from packets, the pyramid, the heads."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any, Protocol, final

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from splitcodec.errors import RecipeError, RunError
from splitcodec.model.detectors import FasterRcnn, RetinaNet
from splitcodec.model.fcos import Fcos
from splitcodec.model.frozen import fast
from splitcodec.model.pyramid import Backbone, Level
from splitcodec.model.segmenter import DeepLab, Segmenter
from splitcodec.model.teacher import Teacher, load_teacher
from splitcodec.training.build import class_names, with_colours
from splitcodec.training.from_onnx import FromOnnx
from splitcodec.training.task_data import MULTIPLE
from splitcodec.training.task_recipe import (
    DeepLabRecipe,
    FasterRcnnRecipe,
    FcosRecipe,
    RetinaNetRecipe,
    SegmenterRecipe,
    TaskRecipe,
)
from splitcodec.wire.bundle import Bundle


class Head(Protocol):
    """What training needs of a task's neck and head; all are modules."""

    def __call__(self, maps: list[Tensor]) -> Any:
        """Map a pyramid to what is seen."""

    def loss(self, raw: Any, truth: Any, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return what is wrong, in parts."""

    def apart(self, raw: Any, teacher: Any, *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Return how far it is from the teacher, in parts."""


def build_task_teacher(recipe: TaskRecipe) -> Teacher:
    """Load and cut the classifier. Raises TeacherError, RecipeError."""
    wanted = recipe.teacher
    classes = len(class_names(recipe)[0])
    later = [layer for layer in recipe.layers if layer != wanted.cut]
    teacher = load_teacher(
        wanted.model, weights=wanted.weights, cut=wanted.cut, later=later, classes=classes, crop=wanted.crop
    )
    return with_colours(teacher, recipe)


def build_backbone(recipe: TaskRecipe, teacher: Teacher) -> Backbone:
    """Return the frozen backbone behind the cut. Raises TeacherError."""
    return Backbone(teacher, cut=recipe.teacher.cut, layers=recipe.layers, crop=recipe.teacher.crop)


def build_head(
    recipe: TaskRecipe, levels: tuple[Level, ...], classes: int, *, shares: np.ndarray[Any, Any] | None = None
) -> Any:
    """Return the recipe's head, untrained; `shares` are the classes' shares of the pixels. Raises RecipeError."""
    if levels[0].doubled and not isinstance(recipe.head, FcosRecipe | SegmenterRecipe):
        raise RecipeError(
            f"layers: {recipe.layers[0]} and {recipe.layers[1]} have the same stride, and head.kind {recipe.head.kind} "
            "takes none twice; leave one out"
        )
    _check_strides(recipe, [level.stride for level in levels])
    match recipe.head:
        case FcosRecipe() as sizes:
            return Fcos(levels, classes, width=sizes.width, depth=sizes.depth)
        case RetinaNetRecipe() as sizes:
            return RetinaNet(levels, classes, width=sizes.width)
        case FasterRcnnRecipe() as sizes:
            return FasterRcnn(levels, classes, width=sizes.width)
        case SegmenterRecipe() as sizes:
            return Segmenter(
                levels,
                classes,
                width=sizes.width,
                fine=sizes.fine,
                dilations=sizes.dilations,
                dropout=sizes.dropout,
                weights=_balanced(shares, sizes.balance),
            )
        case DeepLabRecipe() as sizes:
            return DeepLab(levels, classes, width=sizes.width, weights=_balanced(shares, sizes.balance))


def _check_strides(recipe: TaskRecipe, strides: list[int]) -> None:
    """Refuse maps that a head of ours cannot add up: it doubles the coarser one, and `segmenter` needs two."""
    kind = recipe.head.kind
    added = {"fcos": strides, "segmenter": strides[1:]}.get(kind, [])
    if kind == "segmenter" and len(strides) < 2:
        raise RecipeError(f"layers: {recipe.layers[0]} alone; head.kind segmenter takes two or more")
    if any(after != 2 * before for before, after in itertools.pairwise(added)):
        raise RecipeError(
            f"layers: {', '.join(recipe.layers)} have strides {strides}; head.kind {kind} doubles a map to add it to "
            "the one before, so leave none out between them"
        )


def _balanced(shares: np.ndarray[Any, Any] | None, power: float) -> Tensor | None:
    if shares is None or not power:
        return None
    raw = torch.from_numpy(np.asarray(shares, np.float64)).float() ** -power
    return raw / raw.mean()


@final
class Pictures:
    """Uncompressed features: the classifier's head, frozen."""

    def __init__(self, recipe: TaskRecipe, teacher: Teacher, fabric: Fabric) -> None:
        parts = [part.to(fabric.device).to(memory_format=torch.channels_last) for part in (teacher.stem, teacher.rest)]
        self._parts = [fast(part) if fabric.device.type == "cpu" else part for part in parts]
        self._affine, self._device = recipe.teacher.affine(), fabric.device

    @torch.no_grad()
    def __call__(self, image_u8: Tensor) -> Tensor:
        """Map pixels uint8 (B, 3, H, W) to the feature at the cut."""
        scale, offset = self._affine
        x = image_u8.to(self._device, memory_format=torch.channels_last).float() * scale + offset
        for part in self._parts:
            x = part(x)
        return x


@final
class Packets(nn.Module):
    """Features as the edge gets them: encoder, rounding with each picture at a level of its own, decoder."""

    def __init__(self, bundle: Bundle, *, levels: tuple[int, ...] | None) -> None:
        super().__init__()
        self.encoder = FromOnnx(bundle.graph("encoder"), name=f"{bundle.ident}: encoder.onnx")
        self.decoder = FromOnnx(bundle.graph("decoder"), name=f"{bundle.ident}: decoder.onnx")
        tables = bundle.tables[0]
        row_lc = tables.table_of_lxc[:, 0]
        low_lc = tables.offset_k[row_lc]
        high_lc = low_lc + tables.size_k[row_lc] - 1
        for name, values in (("gain_lc", tables.gain_lc), ("low_lc", low_lc), ("high_lc", high_lc)):
            self.register_buffer(name, torch.tensor(np.asarray(values, np.float32).copy()))
        head = FromOnnx(bundle.graph("head"), name=f"{bundle.ident}: head.onnx")
        self.head = head if self.encoder.begins_as(head) else None  # then the teacher's feature saves most of the work
        self.levels = tuple(range(tables.levels)) if levels is None else levels
        if max(self.levels) >= tables.levels:
            raise RecipeError(f"levels {list(self.levels)}; {bundle.ident} has 0 to {tables.levels - 1}")

    @torch.no_grad()
    def latent(self, image_u8: Tensor, level_b: Tensor, *, feature: Tensor | None = None) -> Tensor:
        """Map pixels uint8 (B, 3, H, W) to what the decoder takes, at the levels (B).

        `feature` is the teacher's uncompressed feature of the same pictures, where it is known already.
        """
        gain, low, high = (
            self.get_buffer(name)[level_b][:, :, None, None] for name in ("gain_lc", "low_lc", "high_lc")
        )
        if self.head is not None and feature is not None:
            latent = self.encoder.after(self.head, feature).float()
        else:
            latent = self.encoder(image_u8.to(gain.device).permute(0, 2, 3, 1)).float()
        out: Tensor = torch.clamp((latent * gain).round(), low, high) / gain
        return out

    def draw_levels(self, count: int, *, seed: tuple[int, ...]) -> Tensor:
        """Return the levels of a batch, evenly mixed and in random order."""
        random = np.random.default_rng(seed)
        mixed = np.resize(random.permutation(self.levels), count)
        return torch.from_numpy(random.permutation(mixed).astype(np.int64)).to(self.get_buffer("gain_lc").device)


@final
class Networks:
    """Everything of one run, on its device: the teacher's way and the student's way to a head."""

    def __init__(
        self, recipe: TaskRecipe, bundle: Bundle, fabric: Fabric, *, classes: int, shares: np.ndarray[Any, Any] | None
    ) -> None:
        teacher = build_task_teacher(recipe)
        hold_together(recipe, teacher, bundle)
        self.pictures = Pictures(recipe, teacher, fabric)
        device = fabric.device
        self.packets = Packets(bundle, levels=recipe.levels).to(device)
        self.decoder = copy.deepcopy(self.packets.decoder)
        backbone = build_backbone(recipe, teacher).to(device).to(memory_format=torch.channels_last)
        self.levels = backbone.levels
        frozen = fast(backbone) if device.type == "cpu" else backbone
        self._own_teacher = recipe.tune_backbone
        self.teacher_backbone: nn.Module = backbone if recipe.tune_backbone else frozen
        self.backbone: nn.Module = copy.deepcopy(backbone) if "backbone" in recipe.tune else frozen
        self.teacher_head = build_head(recipe, backbone.levels, classes, shares=shares).to(device)
        self.head = copy.deepcopy(self.teacher_head)

    def begin_as_teacher(self) -> None:
        """Start the student's head (and its own backbone) where the teacher's ended."""
        self.head.load_state_dict(self.teacher_head.state_dict())
        if self._own_teacher:
            self.backbone.load_state_dict(self.teacher_backbone.state_dict())

    def trained(self, recipe: TaskRecipe) -> dict[str, nn.Module]:
        """Return the modules that a run trains, by name: what its weights hold."""
        out: dict[str, nn.Module] = {"teacher": self.teacher_head, "head": self.head}
        if recipe.tune_backbone:
            out["teacher_backbone"] = self.teacher_backbone
        if "backbone" in recipe.tune:
            out["backbone"] = self.backbone
        if "decoder" in recipe.tune:
            out["decoder"] = self.decoder
        return out


def check_side(recipe: TaskRecipe, bundle: Bundle) -> None:
    """Refuse pictures larger than the bundle's devices send, for a head that is exported. Raises RecipeError."""
    step = math.lcm(bundle.manifest.stride, MULTIPLE)
    most = bundle.manifest.max_side // step * step
    if recipe.data.side > most and not isinstance(recipe.head, RetinaNetRecipe | FasterRcnnRecipe):
        raise RecipeError(f"data.side: {recipe.data.side} pixels; a device sends at most {most} with {bundle.ident}")


@torch.no_grad()
def hold_together(recipe: TaskRecipe, teacher: Teacher, bundle: Bundle) -> None:
    """Refuse a bundle whose uncompressed feature is not that of the recipe's teacher at the cut."""
    side = recipe.teacher.crop
    image = torch.tensor(np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8))
    theirs = FromOnnx(bundle.graph("head"), name=f"{bundle.ident}: head.onnx")(image)
    scale, offset = recipe.teacher.affine()
    ours = teacher.head(image.permute(0, 3, 1, 2).float() * scale + offset)
    if ours.shape != theirs.shape or float((ours - theirs).square().mean()) > 1e-2 * float(theirs.var()) + 1e-9:
        raise RunError(
            f"{bundle.ident}: its teacher is not {recipe.teacher.model} cut after {recipe.teacher.cut}; "
            "give the bundle that this recipe is made for, or change the recipe's teacher"
        )
