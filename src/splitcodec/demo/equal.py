"""Which JPEG quality scores as high as a level of a bundle that ships, over many photographs.   used by: run.py

`equal.json` is written by benchmarks/results.py out of the report on rate and accuracy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, final

FILE: Final = "equal.json"


@final
@dataclass(frozen=True, slots=True)
class Equal:
    """A JPEG quality and a level: top-1 accuracy of each in per cent, over so many photographs."""

    quality: int
    jpeg_top1: float
    top1: float
    photographs: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"jpeg_top1": self.jpeg_top1, "packet_top1": self.top1, "photographs": self.photographs}


def equal_jpeg(ident: str, level: int) -> Equal | None:
    """Return the lowest quality whose score is at least the level's; None where nobody measured or none reaches it."""
    report = _report()
    scores = report["bundles"].get(ident, [])
    if not 0 <= level < len(scores):
        return None
    for quality, top1 in report["jpeg"]:
        if top1 >= scores[level]:
            return Equal(quality, top1, scores[level], report["photographs"])
    return None


@cache
def _report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files("splitcodec.demo").joinpath(FILE).read_bytes())
    return found
