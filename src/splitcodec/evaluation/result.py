"""What an evaluation found, and its JSON; points of other scripts.   made by: rate.py   written by: report.py"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from splitcodec.errors import DataError

OURS = "splitcodec"
TEACHER = "teacher"
MAX_POINTS_FILE = 16 << 20


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
    """Top-1 of setting `a` minus that of `b` on the same pictures, in points, with the ends of its 95 % interval."""

    a: str
    b: str
    bytes_a: float
    bytes_b: float | None
    top1: float
    low: float
    high: float

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
    """Bytes that each method's hull needs for one score; None where it does not reach it."""

    below_teacher: float
    top1: float
    bytes_of: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {
            "top1_minus_teacher": -self.below_teacher,
            "top1": _rounded(self.top1, 4),
            "bytes": {method: _rounded(size, 1) for method, size in self.bytes_of.items()},
        }


@final
@dataclass(frozen=True, slots=True)
class Report:
    """All that one evaluation found. Scores in per cent, bytes per picture, milliseconds."""

    bundle: str
    data: str
    images: int
    teacher_top1: float
    points: tuple[Point, ...]
    bd_rate: dict[str, float | None]
    bd_rate_payload: dict[str, float | None]
    bd_accuracy: dict[str, float | None]
    equal_score: tuple[EqualScore, ...]
    contrasts: tuple[Contrast, ...]
    overhead_bytes: dict[str, float]
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    machine: dict[str, object]
    commit: str | None
    seconds: float

    def of(self, method: str) -> list[Point]:
        """Return the points of one method, fewest bytes first."""
        return sorted((one for one in self.points if one.method == method), key=lambda one: one.bytes_mean)

    @property
    def methods(self) -> list[str]:
        """Return the methods in the order of the report, ours first."""
        return list(dict.fromkeys(one.method for one in self.points))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, in the words of docs/design.md section 7 and some more."""
        return {
            "bundle": self.bundle,
            "task": "classify",
            "images": self.images,
            "teacher_top1": _rounded(self.teacher_top1, 4),
            "points": [one.to_json(teacher_top1=self.teacher_top1) for one in self.points],
            "bd_rate": {method: _rounded(percent, 2) for method, percent in self.bd_rate.items()},
            "bd_rate_payload": {method: _rounded(percent, 2) for method, percent in self.bd_rate_payload.items()},
            "bd_accuracy": {method: _rounded(points, 3) for method, points in self.bd_accuracy.items()},
            "bytes_at_equal_score": [row.to_json() for row in self.equal_score],
            "differences": [one.to_json() for one in self.contrasts],
            "overhead_bytes": {setting: _rounded(extra, 3) for setting, extra in self.overhead_bytes.items()},
            "data": self.data,
            "skipped": [{"image": name, "reason": reason} for name, reason in self.skipped],
            "notes": list(self.notes),
            "machine": self.machine,
            "commit": self.commit,
            "seconds": round(self.seconds, 1),
        }


def read_points(files: Sequence[str | Path], *, images: int, taken: Sequence[str]) -> list[Point]:
    """Return the points that other scripts measured on the same pictures: JSON objects with a list "points".

    Raises DataError for a file that is none, for another number of "images" (if the file says), for a method that this
    run measures itself (`taken`), and for a setting that comes twice.
    """
    seen: set[tuple[str, str]] = set()
    points = []
    for file in files:
        body = _object(Path(file), images=images)
        for place, item in enumerate(body["points"]):
            point = _point(item, where=f"{file}: points[{place}]")
            if point.method in taken:
                raise DataError(f"{file}: method {point.method!r} is measured by this run itself; rename or remove it")
            if (point.method, point.setting) in seen:
                raise DataError(f"{file}: {point.name!r} comes twice; remove one of them")
            seen.add((point.method, point.setting))
            points.append(point)
    return points


def _object(path: Path, *, images: int) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_POINTS_FILE:
            raise DataError(f"{path}: more than {MAX_POINTS_FILE} bytes; expected a file of points")
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected a JSON file of points") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not JSON; expected an object with a list 'points'") from None
    if not isinstance(body, dict) or not isinstance(body.get("points"), list):
        raise DataError(f"{path}: expected a JSON object with a list 'points'")
    if body.get("images", images) != images:
        raise DataError(
            f"{path}: measured on {body['images']!r:.20} images, this run on {images}; measure both on the same"
        )
    return body


def _point(item: object, *, where: str) -> Point:
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object with method, setting, bytes_mean and top1")
    for key in ("method", "setting"):
        if not isinstance(item.get(key), str) or not 1 <= len(item[key]) <= 80:
            raise DataError(f"{where}: {key} is {item.get(key)!r:.60}, expected 1 to 80 characters")
    size, top1, ms = (_number(item.get(key)) for key in ("bytes_mean", "top1", "encode_ms"))
    if size is None or size <= 0:
        raise DataError(f"{where}: bytes_mean is {item.get('bytes_mean')!r:.60}, expected a number above 0")
    if top1 is None or not 0 <= top1 <= 100:
        raise DataError(f"{where}: top1 is {item.get('top1')!r:.60}, expected per cent, 0 to 100")
    payload = _number(item.get("payload_mean"))
    if payload is None and item.get("payload_mean") is not None:
        raise DataError(f"{where}: payload_mean is {item['payload_mean']!r:.60}, expected a number or nothing")
    return Point(item["method"], item["setting"], size, top1, ms, payload_mean=payload)


def _number(value: object) -> float | None:
    right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if right else None  # type: ignore[arg-type]  # `right` says that it is a number


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
