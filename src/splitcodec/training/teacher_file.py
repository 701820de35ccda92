"""The file of a run's teacher, by its hash: what has learned from one teacher goes on with it.

Used by run.py and export.py.

A recipe names the file alone, and export reads it again. Trained anew in the same place, it would be another network,
behind a student that never saw it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from splitcodec.errors import RunError
from splitcodec.training.recipe import Recipe

KEY: Final = "teacher_sha256"


def facts_of_teacher(recipe: Recipe) -> dict[str, str]:
    """Return what a run notes of its teacher's file; nothing of a package's, or of a file that is not there."""
    path = Path(recipe.teacher.weights)
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        return {KEY: hashlib.file_digest(file, "sha256").hexdigest()}


def check_teacher_file(folder: Path, known: Mapping[str, Any], recipe: Recipe) -> None:
    """Raise RunError where the teacher's file is another than the run began with."""
    was, now = known.get(KEY), facts_of_teacher(recipe).get(KEY)
    if was is not None and now is not None and was != now:
        raise RunError(
            f"{folder}: {recipe.teacher.weights} is another file than this run learned from (sha256 {was:.12}..., now "
            f"{now:.12}...); put that one back, or train another run on this one"
        )
