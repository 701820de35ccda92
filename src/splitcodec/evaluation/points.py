"""Points that other scripts measured on the same pictures, and what their encoders cost.   used by: rate.py

    {"images": 500, "points": [{"method", "setting", "bytes_mean", "top1", "encode_ms", "payload_mean"}],
     "encoders": {method: {"macs", "parameters", "bytes", "images_seen", "seconds",
    "processor_seconds", "device_seconds": {name: seconds}, "levelled", "bundles": [name@version, ...]}}}

All but points, method, setting, bytes_mean and top1 may be left out. A method with an encoder was trained, so it counts
only when it is trained (`rivals.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splitcodec.errors import DataError
from splitcodec.evaluation.result import EncoderCost, Point

MAX_POINTS_FILE = 16 << 20
MOST = 1e18
"""Of any number that is read; an integer of hundreds of digits is no float."""
MOST_LETTERS = 80
_TIMES = ("seconds", "processor_seconds")
_COSTS = ("macs", "parameters", "bytes", "images_seen", *_TIMES)


def read_points(
    files: Sequence[str | Path], *, images: int, taken: Sequence[str]
) -> tuple[list[Point], dict[str, EncoderCost]]:
    """Return the points that other scripts measured, and the costs of their encoders by method.

    `images` is how many pictures this run can read. Raises DataError for a file that is none, for another number of
    "images" (if the file says), for a method that this run measures itself (`taken`), for a setting that comes twice,
    and for a method of two costs.
    """
    seen: set[tuple[str, str]] = set()
    points: list[Point] = []
    encoders: dict[str, EncoderCost] = {}
    for file in files:
        body, own = _object(Path(file), images=images), set[str]()
        for place, item in enumerate(body["points"]):
            point = _point(item, where=f"{file}: points[{place}]")
            if point.method in taken:
                raise DataError(f"{file}: method {point.method!r} is measured by this run itself; rename or remove it")
            if (point.method, point.setting) in seen:
                raise DataError(f"{file}: {point.name!r} comes twice; remove one of them")
            seen.add((point.method, point.setting))
            own.add(point.method)
            points.append(point)
        costs = body.get("encoders", {})
        if not isinstance(costs, dict):
            raise DataError(f"{file}: encoders is {costs!r:.60}, expected an object with a method's cost per name")
        for method, cost in costs.items():
            if method not in own:
                raise DataError(f"{file}: encoders names {method!r:.60}, of which it has no point")
            found = _cost(cost, where=f"{file}: encoders.{method}")
            if encoders.setdefault(method, found) != found:
                raise DataError(
                    f"{file}: encoders.{method} is another cost than an earlier file tells; rename one of the methods, "
                    "or make one file of both, with what all its training took"
                )
    return points, encoders


def points_bytes(path: Path) -> bytes:
    """Return what a file of points holds, which may be a pipe. Raises DataError above `MAX_POINTS_FILE` bytes."""
    with path.open("rb") as file:
        data = file.read(MAX_POINTS_FILE + 1)
    if len(data) > MAX_POINTS_FILE:
        raise DataError(f"{path}: more than {MAX_POINTS_FILE} bytes; expected a file of points")
    return data


def _object(path: Path, *, images: int) -> dict[str, Any]:
    try:
        body = json.loads(points_bytes(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected a JSON file of points") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not JSON; expected an object with a list 'points'") from None
    if not isinstance(body, dict) or not isinstance(body.get("points"), list):
        raise DataError(f"{path}: expected a JSON object with a list 'points'")
    if body.get("images", images) != images:
        raise DataError(
            f"{path}: measured on {body['images']!r:.20} images, this run on {images} that can be read; measure both "
            "on the same"
        )
    return body


def _point(item: object, *, where: str) -> Point:
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object with method, setting, bytes_mean and top1")
    for key in ("method", "setting"):
        if not isinstance(item.get(key), str) or not 1 <= len(item[key]) <= MOST_LETTERS:
            raise DataError(f"{where}: {key} is {item.get(key)!r:.60}, expected 1 to {MOST_LETTERS} characters")
    size, top1, ms = (number(item.get(key)) for key in ("bytes_mean", "top1", "encode_ms"))
    if size is None or size <= 0:
        raise DataError(f"{where}: bytes_mean is {item.get('bytes_mean')!r:.60}, expected a number above 0")
    if top1 is None or not 0 <= top1 <= 100:
        raise DataError(f"{where}: top1 is {item.get('top1')!r:.60}, expected per cent, 0 to 100")
    payload = number(item.get("payload_mean"))
    if payload is None and item.get("payload_mean") is not None:
        raise DataError(f"{where}: payload_mean is {item['payload_mean']!r:.60}, expected a number or nothing")
    return Point(item["method"], item["setting"], size, top1, ms, payload_mean=payload)


def _cost(item: object, *, where: str) -> EncoderCost:
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object with {', '.join(_COSTS)}, levelled")
    found: dict[str, Any] = {}
    for key in _COSTS:
        value = number(item.get(key))
        if (value is None and item.get(key) is not None) or (value is not None and value < 0):
            raise DataError(f"{where}: {key} is {item[key]!r:.60}, expected a number of at least 0, or nothing")
        found[key] = value if value is None or key in _TIMES else int(value)
    held = item.get("device_seconds") or {}
    seconds = {name: number(value) for name, value in held.items()} if isinstance(held, dict) else {"": None}
    known = {name: value for name, value in seconds.items() if value is not None and value >= 0}
    if len(known) < len(seconds):
        raise DataError(f"{where}: device_seconds is {held!r:.60}, expected seconds by an accelerator's name")
    bundles = item.get("bundles") or []
    if not isinstance(bundles, list) or not all(
        isinstance(one, str) and 1 <= len(one) <= MOST_LETTERS for one in bundles
    ):
        raise DataError(f"{where}: bundles is {bundles!r:.60}, expected a list of name@version")
    return EncoderCost(**found, bundles=tuple(bundles), device_seconds=known, levelled=item.get("levelled") is True)


def number(value: object) -> float | None:
    """Return a JSON value as a number; None for anything else, and for what is not finite or has hundreds of digits."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST
    return float(value) if right else None  # type: ignore[arg-type]  # `right` says that it is a number
