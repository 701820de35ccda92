"""Recipe -> networks: the teacher cut in halves, the untrained student, and the halves as training runs them."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from splitcodec.errors import RecipeError
from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.frozen import fast
from splitcodec.model.student import Student
from splitcodec.model.teacher import Teacher, imagenet_labels, load_teacher
from splitcodec.model.transforms import Decoder, PerColour, Squeeze
from splitcodec.training.recipe import Recipe

MAX_GRID = 255  # rows and columns of a latent, as the packet counts them


def build_teacher(recipe: Recipe) -> Teacher:
    """Load and cut the recipe's teacher. Raises TeacherError, RecipeError."""
    wanted = recipe.teacher
    teacher = load_teacher(
        wanted.model,
        weights=wanted.weights,
        cut=wanted.cut,
        stem=recipe.student.stem,
        later=wanted.later,
        classes=len(class_names(recipe)[0]),
        crop=wanted.crop,
    )
    if isinstance(wanted.mean, tuple) or isinstance(wanted.std, tuple):
        return replace(teacher, stem=nn.Sequential(PerColour(wanted.mean, wanted.std), teacher.stem))
    return teacher


def build_student(recipe: Recipe, teacher: Teacher) -> Student:
    """Build the recipe's student, untrained. Raises RecipeError where its strides do not fit the teacher's."""
    sizes, levels = recipe.student, recipe.levels
    stride = latent_stride(recipe, teacher)
    decoder = sizes.decoder
    return Student(
        Squeeze(teacher.stem_width, sizes.channels, widths=sizes.widths, halvings=sizes.halvings),
        Bottleneck(len(levels.lambdas), sizes.channels, first_gain=levels.first_gain, last_gain=levels.last_gain),
        Decoder(
            sizes.channels,
            teacher.width,
            width=decoder.width,
            blocks=decoder.blocks,
            up=stride // teacher.stride,
            up_width=decoder.up_width,
            up_blocks=decoder.up_blocks,
        ),
    )


def latent_stride(recipe: Recipe, teacher: Teacher) -> int:
    """Return the latent's stride in pixels. Raises RecipeError where decoder, crop or packet cannot follow it."""
    crop, stride = recipe.teacher.crop, teacher.stem_stride << recipe.student.halvings
    up, rest = divmod(stride, teacher.stride)
    if rest or up & (up - 1) or not up:
        raise RecipeError(
            f"student.halvings: the latent's stride would be {stride}, the cut's is {teacher.stride}; expected that "
            "times 1, 2, 4 or so; change student.halvings, student.stem or teacher.cut"
        )
    if crop % stride or crop // stride > MAX_GRID:
        raise RecipeError(
            f"teacher.crop: {crop} pixels with a latent of stride {stride}; expected a multiple of {stride}, "
            f"at most {MAX_GRID * stride}"
        )
    return stride


def class_names(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Return the names of the teacher's classes in the order of its logits, and their wnids (ImageNet-1k alone)."""
    path = recipe.teacher.classes
    if path is None:
        pairs = imagenet_labels()
        return [label for _, label in pairs], [wnid for wnid, _ in pairs]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
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
    def feature(self, image_u8: Tensor) -> Tensor:
        """Return the teacher's feature at the cut, for pixels (B, 3, H, W)."""
        out: Tensor = self.rest(self.stem(self.scale(image_u8)))
        return out
