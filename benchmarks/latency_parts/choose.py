"""Operating points at equal accuracy, out of rd.json: per method the cheapest measured setting that is good enough."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from splitcodec.errors import DataError
from splitcodec.evaluation.hull import bytes_at, upper_hull
from splitcodec.evaluation.result import OURS, TRAINED, UNDERTRAINED

_LEVEL = re.compile(r"(?:(.+) )?level ([0-9]+)")
_DIAL = re.compile(r"([a-z]+) ([0-9]+)(?:, ([0-9]+) px)?")


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """One method's setting: mean bytes and top-1 in per cent as measured in rd.json.

    `reaches` is false where no setting is good enough; this is then the best, and nothing is claimed of it. `trained`
    is as in rd.json, None for image codecs. `equal_bytes` are what the method needs for exactly the score that was
    asked for, read off its hull as design.md says: who may mix two settings from picture to picture pays that.
    """

    method: str
    setting: str
    bytes_mean: float
    top1: float
    reaches: bool
    trained: str | None = None
    read_off: float | None = None

    @property
    def equal_bytes(self) -> float:
        """Return the bytes at the score asked for, those of the setting where the hull does not reach it."""
        return self.bytes_mean if self.read_off is None else self.read_off

    @property
    def level(self) -> tuple[str | None, int]:
        """Return a bundle's name (None: the method has but one) and the level. Raises DataError."""
        match = _LEVEL.fullmatch(self.setting)
        if match is None:
            raise DataError(f"{self.method}: setting {self.setting!r:.60} is no level of a bundle")
        return match[1], int(match[2])

    @property
    def dial(self) -> tuple[int, int | None]:
        """Return an image codec's setting, and the side in pixels (None: the crop's). Raises DataError."""
        match = _DIAL.fullmatch(self.setting)
        if match is None:
            raise DataError(f"{self.method}: setting {self.setting!r:.60} is no setting of an image codec")
        return int(match[2]), None if match[3] is None else int(match[3])

    @property
    def undertrained(self) -> bool:
        """Say whether nothing may be claimed against it for want of training."""
        return self.trained == UNDERTRAINED


@final
class Rates:
    """What rd.json holds, checked as far as it is used. Raises DataError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            body: Any = json.loads(path.read_bytes())
            self.teacher_top1 = float(body["teacher_top1"])
            self.images = int(body["images"])
            self.commit: str | None = body.get("commit")
            self._points: list[dict[str, Any]] = [
                {
                    "method": str(one["method"]),
                    "setting": str(one["setting"]),
                    "bytes_mean": float(one["bytes_mean"]),
                    "top1": float(one["top1"]),
                }
                for one in body["points"]
            ]
            self._encoders = {
                str(method): (cost.get("trained"), tuple(cost.get("bundles", ())))
                for method, cost in body.get("encoders", {}).items()
            }
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror or error}); write it with benchmarks/rate_accuracy.py"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path}: not an rd.json of benchmarks/rate_accuracy.py ({type(error).__name__}: {error})"
            ) from None

    def method_of(self, ident: str) -> str | None:
        """Return the method that a bundle, name@version, was measured as; None if it was not."""
        return next((method for method, (_, bundles) in self._encoders.items() if ident in bundles), None)

    def idents_of(self, method: str) -> tuple[str, ...]:
        """Return the bundles that are one method."""
        return self._encoders.get(method, (None, ()))[1]

    def of_level(self, ident: str, level: int) -> Choice:
        """Return what a level of a bundle, name@version, was measured at. Raises DataError if it was not."""
        method, name = self.method_of(ident), ident.partition("@")[0]
        for one in self._points:
            choice = Choice(**one, reaches=True)
            if one["method"] == method and choice.level in ((None, level), (name, level)):
                return choice
        raise DataError(
            f"{self.path}: {ident} was not measured there at level {level}; "
            "measure it: python benchmarks/rate_accuracy.py --bundles ..."
        )

    def choose(self, method: str, *, within: float, names: Collection[str | None] | None = None) -> Choice | None:
        """Return the cheapest setting at most `within` points below the teacher, else the best; None without points.

        `names` are the bundles whose settings count, as `Choice.level` has them (none: all settings do).
        """
        points = [one for one in self._points if one["method"] == method]
        if names is not None:
            points = [one for one in points if Choice(**one, reaches=True).level[0] in names]
        if not points:
            return None
        good = [one for one in points if one["top1"] >= self.teacher_top1 - within - 1e-9]
        if good:
            best = min(good, key=lambda one: (one["bytes_mean"], -one["top1"]))
        else:
            best = min(points, key=lambda one: (-one["top1"], one["bytes_mean"]))
        trained = self._encoders.get(method, (None, ()))[0]
        read_off = bytes_at(upper_hull((one["bytes_mean"], one["top1"]) for one in points), self.teacher_top1 - within)
        return Choice(
            **best,
            reaches=bool(good),
            trained=TRAINED if method == OURS else trained,
            read_off=read_off if good else None,
        )
