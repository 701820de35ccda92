"""What `evaluate --task` says: scores against bytes for every method, and which rivals count as trained.

used by: tasks.py, task_report.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, final

from splitcodec.errors import DataError
from splitcodec.evaluation.hull import bytes_at, upper_hull
from splitcodec.evaluation.machine import commit, machine
from splitcodec.evaluation.points import MAX_POINTS_FILE
from splitcodec.evaluation.result import UNDERTRAINED

BELOW: Final = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
_SAME: Final = 0.01  # points of score between two runs of one task teacher


@final
@dataclass(frozen=True, slots=True)
class TaskPoint:
    """One level or setting: mean bytes, and the scores in per cent by their names."""

    method: str
    setting: str
    bytes_mean: float
    scores: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the point as JSON values."""
        return {"method": self.method, "setting": self.setting, "bytes_mean": self.bytes_mean, **self.scores}


@final
@dataclass(frozen=True, slots=True)
class TaskReport:
    """What `evaluate --task` says; all scores in per cent."""

    task: Literal["detect", "segment"]
    teacher: dict[str, float]
    points: tuple[TaskPoint, ...]
    bundle: str
    data: str
    split: str
    images: int
    side: int
    skipped: tuple[str, ...]
    seconds: float
    trained: Mapping[str, str] = field(default_factory=dict)
    """Of each rival that is a bundle, whether it counts as trained: "trained" or "undertrained"."""
    other_runs: Mapping[str, str] = field(default_factory=dict)
    """Methods whose points an earlier run measured, and at which commit."""

    @property
    def score(self) -> str:
        """Return the name of the score that curves are drawn over."""
        return "map50" if self.task == "detect" else "miou"

    def label(self, method: str) -> str:
        """Return a method's name as tables and plots show it."""
        return f"{method} (undertrained)" if self.trained.get(method) == UNDERTRAINED else method

    def equal_score(self) -> list[dict[str, Any]]:
        """Return the bytes that each method's upper hull needs at some points below the teacher."""
        methods = list(dict.fromkeys(point.method for point in self.points))
        hulls = {
            name: upper_hull((one.bytes_mean, one.scores[self.score]) for one in self.points if one.method == name)
            for name in methods
        }
        top = self.teacher[self.score]
        return [
            {
                "below": below,
                "score": top - below,
                "bytes": {name: bytes_at(hull, top - below) for name, hull in hulls.items()},
            }
            for below in BELOW
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "task": self.task,
            "teacher": self.teacher,
            "points": [point.to_json() for point in self.points],
            "bundle": self.bundle,
            "data": self.data,
            "split": self.split,
            "images": self.images,
            "side": self.side,
            "equal_score": self.equal_score(),
            "trained": dict(self.trained),
            "other_runs": dict(self.other_runs),
            "skipped": list(self.skipped),
            "machine": machine(),
            "commit": commit(),
            "seconds": round(self.seconds, 1),
        }


def read_earlier(
    file: Path, *, like: Mapping[str, object], teacher: Mapping[str, float], taken: Iterable[str]
) -> tuple[list[TaskPoint], dict[str, str], dict[str, str]]:
    """Return the points of the methods that are not `taken`, their verdicts, and the commits that measured them.

    Where an earlier report has taken points over itself, their commit is the one it names.

    Raises DataError unless it measured the same task, data, split, pictures and side (`like`) with the same scores of
    the uncompressed task teacher: only then are its points those of this run.
    """
    try:
        if file.stat().st_size > MAX_POINTS_FILE:
            raise DataError(f"{file}: more than {MAX_POINTS_FILE} bytes; expected what `evaluate --task --out` wrote")
        body: Any = json.loads(file.read_bytes())
        others = {key: body[key] for key in like}
        scores = {key: float(value) for key, value in body["teacher"].items()}
        names, verdicts = set(taken), dict(body.get("trained", {}))
        where, older = str(body["commit"]), dict(body.get("other_runs", {}))
        points = [
            TaskPoint(
                str(one["method"]),
                str(one["setting"]),
                float(one["bytes_mean"]),
                {key: float(one[key]) for key in teacher},
            )
            for one in body["points"]
            if one["method"] not in names
        ]
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}); give an earlier report") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{file}: no report of `evaluate --task`; give a file that its --out wrote") from None
    for key, value in like.items():
        if others[key] != value:
            raise DataError(f"{file}: {key} is {others[key]!r:.40}, this run's {value!r}; measure both on the same")
    if scores.keys() != teacher.keys() or any(abs(scores[key] - teacher[key]) > _SAME for key in teacher):
        raise DataError(f"{file}: another task teacher than this run's ({scores} against {dict(teacher)})")
    found = {one.method: str(older.get(one.method, where)) for one in points}
    return points, {name: str(verdicts[name]) for name in found.keys() & set(verdicts)}, found
