"""A checkpoint of the paper's published code -> a run, as if it had been trained here: export makes a bundle of it.

What is read: classifiers with a `FPBasedResNetBottleneck`, as github.com/yoshitomo-matsubara/sc2-benchmark writes them
(torchdistill's files, `{"model": ..., "args": ...}`), with CompressAI's entropy bottleneck under its old names
(`_matrix0`) or new ones (`matrices.0`). Layers have the same weights here. CompressAI counts symbols from each
channel's median, and so does the student (`centred`); its density is moved by as much, which the first layer's bias
takes exactly. Files are read without pickles of anybody's classes.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import torch
import torch.nn.functional as nnf
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor

from splitcodec.errors import DataError, OutputError, RecipeError, one_line
from splitcodec.evaluation.output import legible
from splitcodec.layouts.folders import find_photographs
from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.student import Student
from splitcodec.model.teacher import load_network
from splitcodec.training.build import Halves, build_student, build_teacher, class_names
from splitcodec.training.data import centre_crops, names_digest, split_holdout
from splitcodec.training.end import end
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run
from splitcodec.training.students import PaperRecipe
from splitcodec.training.validate import validate
from splitcodec.wire.durable import check_free, nearest, sync_folder

_MARK: Final = "encoder.0.weight"
_GDN: Final = ("beta", "gamma")
_LAYERS: Final = (0, 2, 4)  # convolutions; GDN lies between
_LONGEST: Final = 16  # layers of a prior
_PRIOR: Final = ("channels", "above", "below")  # axes of their matrices


@final
class Published(NamedTuple):
    """What a checkpoint holds: the student's values by our names, and the classifier's behind it by its own."""

    student: dict[str, Tensor]
    prior: tuple[int, ...]
    """Hidden numbers of each channel's prior, layer by layer."""
    tail: dict[str, Tensor]
    note: dict[str, Any]
    """Where it comes from: the file's name and hash."""


def take(recipe: Recipe, checkpoint: Path, *, photos: list[Path], out: Path) -> dict[str, Any]:
    """Make a finished run `out` of a checkpoint; the recipe names teacher and layers. Returns its report.

    Symbols are counted on the photographs, of which some are held out to be answered. Raises DataError for a file that
    is no such checkpoint or does not fit the recipe, RecipeError for a recipe of another kind, TeacherError,
    OutputError.
    """
    check_free(out)
    if not isinstance(recipe.student, PaperRecipe) or recipe.levels.count != 1:
        raise RecipeError("student.kind: expected paper, with one beta; see recipes/paper/resnet50_beta0.32.yaml")
    found = read(checkpoint)
    sizes = recipe.student.model_copy(update={"centred": True, "prior": found.prior})
    levels = recipe.levels.model_copy(update={"first_gain": 1.0, "last_gain": 1.0, "kilobytes": None})
    recipe = recipe.model_copy(update={"student": sizes, "levels": levels})
    paths = sorted(find_photographs(photos))
    counted, held_out = split_holdout(paths, recipe.data.holdout, seed=recipe.seed)
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    teacher = build_teacher(recipe)
    student = build_student(recipe, teacher)
    _load(student, found, checkpoint=checkpoint)
    if student.tail is not None:
        student.tail.load_state_dict(_tail(recipe, found, like=teacher.tail.state_dict(), checkpoint=checkpoint))
    halves = Halves(fabric, recipe, teacher=teacher)
    check = centre_crops(held_out, resize=recipe.teacher.resize, crop=recipe.teacher.crop)
    report = {
        "finished": True,
        "images": None,
        "seconds": None,
        "levelled": None,
        "checkpoint": found.note,
        "holdout": validate(student, halves, check=check.image_u8, autocast=fabric.autocast),
    }
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=nearest(out)) as folder:
        run = Run(Path(folder) / "run")
        run.begin(
            recipe,
            photographs=len(paths),
            folders=[legible(one.resolve().name) for one in photos],
            names=names_digest(paths, photos),
        )
        report = end(recipe, student, halves=halves, paths=counted, run=run, final=report)
        _move(run.folder, out)
    return report


def _move(run: Path, out: Path) -> None:
    """Give a run its place: whole, or not at all. Raises OutputError."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        run.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}; choose another folder") from error


def read(checkpoint: Path) -> Published:
    """Read a checkpoint. Raises DataError."""
    state = _state(checkpoint)
    marks = [name for name in state if name.endswith(_MARK)]
    if len(marks) != 1:
        raise DataError(
            f"{checkpoint}: {len(marks)} layers called ...{_MARK}; expected one, of a classifier with the "
            "FPBasedResNetBottleneck of sc2-benchmark"
        )
    prefix = marks[0].removesuffix(_MARK)
    inside = {name.removeprefix(prefix): one for name, one in state.items() if name.startswith(prefix)}
    above = prefix.rstrip(".").rpartition(".")[0]
    outside = f"{above}." if above else ""
    tail = {
        name.removeprefix(outside): one
        for name, one in state.items()
        if name.startswith(outside) and not name.startswith(prefix)
    }
    try:
        student, prior = _student(inside)
    except KeyError as error:
        raise DataError(
            f"{checkpoint}: no {prefix}{error.args[0]}; expected the layers of FPBasedResNetBottleneck in sc2-benchmark"
        ) from error
    except ValueError as error:
        raise DataError(f"{checkpoint}: {prefix}{error}") from error
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    return Published(student, prior, tail, {"file": legible(checkpoint.name), "sha256": digest})


def _state(checkpoint: Path) -> dict[str, Tensor]:
    """Return the state dict in a file. Only tensors, plain values and argparse's Namespace are ever unpickled."""
    if not checkpoint.is_file():
        raise DataError(f"no checkpoint at {checkpoint}; give a .pt or .pth file of the published code")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            found: Any = torch.load(checkpoint, weights_only=True, map_location="cpu")
    except Exception as error:  # torch's, pickle's and zipfile's have no common base
        reason = one_line(error)
        if isinstance(error, pickle.UnpicklingError):  # torch's words advise to unpickle whatever it is
            reason = "it holds more than tensors and plain values, or is none at all"
        raise DataError(f"{checkpoint} is no checkpoint that may be read: {reason}") from error
    for key in ("model", "state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(one, Tensor) for one in found.values()):
        raise DataError(f"{checkpoint} holds no state dict; expected names and tensors, or these under `model`")
    return {str(name).removeprefix("module."): one.detach() for name, one in found.items()}


def _student(found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[int, ...]]:
    """Return values by our student's names, and the prior's widths. Raises KeyError for what is missing."""
    values: dict[str, Tensor] = {}
    for theirs, ours in (("encoder", "squeeze"), ("decoder", "decoder")):
        for place in _LAYERS:
            values[f"{ours}.layers.{place}.weight"] = found[f"{theirs}.{place}.weight"].float()
        for place in (1, 3):
            for name in _GDN:
                values[f"{ours}.layers.{place}.{name}_root"] = found[f"{theirs}.{place}.{name}"].float()
    bottleneck = {
        name.removeprefix("entropy_bottleneck."): one.float()
        for name, one in found.items()
        if name.startswith("entropy_bottleneck.")
    }
    if "quantiles" not in bottleneck:
        raise KeyError("entropy_bottleneck.quantiles")
    channels = len(values["squeeze.layers.4.weight"])
    _check_size("quantiles", bottleneck["quantiles"], (channels, 1, 3))
    median_c = bottleneck["quantiles"][:, 0, 1]
    values["squeeze.layers.4.bias"] = -median_c
    values["decoder.centre.of_c"] = median_c
    old_names = {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}
    lists = {kind: _numbered(bottleneck, new=kind, old=old) for kind, old in old_names.items()}
    if not lists["matrices"]:
        raise KeyError("entropy_bottleneck.matrices.0")
    if len(lists["biases"]) != len(lists["matrices"]):
        raise KeyError(f"entropy_bottleneck.biases.{len(lists['biases'])}")
    widths = [1, *(one.shape[1] if one.ndim == len(_PRIOR) else 0 for one in lists["matrices"][:-1]), 1]
    for k, (below, above) in enumerate(itertools.pairwise(widths)):
        _check_size(f"matrices.{k}", lists["matrices"][k], (channels, above, below))
        _check_size(f"biases.{k}", lists["biases"][k], (channels, above, 1))
    first = nnf.softplus(lists["matrices"][0].double()) * median_c.double()[:, None, None]
    lists["biases"][0] = (lists["biases"][0].double() + first).float()
    for kind, some in lists.items():
        values |= {f"bottleneck.prior.{kind}.{k}": one for k, one in enumerate(some)}
    return values, tuple(widths[1:-1])


def _check_size(name: str, found: Tensor, expected: tuple[int, ...]) -> None:
    if found.shape != expected:
        raise ValueError(f"entropy_bottleneck.{name} is {tuple(found.shape)}; expected {expected}")


def _numbered(found: Mapping[str, Tensor], *, new: str, old: str) -> list[Tensor]:
    some: list[Tensor] = []
    for k in range(_LONGEST):
        one = found.get(f"{new}.{k}", found.get(f"{old}{k}"))
        if one is None:
            break
        some.append(one)
    return some


def _load(student: Student, found: Published, *, checkpoint: Path) -> None:
    """Give a student what was read. Raises DataError where sizes differ."""
    expected = {name: one for name, one in student.state_dict().items() if not name.startswith("tail.")}
    if not isinstance(student.bottleneck, Bottleneck):
        raise TypeError("a paper's student has another bottleneck")
    values = {**found.student, "bottleneck.log_gain_lc": torch.zeros_like(student.bottleneck.log_gain_lc)}
    _check(values, expected, checkpoint=checkpoint, change="student's widths and channels")
    student.load_state_dict(values, strict=False)


def _tail(recipe: Recipe, found: Published, *, like: Mapping[str, Tensor], checkpoint: Path) -> dict[str, Tensor]:
    """Return the teacher's tail with the checkpoint's layers in place of its own, batch norm folded.

    Raises DataError where they are not those of the teacher behind the cut, or not all of them.
    """
    wanted = recipe.teacher
    network = load_network(wanted.model, weights=wanted.weights, classes=len(class_names(recipe)[0]))
    whole = network.state_dict()
    if strange := sorted(set(found.tail) - set(whole)):
        raise DataError(
            f"{checkpoint}: {strange[0]} is no layer of {wanted.model}; name the checkpoint's own network as "
            "teacher.model, a classifier"
        )
    behind = {
        name for name in whole if name in like or name.partition(".")[0] in {one.partition(".")[0] for one in like}
    }
    counted = ".num_batches_tracked"  # frozen batch norm has none, and nothing depends on it
    if missing := sorted(name for name in behind - set(found.tail) if not name.endswith(counted)):
        raise DataError(
            f"{checkpoint}: no {missing[0]}, a layer behind the cut {wanted.cut!r}; a recipe without `tail: true` "
            "takes the teacher's own"
        )
    _check(found.tail, whole, checkpoint=checkpoint, change="teacher.model")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.safetensors"
        save_file({name: one.contiguous().clone() for name, one in {**whole, **found.tail}.items()}, file)
        own = recipe.model_copy(update={"teacher": wanted.model_copy(update={"weights": str(file)})})
        return build_teacher(own).tail.state_dict()


def _check(values: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, checkpoint: Path, change: str) -> None:
    """Raise DataError for values of another size than expected, or that are no numbers."""
    for name, one in values.items():
        if name in expected and one.shape != expected[name].shape:
            raise DataError(
                f"{checkpoint}: {name} is {tuple(one.shape)}, in the recipe {tuple(expected[name].shape)}; "
                f"change {change}"
            )
        if one.is_floating_point() and not bool(one.isfinite().all()):
            raise DataError(f"{checkpoint}: {name} holds values that are no numbers; the run that wrote it has failed")
