"""Runs that a run builds upon: `start`, whose weights it begins with, and `lead`, whose latent it learns.

Either is the folder of a finished run, or a bundle, such as those that ship (`from_bundle.py`).

What they have seen was seen for this run too, so their pictures and seconds are reported with its own. Both may come
from one run, or one of them from the other: `lineage` has every run below once, with what it took itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from splitcodec.errors import RecipeError, SplitcodecError, one_line
from splitcodec.model.student import Student
from splitcodec.training.from_bundle import begin_from_bundle, check_teacher, opened
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run
from splitcodec.training.spent import Spent, all_of, number, spent_of
from splitcodec.training.teacher_file import check_teacher_file


@final
@dataclass(frozen=True, slots=True)
class Part:
    """What one run took itself; `whole` are pictures and seconds with all that it builds upon, as others tell it.

    Where a report does not say what its run builds upon, all of that is the run's own.
    """

    recipe: str
    images: int
    spent: Spent
    whole: tuple[int, float]

    @property
    def known(self) -> tuple[object, ...]:
        """Return what one run is known by, whether its folder led to it or a bundle."""
        return (self.recipe.partition("@")[0], *self.whole)

    def told(self) -> dict[str, Any]:
        """Return what a report says of it."""
        images, seconds = self.whole
        own = {"recipe": self.recipe, "images": self.images, **self.spent.told()}
        return own if images == self.images else {**own, "images_cumulative": images, "seconds_cumulative": seconds}


@final
@dataclass(frozen=True, slots=True)
class Earlier:
    """A finished run: its recipe's name; pictures and time, those of the runs that it builds upon included.

    Of a bundle: its name@version, and what its run said. `parts` are the run itself and those that it builds upon.
    """

    key: str
    recipe: str
    images: int
    spent: Spent
    parts: tuple[Part, ...]

    def told(self) -> dict[str, Any]:
        """Return what a report says of it."""
        return {"key": self.key, "recipe": self.recipe, "images": self.images, **self.spent.told()}


def earlier_runs(recipe: Recipe) -> list[Earlier]:
    """Return the runs that a recipe builds upon.

    Raises RecipeError for one that is not there, or has not finished, RunError where its teacher's file was replaced.
    """
    folders = {"start": recipe.start, "lead": recipe.lead}
    return [_earlier(key, folder) for key, folder in folders.items() if folder is not None]


def report_of_run(run: Run) -> dict[str, Any]:
    """Return a run's final report, or where a run still going on stands, `finished` false and with less in it.

    Its pictures are left out where they are not known: those of runs that it builds upon belong to them.
    """
    final = run.report()
    if final:
        return final
    found = run.load()
    if found is None:  # killed between its last weights and its report
        return {"finished": False}
    state = found[2]
    try:
        earlier = earlier_runs(run.recipe())
    except SplitcodecError:  # no longer there
        return {"finished": False, "stage": state.stage}
    return {"finished": False, "stage": state.stage, **totals(earlier, images=state.images, spent=state.spent())}


def is_run(place: Path) -> bool:
    """Say whether a folder holds a run, whether or not it has finished."""
    return (place / "recipe.yaml").exists()


def tunes_decoder_alone(recipe: Recipe) -> bool:
    """Say whether a recipe begins with a bundle and tunes nothing but its decoder: `redecode` takes what it makes."""
    if recipe.start is None or is_run(recipe.start):
        return False
    return all(stage.tune == "decoder" for _, stage in recipe.stages())


def _earlier(key: str, place: Path) -> Earlier:
    report: dict[str, Any]
    if not is_run(place):
        bundle = opened(key, place)
        told = bundle.manifest.provenance.get("report")  # by whoever made the bundle
        name, report = bundle.ident, told if isinstance(told, dict) else {}
    else:
        run = Run(place)
        name, report = run.recipe().name, run.report()
        if not report.get("finished"):
            raise RecipeError(f"{key}: the run in {place} has not finished; let it go to its end first")
        check_teacher_file(place, run.provenance(), run.recipe())
    suffix = "_cumulative" if "seconds_cumulative" in report else ""
    spent, (images, _) = spent_of(report, suffix), _whole(report)
    below = parts_below([report])
    own = (_count(report, "images"), spent_of(report)) if below else (images, spent)
    return Earlier(key, name, images, spent, (Part(name, *own, _whole(report)), *below))


def parts_below(reports: Iterable[Mapping[str, Any]]) -> list[Part]:
    """Return what runs build upon, by their reports, each run once; an old report tells of the nearest ones alone."""
    told = [one for report in reports for one in _list(report.get("lineage")) or _list(report.get("builds_on"))]
    return distinct([Part(str(one.get("recipe")), _count(one, "images"), spent_of(one), _whole(one)) for one in told])


def distinct(parts: Iterable[Part]) -> list[Part]:
    """Return each run once, rather by itself than with all that it builds upon."""
    found: dict[tuple[object, ...], Part] = {}
    for one in parts:
        if one.known not in found or one.images < found[one.known].images:
            found[one.known] = one
    return list(found.values())


def images_before(earlier: Iterable[Earlier]) -> int:
    """Return how many pictures earlier runs have seen, those that they share counted once."""
    return sum(one.images for one in distinct(part for one in earlier for part in one.parts))


def _whole(report: Mapping[str, Any]) -> tuple[int, float]:
    images = report.get("images_cumulative", report.get("images"))
    seconds = report.get("seconds_cumulative", report.get("seconds"))
    return int(number(images) or 0), number(seconds) or 0.0


def _count(report: Mapping[str, Any], key: str) -> int:
    return int(number(report.get(key)) or 0)


def _list(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def begin_from(
    place: Path, recipe: Recipe, student: Student, *, image_u8: Tensor, taken_bchw: Tensor, feature_bchw: Tensor
) -> None:
    """Give the student the weights of a finished run or of a bundle; see `_begin_from_run` and `from_bundle.py`.

    Some crops uint8 (B, 3, H, W), what the encoder takes of them, and their feature serve a bundle.
    """
    if is_run(place):
        _begin_from_run(place, recipe, student)
        return
    bundle = opened("start", place)
    check_teacher("start", bundle, image_u8[:2], feature_bchw[:2])
    begin_from_bundle("start", bundle, student, taken_bchw, encoder_alone=recipe.lead is not None)


def _begin_from_run(folder: Path, recipe: Recipe, student: Student) -> None:
    """Give the student the weights of a finished run. Raises RecipeError where shapes or teachers differ.

    Where the student has a tail of its own and the run has none, the tail begins as the teacher's. With a `lead`, which
    gives decoder, gains and priors, the encoder's alone: levels may then be others.
    """
    run = Run(folder)
    if run.recipe().teacher != recipe.teacher:
        raise RecipeError(f"start: {folder} has another teacher section; both must agree to the letter")
    theirs, own = run.weights(), student.state_dict()
    tuned = any(name.startswith("tail.") for name in theirs)
    kept = {} if tuned else {name: one for name, one in own.items() if name.startswith("tail.")}
    try:
        if recipe.lead is None:
            student.load_state_dict({**theirs, **kept})
        else:
            prefix = "squeeze."
            below = {name.removeprefix(prefix): one for name, one in theirs.items() if name.startswith(prefix)}
            student.squeeze.load_state_dict(below)
    except RuntimeError as error:
        raise RecipeError(
            f"start: the student in {folder} has other shapes ({one_line(error)}); make them the same"
        ) from error


def begins_with_tail(recipe: Recipe) -> bool:
    """Say whether a student with a tail of its own takes over one that an earlier run has tuned."""
    start = recipe.start if recipe.own_tail() and recipe.lead is None else None
    return start is not None and is_run(start) and Run(start).recipe().own_tail()


def totals(earlier: list[Earlier], *, images: int, spent: Spent) -> dict[str, Any]:
    """Return what a report says of pictures seen and time spent: its own, and with all that it builds upon."""
    own = {"images": images, **spent.told()}
    if not earlier:
        return own
    below = distinct(part for one in earlier for part in one.parts)
    return {**own, **with_all(below, images=images, spent=spent), "builds_on": [one.told() for one in earlier]}


def with_all(below: Sequence[Part], *, images: int, spent: Spent) -> dict[str, Any]:
    """Return what a report says of pictures and time with all the runs below it, and of those runs."""
    return {
        "images_cumulative": images + sum(one.images for one in below),
        **all_of([spent, *(one.spent for one in below)]).told("_cumulative"),
        "lineage": [one.told() for one in below],
    }
