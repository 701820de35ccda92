"""Runs that a run builds upon: `start`, whose weights it begins with, and `lead`, whose latent it learns.

What they have seen was seen for this run too, so their pictures and seconds are reported with its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from splitcodec.errors import RecipeError
from splitcodec.model.student import Student
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run


@final
@dataclass(frozen=True, slots=True)
class Earlier:
    """A finished run: its recipe's name; pictures and seconds, those of the runs that it builds upon included."""

    key: str
    recipe: str
    images: int
    seconds: float


def earlier_runs(recipe: Recipe) -> list[Earlier]:
    """Return the runs that a recipe builds upon. Raises RecipeError for one that is not there, or has not finished."""
    folders = {"start": recipe.start, "lead": recipe.lead}
    return [_earlier(key, folder) for key, folder in folders.items() if folder is not None]


def _earlier(key: str, folder: Path) -> Earlier:
    run = Run(folder)
    if not (folder / "recipe.yaml").exists():
        raise RecipeError(f"{key}: no run in {folder}; train that recipe first, or give another folder")
    report = run.report()
    if not report.get("finished"):
        raise RecipeError(f"{key}: the run in {folder} has not finished; let it go to its end first")
    images, seconds = (report.get(f"{name}_cumulative", report[name]) for name in ("images", "seconds"))
    return Earlier(key, run.recipe().name, int(images), float(seconds))


def begin_from(folder: Path, recipe: Recipe, student: Student) -> None:
    """Give the student the weights of a finished run. Raises RecipeError where shapes or teachers differ.

    Where the student has a tail of its own and the run has none, the tail begins as the teacher's.
    """
    run = Run(folder)
    if run.recipe().teacher != recipe.teacher:
        raise RecipeError(f"start: {folder} has another teacher section; both must agree to the letter")
    theirs, own = run.weights(), student.state_dict()
    tail = {} if any(name.startswith("tail.") for name in theirs) else _tail(own)
    try:
        student.load_state_dict({**theirs, **tail})
    except RuntimeError as error:
        line = " ".join(str(error).split())[:200]
        raise RecipeError(f"start: the student in {folder} has other shapes ({line}); make them the same") from error


def _tail(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name.startswith("tail.")}


def totals(earlier: list[Earlier], *, images: int, seconds: float) -> dict[str, Any]:
    """Return what a report says of pictures seen and seconds spent: its own, and with all that it builds upon."""
    own = {"images": images, "seconds": round(seconds, 1)}
    if not earlier:
        return own
    return {
        **own,
        "images_cumulative": images + sum(one.images for one in earlier),
        "seconds_cumulative": round(seconds + sum(one.seconds for one in earlier), 1),
        "builds_on": [asdict(one) for one in earlier],
    }
