"""Recipe -> networks: the teacher cut in halves, the untrained student, and the halves as training runs them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import final

import torch
from lightning_fabric import Fabric
from torch import Tensor, fx, nn

from splitcodec.errors import RecipeError
from splitcodec.model import paper, pictures, reduced
from splitcodec.model.bottleneck import WIDTHS, Bottleneck
from splitcodec.model.frozen import fast
from splitcodec.model.hyperprior import Hyperprior
from splitcodec.model.narrowing import narrowed
from splitcodec.model.parts import AbstractBottleneck, FeatureDecoder
from splitcodec.model.patch import Patch, PatchEncoder
from splitcodec.model.pruning import ending, layer_of, pruned
from splitcodec.model.student import Student
from splitcodec.model.teacher import Layers, Teacher, imagenet_labels, load_teacher
from splitcodec.model.thinned import Thinned
from splitcodec.model.transforms import Decoder, PerColour, Squeeze
from splitcodec.training.graphs import folded
from splitcodec.training.recipe import Recipe
from splitcodec.training.students import (
    HyperpriorRecipe,
    ImageRecipe,
    PaperRecipe,
    PatchRecipe,
    ReducedRecipe,
    SqueezeRecipe,
    ThinnedRecipe,
)
from splitcodec.training.task_recipe import TaskRecipe

MAX_GRID = 255  # rows and columns of a latent, as the packet counts them


def build_teacher(recipe: Recipe) -> Teacher:
    """Load and cut the recipe's teacher. Raises TeacherError, RecipeError."""
    wanted = recipe.teacher
    teacher = load_teacher(
        wanted.model,
        weights=wanted.weights,
        cut=wanted.cut,
        stem=_first_layers(recipe),
        later=wanted.later,
        classes=len(class_names(recipe)[0]),
        crop=wanted.crop,
    )
    if recipe.is_image_codec():  # cut before the first layer: the feature is the picture, the tail all of the network
        whole = nn.Sequential(teacher.stem, teacher.tail).eval()
        teacher = replace(teacher, stem=nn.Identity(), rest=nn.Identity(), tail=whole, stem_width=3, stem_stride=1)
        teacher = replace(teacher, width=3, stride=1)
    elif not isinstance(recipe.student, SqueezeRecipe):  # the student begins at the image
        if isinstance(recipe.student, ThinnedRecipe) and recipe.student.until not in (None, wanted.cut):
            layers = Layers(teacher.stem, teacher.stem_width, teacher.stem_stride)
            teacher = replace(teacher, rest=nn.Sequential(teacher.stem, teacher.rest).eval(), thinned=layers)
        else:
            teacher = replace(teacher, rest=teacher.stem)
        teacher = replace(teacher, stem=nn.Identity(), stem_width=3, stem_stride=1)
    return with_colours(teacher, recipe)


def with_colours(teacher: Teacher, recipe: Recipe | TaskRecipe) -> Teacher:
    """Return the teacher that scales each colour by itself first, where the recipe says so."""
    wanted = recipe.teacher
    scaled = nn.Sequential(PerColour(wanted.mean, wanted.std), teacher.stem)
    return replace(teacher, stem=scaled) if isinstance(wanted.mean, tuple) or isinstance(wanted.std, tuple) else teacher


def build_student(recipe: Recipe, teacher: Teacher) -> Student:
    """Build the recipe's student, untrained. Raises RecipeError where its strides do not fit the teacher's."""
    sizes, channels = recipe.student, recipe.student.channels
    up = latent_stride(recipe, teacher) // teacher.stride
    bottleneck: AbstractBottleneck
    decoder: FeatureDecoder
    encoder: nn.Module
    match sizes:
        case SqueezeRecipe() | PatchRecipe() | ThinnedRecipe():
            encoder, bottleneck = _encoder(sizes, recipe, teacher), _bottleneck(recipe)
            decoder = Decoder(
                channels,
                teacher.width,
                width=sizes.decoder.width,
                blocks=sizes.decoder.blocks,
                up=up,
                up_width=sizes.decoder.up_width,
                up_blocks=sizes.decoder.up_blocks,
                linear=sizes.linear,
                adapt=sizes.decoder.adapt,
            )
        case PaperRecipe():
            encoder = paper.PaperEncoder(channels, widths=sizes.widths, centred=sizes.centred)
            bottleneck = _bottleneck(recipe)
            decoder = paper.PaperDecoder(channels, teacher.width, widths=sizes.decoder_widths, centred=sizes.centred)
        case ReducedRecipe():
            encoder, bottleneck = reduced.ReducedEncoder(channels, width=sizes.width), reduced.EightBit(channels)
            decoder = reduced.ReducedDecoder(channels, teacher.width, width=sizes.decoder_width)
        case ImageRecipe():
            encoder, bottleneck = pictures.PictureEncoder(channels, width=sizes.width), _bottleneck(recipe)
            decoder = pictures.PictureDecoder(channels, width=sizes.width)
        case HyperpriorRecipe():
            encoder = pictures.PictureEncoder(channels, width=sizes.width)
            bottleneck = Hyperprior(channels, width=sizes.width)
            decoder = pictures.PictureDecoder(channels, width=sizes.width)
    tail = copy.deepcopy(teacher.tail) if recipe.own_tail() else None
    return Student(encoder, bottleneck, decoder, tail=tail)


def _encoder(sizes: SqueezeRecipe | PatchRecipe | ThinnedRecipe, recipe: Recipe, teacher: Teacher) -> nn.Module:
    match sizes:
        case SqueezeRecipe():
            return _squeeze(sizes, teacher.stem_width)
        case PatchRecipe():
            return PatchEncoder(
                sizes.channels,
                stem=tuple(Patch(patch.width, patch.kernel, patch.stride) for patch in sizes.patches),
                blocks=sizes.blocks,
                inner=sizes.inner,
                widths=sizes.widths,
                halvings=sizes.halvings,
            )
        case ThinnedRecipe():
            below = _layers_below(teacher)
            _check_sides(recipe, sizes, stride=below.stride)
            stem = _thinned(sizes, whole_stem(teacher)).requires_grad_(requires_grad=True)
            end = ending(stem)
            squeeze = _squeeze(sizes, below.width if end is None else layer_of(stem, end.depthwise).out_channels)
            return Thinned(stem, squeeze, share=sizes.share, stride=below.stride)


def _squeeze(sizes: SqueezeRecipe | ThinnedRecipe, width: int) -> Squeeze:
    return Squeeze(width, sizes.channels, widths=sizes.widths, halvings=sizes.halvings, linear=sizes.linear)


def whole_stem(teacher: Teacher) -> fx.GraphModule:
    """Return the layers that a thinned encoder is made of, which begins at the image, batch norm folded."""
    stem = folded(_layers_below(teacher).network)
    if not isinstance(stem, fx.GraphModule):
        raise TypeError(f"{type(stem).__name__} is not traced")
    return stem


def _layers_below(teacher: Teacher) -> Layers:
    return teacher.thinned or Layers(teacher.rest, teacher.width, teacher.stride)


def _first_layers(recipe: Recipe) -> str | None:
    """Return the layer up to which the device has the teacher's own, as they are or thinned; None: the cut."""
    match recipe.student:
        case SqueezeRecipe(stem=name) | ThinnedRecipe(until=name):
            return name
        case _:
            return None


def _check_sides(recipe: Recipe, sizes: ThinnedRecipe, *, stride: int) -> None:
    """Refuse sides of which the smaller picture has no whole number of cells: features would lie elsewhere."""
    above, below = sizes.share
    windows = {f"{name}.window": stage.window for name, stage in recipe.stages() if stage.window is not None}
    for key, side in {"teacher.crop": recipe.teacher.crop, **windows}.items():
        if above != below and side * above % (below * stride):
            fits = math.lcm(below * stride // math.gcd(above, below * stride), 16)
            raise RecipeError(
                f"{key}: {side} pixels times student.share {above} / {below} are no whole number of the {stride} x "
                f"{stride} cells of the device's layers, so features would be shifted; expected a multiple of {fits}"
            )


def _thinned(sizes: ThinnedRecipe, stem: fx.GraphModule) -> fx.GraphModule:
    if sizes.hidden is None:
        return stem
    key = "between"
    try:
        narrow = stem if sizes.between is None else narrowed(stem, sizes.between)
        key = "hidden"
        return pruned(narrow, sizes.hidden)
    except ValueError as error:
        raise RecipeError(f"student.{key}: {error}") from error


def _bottleneck(recipe: Recipe) -> Bottleneck:
    levels = recipe.levels
    linear = isinstance(recipe.student, SqueezeRecipe | ThinnedRecipe) and recipe.student.linear
    first, last = (0.3, 4.0) if linear else (3.0, 20.0)
    return Bottleneck(
        levels.count,
        recipe.student.channels,
        first_gain=first if levels.first_gain is None else levels.first_gain,
        last_gain=last if levels.last_gain is None else levels.last_gain,
        widths=recipe.student.prior if isinstance(recipe.student, PaperRecipe) else WIDTHS,
    )


def latent_stride(recipe: Recipe, teacher: Teacher) -> int:
    """Return the latent's stride in pixels. Raises RecipeError where decoder, crop, window or packet cannot follow."""
    crop, sizes = recipe.teacher.crop, recipe.student
    match sizes:
        case SqueezeRecipe():
            stride, cause = teacher.stem_stride << sizes.halvings, "student.halvings"
        case ThinnedRecipe():
            stride, cause = _layers_below(teacher).stride << sizes.halvings, "student.halvings"
        case PatchRecipe():
            stride, cause = sizes.stride, "student.patches"
        case PaperRecipe():
            stride, cause = paper.STRIDE, "teacher.cut"
        case ReducedRecipe():
            stride, cause = reduced.STRIDE, "teacher.cut"
        case ImageRecipe() | HyperpriorRecipe():
            stride, cause = pictures.STRIDE, "student.kind"
    up, rest = divmod(stride, teacher.stride)
    fixed = cause == "teacher.cut"
    if rest or up & (up - 1) or not up or (fixed and up != 1):
        expected, change = (
            ("that very stride", "teacher.cut")
            if fixed
            else ("that times 1, 2, 4 or so", f"{cause}, student.stem or teacher.cut")
        )
        raise RecipeError(
            f"{cause}: the latent's stride would be {stride}, the cut's is {teacher.stride}; expected {expected}; "
            f"change {change}"
        )
    if crop % stride or latent_side(recipe, crop, stride=stride) > MAX_GRID:
        raise RecipeError(
            f"teacher.crop: {crop} pixels with a latent of stride {stride}; expected a multiple of {stride}, "
            f"at most {MAX_GRID * stride}"
        )
    for name, stage in recipe.stages():
        if stage.window is not None and stage.window % stride and stage.kind != "latents":  # which decodes nothing
            raise RecipeError(
                f"{name}.window: {stage.window} pixels with a latent of stride {stride}; expected a multiple of it"
            )
    return stride


def latent_side(recipe: Recipe, side: int, *, stride: int) -> int:
    """Return the latent's rows for a picture of `side` pixels: published layers gain or lose one."""
    match recipe.student:
        case PaperRecipe():
            return side // stride + paper.EXTRA
        case ReducedRecipe():
            return side // stride + reduced.EXTRA
        case _:
            return side // stride


def class_names(recipe: Recipe | TaskRecipe) -> tuple[list[str], list[str]]:
    """Return the names of the teacher's classes in the order of its logits, and their wnids (ImageNet-1k alone)."""
    path = recipe.teacher.classes
    if path is None:
        pairs = imagenet_labels()
        return [label for _, label in pairs], [wnid for wnid, _ in pairs]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"teacher.classes: cannot read {path}: {error}; give a text file, one name a line") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise RecipeError(f"teacher.classes: {path} is empty; expected one class name a line")
    return names, []


@final
class Halves:
    """The teacher's parts as training runs them: moved to the device, and fast on CPUs."""

    def __init__(self, fabric: Fabric, recipe: Recipe, *, teacher: Teacher) -> None:
        self._device, self._affine = fabric.device, recipe.teacher.affine()
        on_cpu = fabric.device.type == "cpu"
        for part in teacher.modules():
            part.to(fabric.device).to(memory_format=torch.channels_last)
        self.stem, self.rest, self.tail = (fast(part) if on_cpu else part for part in teacher.modules())

    def scale(self, image_u8: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) to what the stem takes."""
        image = image_u8.to(self._device, memory_format=torch.channels_last)
        scale, offset = self._affine
        return image.float() * scale + offset

    @torch.no_grad()
    def stem_and_feature(self, image_u8: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the encoder takes and the teacher's feature at the cut, for pixels (B, 3, H, W)."""
        stem: Tensor = self.stem(self.scale(image_u8))
        feature: Tensor = self.rest(stem)
        return stem, feature
