"""What `evaluate --task` says: scores against bytes for every method, and which rivals count as trained.

used by: tasks.py, task_report.py
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, final

from splitcodec.errors import DataError, SettingsError
from splitcodec.evaluation.hull import bytes_at, upper_hull
from splitcodec.evaluation.machine import commit, machine
from splitcodec.evaluation.points import number, points_bytes
from splitcodec.evaluation.result import UNDERTRAINED
from splitcodec.evaluation.versions import codec_versions

SCORES: Final = {"detect": ("map50", "map"), "segment": ("miou", "pixel_accuracy")}
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
        return SCORES[self.task][0]

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
            "machine": {**machine(), "codecs": codec_versions()},
            "commit": commit(),
            "seconds": round(self.seconds, 1),
        }


@final
@dataclass(frozen=True, slots=True)
class Earlier:
    """What a file says of an earlier run: its points, verdicts, commits, and on what it was measured."""

    file: Path
    like: Mapping[str, object]
    teacher: Mapping[str, float]
    points: tuple[TaskPoint, ...]
    verdicts: Mapping[str, str]
    commits: Mapping[str, str]
    """By method: where an earlier report has taken points over itself, their commit is the one it names."""

    def check(self, like: Mapping[str, object], *, teacher: Mapping[str, float] | None = None) -> None:
        """Raise DataError unless it measured the same (`like`: task, data, split, side, pictures).

        And with the same scores of the uncompressed task teacher: only then are its points those of this run.
        """
        for key, value in like.items():
            if self.like[key] != value:
                raise DataError(
                    f"{self.file}: {key} is {self.like[key]!r:.40}, this run's {value!r}; measure both on the same"
                )
        if teacher is None:
            return
        if self.teacher.keys() != teacher.keys() or any(
            abs(self.teacher[key] - teacher[key]) > _SAME for key in teacher
        ):
            raise DataError(
                f"{self.file}: another task teacher than this run's ({dict(self.teacher)} against {dict(teacher)})"
            )


def read_earlier(file: Path, *, names: Iterable[str], keys: Iterable[str]) -> Earlier:
    """Return what an earlier run wrote: points with the scores of these `names`, and `keys` of what it measured.

    Raises DataError for a file that cannot be read or is no such report.
    """
    try:
        body: Any = json.loads(points_bytes(file))
        points = tuple(_earlier_point(one, names) for one in body["points"])
        where, older = str(body["commit"]), dict(body["other_runs"])
        return Earlier(
            file,
            {key: body[key] for key in keys},
            {key: float(value) for key, value in body["teacher"].items()},
            points,
            {str(key): str(value) for key, value in dict(body["trained"]).items()},
            {one.method: str(older.get(one.method, where)) for one in points},
        )
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}); give an earlier report") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise DataError(f"{file}: no report of `evaluate --task`; give a file that its --out wrote") from None


def with_earlier(report: TaskReport, run: Earlier) -> TaskReport:
    """Return the report with an earlier run's points of methods that it has not got."""
    more = {point.method for point in run.points} - {point.method for point in report.points}
    return replace(
        report,
        points=(*report.points, *(point for point in run.points if point.method in more)),
        trained={**report.trained, **{name: said for name, said in run.verdicts.items() if name in more}},
        other_runs={**report.other_runs, **{name: where for name, where in run.commits.items() if name in more}},
    )


def check_once(files: Sequence[str | Path], earlier: Sequence[Earlier], *, measured: Collection[str]) -> None:
    """Refuse two files with points of one method that this run does not measure. Raises SettingsError."""
    seen = set(measured)
    for file, one in zip(files, earlier, strict=True):
        methods = {point.method for point in one.points} - set(measured)
        if twice := methods & seen:
            raise SettingsError(f"--points {file}: an earlier file has points of {min(twice)} too; give one of the two")
        seen |= methods


def _earlier_point(one: Mapping[str, Any], names: Iterable[str]) -> TaskPoint:
    """Return a point of an earlier report. Raises KeyError, and ValueError for what is no number of bytes or score."""
    size, scores = number(one["bytes_mean"]), {name: number(one[name]) for name in names}
    right = {name: score for name, score in scores.items() if score is not None and 0 <= score <= 100}
    if size is None or size <= 0 or len(right) < len(scores):
        raise ValueError("expected bytes above 0, and scores in per cent")
    return TaskPoint(str(one["method"]), str(one["setting"]), size, right)
