"""Photographs -> labels, by the names of their folders.   used by: distill.py"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from splitcodec.errors import RecipeError
from splitcodec.training.build import class_names
from splitcodec.training.data import labels_of
from splitcodec.training.recipe import Recipe
from splitcodec.training.stages import AnswersStage


def labels_for(recipe: Recipe, paths: Sequence[Path], *, say: Callable[[str], None] | None = None) -> list[int] | None:
    """Return labels by folder name (wnid or class name) where a stage asks for them; -1 for pictures without.

    `say` is told where none has one. Raises RecipeError for a folder whose name two classes have.
    """
    if not any(isinstance(stage, AnswersStage) for _, stage in recipe.stages()):
        return None
    names, wnids = class_names(recipe)
    known = wnids or names
    twice = {name for name, times in Counter(known).items() if times > 1} & {path.parent.name for path in paths}
    if twice:
        raise RecipeError(
            f"teacher.classes: two classes are called {min(twice)}, so a folder of that name says neither; give the "
            "classes different names, and the folder that of its own"
        )
    labels = labels_of(paths, known)
    if say is not None and max(labels) < 0:
        say("none lies in a folder named like a class, so the teacher's own answers are all labels")
    return labels
