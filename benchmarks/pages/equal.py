"""What the demo compares with: top-1 of JPEG's qualities and of each level of ours, out of the arena's report."""

from __future__ import annotations

import json
import re
from typing import Any

PAGE = "src/splitcodec/demo/equal.json"


def equal(rate: dict[str, Any]) -> str:
    """Return the file: JPEGs of the whole crop, 4:2:0, from the lowest quality on; levels from the lowest on."""
    scores: dict[str, dict[int, float]] = {}
    jpeg = {}
    for point in rate["points"]:
        if point["method"] == "jpeg" and (found := re.fullmatch(r"quality (\d+)", point["setting"])):
            jpeg[int(found[1])] = point["top1"]
        bundles = rate.get("encoders", {}).get(point["method"], {})
        if bundles.get("ours") and (found := re.fullmatch(r"level (\d+)", point["setting"])):
            scores.setdefault(bundles["bundles"][0], {})[int(found[1])] = point["top1"]
    body = {
        "photographs": rate["images"],
        "jpeg": sorted(jpeg.items()),
        "bundles": {ident: [one[level] for level in sorted(one)] for ident, one in scores.items()},
    }
    return json.dumps(body, indent=1) + "\n"
