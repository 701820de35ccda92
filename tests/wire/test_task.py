"""A bundle's word on a task."""

from __future__ import annotations

import json
from typing import Any

import pytest

from splitcodec.errors import BundleFormat
from splitcodec.wire.task import TaskSpec

SPEC = TaskSpec(
    task="detect",
    classes=("cat", "dog"),
    side=384,
    multiple=32,
    strides=(8, 16),
    feature_stride=8,
    keeps_feature=True,
    layers=("blocks.2.1", "blocks.4.2"),
    provenance={"recipe": "x"},
)


def test_round_trip() -> None:
    assert TaskSpec.from_json(SPEC.to_json(), name="x") == SPEC
    assert SPEC.graphs == ("decoder", "backbone", "tail_detect")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"format": True}, "format True"),
        ({"format": 1.0}, "format 1.0"),
        ({"task": "fly"}, "task is 'fly'"),
        ({"task": 1}, "task is 1"),
        ({"classes": []}, "classes is 0"),
        ({"classes": "cat"}, "expected a list"),
        ({"classes": [1]}, "labels as text"),
        ({"feature_stride": 4}, "feature_stride is 4, expected 8 or 16"),
        ({"side": 0}, "side is 0"),
        ({"side": True}, "side is True"),
        ({"strides": [8]}, "layers is"),
        ({"strides": []}, "strides is"),
        ({"keeps_feature": 1}, "keeps_feature is 1"),
        ({"decoder": "../x"}, "decoder is"),
        ({"decoder": ""}, "decoder is"),
        ({"backbone": "tail_detect"}, "backbone is"),
        ({"provenance": []}, "provenance is"),
        ({"more": 1}, "expected an object with the keys"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    body = {**json.loads(SPEC.to_json()), **change}
    with pytest.raises(BundleFormat, match=message):
        TaskSpec.from_json(json.dumps(body).encode(), name="task_detect.json")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"cat"', rb'"\ud800"'),  # half a character, which no answer could be written with
        (b'"recipe": "x"', b'"recipe": NaN'),
        (b'"recipe": "x"', b'"recipe": 1e999'),
        (b'"side": 384', b'"side": 384, "side": 64'),
    ],
)
def test_what_only_some_readers_take_for_json_is_refused(old: bytes, new: bytes) -> None:
    data = SPEC.to_json()
    assert data.count(old) == 1
    with pytest.raises(BundleFormat, match=r"task_detect\.json: not JSON"):
        TaskSpec.from_json(data.replace(old, new), name="task_detect.json")


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b"x" * ((1 << 20) + 1)])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(BundleFormat):
        TaskSpec.from_json(data, name="x")
