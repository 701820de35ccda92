"""Which JPEG the demo compares with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from splitcodec.demo.equal import Equal, equal_jpeg
from splitcodec.wire.bundle import open_bundle

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from pages.equal import equal

ZOO = ("efficientnet-lite0", "efficientnet-lite0-medium", "efficientnet-lite0-large", "efficientnet-lite0-tiny")


@pytest.mark.parametrize("name", ZOO)
def test_the_lowest_quality_that_scores_as_high_as_the_default_level(name: str) -> None:
    manifest = open_bundle(name).manifest
    found = equal_jpeg(f"{manifest.name}@{manifest.version}", manifest.default_level)
    assert found is not None
    assert found.jpeg_top1 >= found.top1
    assert found.photographs >= 500
    assert 5 < found.quality < 96


def test_nobody_measured_other_bundles_and_levels() -> None:
    assert equal_jpeg("mine@1", 0) is None
    assert equal_jpeg("efficientnet-lite0@10", 99) is None
    assert equal_jpeg("efficientnet-lite0@10", -1) is None


def test_the_file_is_made_of_whole_crops_and_of_our_levels() -> None:
    def point(method: str, setting: str, top1: float) -> dict[str, object]:
        return {"method": method, "setting": setting, "top1": top1}

    report = {
        "images": 9,
        "points": [
            point("jpeg", "quality 50", 80.0),
            point("jpeg", "quality 40, 96 px", 50.0),
            point("jpeg", "quality 5", 30.0),
            point("splitcodec", "level 1", 70.0),
            point("splitcodec", "level 0", 60.0),
            point("paper", "level 0", 10.0),
        ],
        "encoders": {"splitcodec": {"ours": True, "bundles": ["x@3"]}, "paper": {"ours": False, "bundles": ["p@1"]}},
    }
    assert json.loads(equal(report)) == {
        "photographs": 9,
        "jpeg": [[5, 30.0], [50, 80.0]],
        "bundles": {"x@3": [60.0, 70.0]},
    }


def test_none_that_scores_as_high_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"photographs": 9, "jpeg": [[5, 30.0], [50, 80.0]], "bundles": {"x@3": [30.0, 60.0, 90.0]}}
    monkeypatch.setattr("splitcodec.demo.equal._report", lambda: body)
    assert equal_jpeg("x@3", 0) == Equal(5, 30.0, 30.0, 9)
    assert equal_jpeg("x@3", 1) == Equal(50, 80.0, 60.0, 9)
    assert equal_jpeg("x@3", 2) is None
