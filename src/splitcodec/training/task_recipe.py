"""Recipes of task heads: which teacher and layers, which head, which pictures, and how long.   read by: task_train.py

One run trains three things in turn: the task teacher (the head on uncompressed features), the student's head as a copy
of it on features out of packets, distilled from the teacher, and that head again by the task's own loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, PositiveFloat, PositiveInt, Tag, model_validator

from splitcodec.training.keys import Count, Share, Strict, Weight, by_kind
from splitcodec.training.recipe import TeacherRecipe, read_as
from splitcodec.training.stages import AdamRecipe, CosineRecipe, SgdRecipe, StepsRecipe

_HEADS: Final = ("fcos", "retinanet", "faster_rcnn", "segmenter", "deeplabv3")
_KINDS: Final = (*_HEADS, "adam", "sgd", "cosine", "steps")


class FcosRecipe(Strict):
    """`model.fcos.Fcos`: anchor-free boxes on a light pyramid."""

    kind: Literal["fcos"]
    width: PositiveInt = 96
    depth: PositiveInt = 2
    """Convolutions in each of the two towers."""


class RetinaNetRecipe(Strict):
    """torchvision's RetinaNet (Lin et al. 2017) on the pyramid: anchors, P6 and P7."""

    kind: Literal["retinanet"]
    width: PositiveInt = 256


class FasterRcnnRecipe(Strict):
    """torchvision's Faster R-CNN (Ren et al. 2015) with a feature pyramid."""

    kind: Literal["faster_rcnn"]
    width: PositiveInt = 256


class SegmenterRecipe(Strict):
    """`model.segmenter.Segmenter`."""

    kind: Literal["segmenter"]
    width: PositiveInt = 128
    fine: PositiveInt = 48
    dilations: tuple[PositiveInt, ...] = (1, 3, 6)
    dropout: Share = 0.1
    balance: Share = 0.0
    """Classes count by their share of the pixels to the power of minus this (of mean 1)."""


class DeepLabRecipe(Strict):
    """torchvision's DeepLabv3 head (Chen et al. 2017) on the coarsest map."""

    kind: Literal["deeplabv3"]
    width: PositiveInt = 256
    balance: Share = 0.0


Head = Annotated[
    Annotated[FcosRecipe, Tag("fcos")]
    | Annotated[RetinaNetRecipe, Tag("retinanet")]
    | Annotated[FasterRcnnRecipe, Tag("faster_rcnn")]
    | Annotated[SegmenterRecipe, Tag("segmenter")]
    | Annotated[DeepLabRecipe, Tag("deeplabv3")],
    by_kind(*_HEADS),
]


class TaskDataRecipe(Strict):
    """How labelled pictures become batches. Everything is drawn from the seed and the step."""

    side: PositiveInt
    """Longest side in pixels of what the device sends, and of the pictures that are learned from."""
    train: str = "train"
    """The split to learn from."""
    check: str = "val"
    """The split that is scored now and then."""
    scale: tuple[PositiveFloat, PositiveFloat] = (0.6, 1.6)
    """Range of the scale jitter, in units of what the device does."""
    flip: Share = 0.5
    jitter: Share = 0.3
    """Largest relative change of brightness, contrast and colour balance."""
    mosaic: Share = 0.0
    """Share of pictures put together from four; boxes alone."""
    memory_mb: PositiveInt = 2048
    """Decoded pictures kept in memory; the others are decoded anew."""


class HeadStage(Strict):
    """How a stage learns. Its length is the recipe's `task_epochs`, or `distil_epochs`."""

    batch: PositiveInt = 16
    learning_rate: PositiveFloat = 1e-3
    warmup: Share = 0.03
    optimizer: Annotated[
        Annotated[AdamRecipe, Tag("adam")] | Annotated[SgdRecipe, Tag("sgd")], by_kind("adam", "sgd")
    ] = AdamRecipe(weight_decay=1e-4)
    schedule: Annotated[
        Annotated[CosineRecipe, Tag("cosine")] | Annotated[StepsRecipe, Tag("steps")], by_kind("cosine", "steps")
    ] = CosineRecipe()
    clip: PositiveFloat | None = 10.0
    average: Share = 0.998
    """The weights that are kept are a running mean of those of each step, with this much of the old; 0 for none."""


class TaskStage(HeadStage):
    """The student's stage on the task's loss."""

    distil: Weight = 0.0
    """How much the distance from the task teacher still counts beside the task's loss."""


class TaskRecipe(Strict):
    """A whole run for one task."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$")]
    task: Literal["detect", "segment"]
    teacher: TeacherRecipe
    """The classifier whose blocks are the backbone, cut where the bundle's is."""
    layers: Annotated[tuple[str, ...], Field(min_length=1)]
    """The pyramid, fine to coarse: layers at or behind the cut, one per stride. A second one of the first one's
    stride lets the heads `fcos` and `segmenter` make a map of half that stride out of the first map."""
    head: Head
    data: TaskDataRecipe
    task_epochs: PositiveFloat
    """Passes over the pictures by the task's loss, the same number for teacher and student."""
    distil_epochs: Weight
    teach: HeadStage = HeadStage()
    distil: HeadStage = HeadStage(learning_rate=5e-4)
    learn: TaskStage = TaskStage(learning_rate=5e-4)
    tune: tuple[Literal["decoder", "backbone"], ...] = ()
    """What the task gets a copy of for itself, which learns with the student's head. Empty: shared and frozen."""
    tune_backbone: bool = False
    """Whether the task teacher's backbone learns as well; the student then needs `tune: [backbone]` or more."""
    levels: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    """The bundle's rate levels that the student sees, mixed. Left out: all."""
    lead: Path | None = None
    """The folder of a finished run of the same head, or a bundle (a zoo name, a folder, a .zip) with the same task and
    layers, whose task teacher is taken over instead of training one."""
    check_every: PositiveFloat = 10.0
    """Epochs between scores on the split `data.check`."""
    precision: Annotated[str, Field(pattern=r"^(32-true|bf16-mixed)$")] = "bf16-mixed"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @model_validator(mode="after")
    def _fits(self) -> TaskRecipe:
        boxes = self.head.kind in ("fcos", "retinanet", "faster_rcnn")
        if boxes != (self.task == "detect"):
            raise ValueError(f"head.kind {self.head.kind} does not suit task {self.task}")
        if self.tune_backbone and "backbone" not in self.tune:
            raise ValueError("tune_backbone: the teacher's backbone differs then; give the student `tune: [backbone]`")
        if self.data.mosaic and self.task != "detect":
            raise ValueError("data.mosaic: for boxes alone; leave it out")
        if self.data.scale[0] > self.data.scale[1]:
            raise ValueError("data.scale: expected the smaller scale first")
        return self


def read_task_recipe(path: Path, *, changes: tuple[str, ...] = ()) -> TaskRecipe:
    """Read a task's recipe; see `recipe.read_as`. Raises RecipeError naming the key and what is wrong."""
    return read_as(TaskRecipe, path, changes=changes, kinds=_KINDS)
