"""The end of a run: levels placed, symbols counted for the tables, weights and report written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from splitcodec.errors import DataError
from splitcodec.model.parts import TableBottleneck
from splitcodec.model.student import Student
from splitcodec.training.build import Halves
from splitcodec.training.data import centre_crops
from splitcodec.training.place import NEAREST, PLACED_ON, place_levels
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run
from splitcodec.training.tabulate import dump_counts
from splitcodec.training.validate import count

COUNTED: Final = 2000
"""Photographs whose symbols are counted for the tables."""


def place(
    recipe: Recipe, student: Student, *, halves: Halves, paths: list[Path], run: Run, say: Callable[[str], None]
) -> None:
    """Move levels to the sizes that the recipe asks for, if it does; `say` is told of those that none can have.

    Raises DataError where no photograph can be read.
    """
    if recipe.levels.kilobytes is None:
        return
    crops = _crops(recipe, paths, about=PLACED_ON)
    places = place_levels(student, halves, crops=crops, kilobytes=recipe.levels.kilobytes)
    run.log({"stage": "placed", "places": places})
    last = recipe.levels.count - 1
    beyond = [str(level) for level, at in enumerate(places) if not NEAREST * last < at < (1 - NEAREST) * last]
    if beyond:
        say(
            f"level {', '.join(beyond)}: the size that levels.kilobytes asks for lies beyond the first or the last "
            "trained level, so it is as small or as large as that one; ask for sizes between, or train other lambdas"
        )


def end(
    recipe: Recipe, student: Student, *, halves: Halves, paths: list[Path], run: Run, final: dict[str, Any]
) -> dict[str, Any]:
    """Count symbols (none for a student without tables), write weights and the final report; returns the report.

    Raises DataError where no photograph can be read, OutputError.
    """
    if isinstance(student.bottleneck, TableBottleneck):
        crops = _crops(recipe, paths, about=COUNTED)
        run.keep_counts(dump_counts(count(student, halves, crops=crops)))
        final = {**final, "counted": len(crops)}
    run.finish(student.state_dict(), final)
    return final


def _crops(recipe: Recipe, paths: list[Path], *, about: int) -> Tensor:
    """Return crops of some photographs, as the device would make them: uint8 (N, 3, H, W)."""
    some, size = paths[:: max(1, len(paths) // about)], recipe.teacher
    image_u8 = centre_crops(some, resize=size.resize, crop=size.crop).image_u8
    if not len(image_u8):
        raise DataError(f"none of {len(some)} photographs can be read, {paths[0]} among them; give others")
    return image_u8
