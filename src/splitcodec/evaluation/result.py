"""What an evaluation found, and its JSON.   made by: rate.py   written by: report.py   drawn by: plots.py"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, final

from splitcodec.evaluation.bd import Bd, Delta, Interval
from splitcodec.evaluation.hull import bytes_at, upper_hull

OURS = "splitcodec"
TEACHER = "teacher"
TRAINED, UNDERTRAINED, UNKNOWN = "trained", "undertrained", "unknown"
SAME, ELSEWHERE, TUNED, ANOTHER = "same", "same, cut elsewhere", "same, tail tuned", "another network"
FRONTIER = 3.0  # points below the teacher at which encoders are compared


@final
@dataclass(frozen=True, slots=True)
class Point:
    """One setting of one method: mean bytes per picture, top-1 in per cent, milliseconds to encode one crop.

    `top1_ci95` is the paired interval of the difference from the teacher, None for points read from a file.
    `payload_mean` is `bytes_mean` without what a flat grey picture of that size costs (for packets: without their fixed
    12 bytes), `resolution` the side in pixels of what was coded.
    """

    method: str
    setting: str
    bytes_mean: float
    top1: float
    encode_ms: float | None
    top1_ci95: tuple[float, float] | None = None
    payload_mean: float | None = None
    resolution: int | None = None

    @property
    def name(self) -> str:
        """Return method and setting in words."""
        return f"{self.method} {self.setting}"

    def to_json(self, *, teacher_top1: float) -> dict[str, Any]:
        """Return the point as JSON values."""
        body: dict[str, Any] = {
            "method": self.method,
            "setting": self.setting,
            "bytes_mean": _rounded(self.bytes_mean, 2),
            "top1": _rounded(self.top1, 4),
            "encode_ms": _rounded(self.encode_ms, 3),
            "top1_minus_teacher": _rounded(self.top1 - teacher_top1, 4),
        }
        if self.top1_ci95 is not None:
            body["top1_minus_teacher_ci95"] = [_rounded(end, 4) for end in self.top1_ci95]
        if self.payload_mean is not None:
            body["payload_mean"] = _rounded(self.payload_mean, 2)
        if self.resolution is not None:
            body["resolution"] = self.resolution
        return body


@final
@dataclass(frozen=True, slots=True)
class Contrast:
    """Top-1 of setting `a` minus that of `b` on the same pictures, in points, with the ends of its 95 % interval.

    `method_b` is the method of `b`.
    """

    a: str
    b: str
    bytes_a: float
    bytes_b: float | None
    top1: float
    low: float
    high: float
    method_b: str = TEACHER

    def to_json(self) -> dict[str, Any]:
        """Return the difference as JSON values; `bytes` is None for the teacher, which needs no packet."""
        return {
            "a": self.a,
            "b": self.b,
            "bytes_a": _rounded(self.bytes_a, 2),
            "bytes_b": _rounded(self.bytes_b, 2),
            "top1": _rounded(self.top1, 4),
            "ci95": [_rounded(self.low, 4), _rounded(self.high, 4)],
        }


@final
@dataclass(frozen=True, slots=True)
class EqualScore:
    """Bytes that each method's hull needs for one score, None where it does not reach it, and their 95 % intervals.

    An interval is of the bytes so many points below the teacher, whose score is resampled as well; None where there is
    none.
    """

    below_teacher: float
    top1: float
    bytes_of: dict[str, float | None]
    interval_of: dict[str, Interval | None]

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {
            "top1_minus_teacher": -self.below_teacher,
            "top1": _rounded(self.top1, 4),
            "bytes": {method: _rounded(size, 1) for method, size in self.bytes_of.items()},
            "bytes_interval": {method: _ends(found, 1) for method, found in self.interval_of.items()},
        }


@final
@dataclass(frozen=True, slots=True)
class EncoderCost:
    """What a method's encoder costs the device, and cost to train; None where that is not known.

    `images_seen` and `seconds` are those of all its runs, and of the runs that these began from; `images_each` is what
    the one that saw most has seen. `seconds` is wall time, of machines that differ. `processor_seconds` is what all
    processes took, None where a run has not counted it; `device_seconds` how long accelerators were held, by name.
    `levelled` is the run's own word that its validation loss had levelled off, `trained` the verdict (`rivals.py`),
    `ours` says that the method is one of our bundles, `teacher` how its network relates to ours (`teachers.py`; None:
    not known).
    """

    macs: int | None
    parameters: int | None
    bytes: int | None
    images_seen: float | None
    seconds: float | None
    levelled: bool = False
    ours: bool = False
    bundles: tuple[str, ...] = ()
    trained: str = UNKNOWN
    images_each: float | None = None
    teacher: str | None = None
    processor_seconds: float | None = None
    device_seconds: Mapping[str, float] = field(default_factory=dict)

    def judged(self, verdict: str) -> EncoderCost:
        """Return the same with a verdict."""
        return replace(self, trained=verdict)

    def to_json(self) -> dict[str, Any]:
        """Return the cost as JSON values."""
        return {
            "macs": self.macs,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "images_seen": self.images_seen,
            "images_each": self.images_each,
            "seconds": _rounded(self.seconds, 1),
            "processor_seconds": _rounded(self.processor_seconds, 1),
            "device_seconds": {name: round(held, 1) for name, held in self.device_seconds.items()},
            "levelled": self.levelled,
            "trained": self.trained,
            "ours": self.ours,
            "teacher": self.teacher,
            "bundles": list(self.bundles),
        }


class Corner(NamedTuple):
    """One method in the three-way picture: MACs of its encoder (None: not known), bytes per picture, top-1."""

    method: str
    macs: int | None
    bytes: float
    top1: float


@final
@dataclass(frozen=True, slots=True)
class Report:
    """All that one evaluation found. Scores in per cent, bytes per picture, milliseconds.

    `bd` is ours against every method, `bd_rate_matrix` every method with an encoder against every other; `contrasts`
    are of the main bundle's levels, `contrasts_of_kin` of our other bundles' against what is not ours. `codecs` are
    the image codecs, `command` is what repeats the run, where a script ran it.
    """

    bundle: str
    data: str
    images: int
    teacher_top1: float
    points: tuple[Point, ...]
    bd: dict[str, Bd]
    equal_score: tuple[EqualScore, ...]
    contrasts: tuple[Contrast, ...]
    contrasts_of_kin: tuple[Contrast, ...]
    overhead_bytes: dict[str, float]
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    machine: dict[str, object]
    commit: str | None
    seconds: float
    encoders: dict[str, EncoderCost]
    bd_rate_matrix: dict[str, dict[str, Delta]]
    codecs: tuple[str, ...]
    command: str | None = None

    def of(self, method: str) -> list[Point]:
        """Return the points of one method, fewest bytes first."""
        return sorted((one for one in self.points if one.method == method), key=lambda one: one.bytes_mean)

    @property
    def methods(self) -> list[str]:
        """Return the methods in the order of the report, ours first."""
        return list(dict.fromkeys(one.method for one in self.points))

    def is_ours(self, method: str) -> bool:
        """Say whether a method is one of our bundles."""
        return method in self.encoders and self.encoders[method].ours

    def is_undertrained(self, method: str) -> bool:
        """Say whether a method is a rival that is not trained enough to be beaten."""
        return method in self.encoders and self.encoders[method].trained == UNDERTRAINED

    def is_foreign(self, method: str) -> bool:
        """Say whether a method answers with another network than ours."""
        return method in self.encoders and self.encoders[method].teacher == ANOTHER

    def label(self, method: str) -> str:
        """Return the method's name for tables and legends, which say where it does not count."""
        marks = [ANOTHER] * self.is_foreign(method) + [UNDERTRAINED] * self.is_undertrained(method)
        return f"{method} ({', '.join(marks)})" if marks else method

    def frontier(self) -> list[Corner]:
        """Return each method where its hull passes 3 points below the teacher, or where it comes nearest to that.

        Image codecs need no encoder network, hence no MACs here.
        """
        corners = []
        for method in self.methods:
            hull = upper_hull((one.bytes_mean, one.top1) for one in self.of(method))
            target = min(max(self.teacher_top1 - FRONTIER, hull[0, 1]), hull[-1, 1])
            cost = self.encoders.get(method)
            macs = 0 if method in self.codecs else None if cost is None else cost.macs
            corners.append(Corner(method, macs, bytes_at(hull, target) or 0.0, target))
        return corners

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, in the words of docs/design.md section 7 and some more."""
        return {
            "bundle": self.bundle,
            "task": "classify",
            "images": self.images,
            "teacher_top1": _rounded(self.teacher_top1, 4),
            "points": [one.to_json(teacher_top1=self.teacher_top1) for one in self.points],
            "bd_rate": {method: _rounded(found.rate.value, 2) for method, found in self.bd.items()},
            "bd_rate_interval": {method: _ends(found.rate.interval, 2) for method, found in self.bd.items()},
            "bd_rate_payload": {method: _rounded(found.payload.value, 2) for method, found in self.bd.items()},
            "bd_rate_payload_interval": {method: _ends(found.payload.interval, 2) for method, found in self.bd.items()},
            "bd_accuracy": {method: _rounded(found.accuracy.value, 3) for method, found in self.bd.items()},
            "bd_accuracy_interval": {method: _ends(found.accuracy.interval, 3) for method, found in self.bd.items()},
            "bd_method": {method: found.rate.method for method, found in self.bd.items()},
            "bd_range": {method: _ends(found.rate.span, 2) for method, found in self.bd.items()},
            "bd_reason": {method: found.rate.reason for method, found in self.bd.items() if found.rate.reason},
            "bd_rate_matrix": {
                method: {anchor: _rounded(found.value, 2) for anchor, found in row.items()}
                for method, row in self.bd_rate_matrix.items()
            },
            "bd_rate_matrix_interval": {
                method: {anchor: _ends(found.interval, 2) for anchor, found in row.items()}
                for method, row in self.bd_rate_matrix.items()
            },
            "encoders": {method: cost.to_json() for method, cost in self.encoders.items()},
            "bytes_at_equal_score": [row.to_json() for row in self.equal_score],
            "differences": [one.to_json() for one in self.contrasts],
            "differences_of_kin": [one.to_json() for one in self.contrasts_of_kin],
            "overhead_bytes": {setting: _rounded(extra, 3) for setting, extra in self.overhead_bytes.items()},
            "data": self.data,
            "skipped": [{"image": name, "reason": reason} for name, reason in self.skipped],
            "notes": list(self.notes),
            "machine": self.machine,
            "commit": self.commit,
            "seconds": round(self.seconds, 1),
            **({} if self.command is None else {"command": self.command}),
        }


def _ends(interval: Interval | None, digits: int) -> list[float] | None:
    return None if interval is None else [round(end, digits) for end in interval]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
