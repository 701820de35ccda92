"""Tails that break their contract: whatever a graph gives, the outcome is an answer or a GraphError."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from splitcodec.edge.tasks import TaskTail
from splitcodec.errors import GraphError
from splitcodec.wire.bundle import Bundle, derive
from splitcodec.wire.task import TaskSpec, file_name
from tests.wire.protobuf import model, node

SPEC = TaskSpec(
    task="detect",
    classes=("cat",),
    side=64,
    multiple=16,
    strides=(8,),
    feature_stride=8,
    keeps_feature=True,
    layers=("blocks.0",),
    backbone="",
    teacher_backbone="",
)
MAPS = [np.zeros((1, 8, 2, 3), np.float32)]
EDGES = np.ones((1, 6, 4), np.float32)


class Fixed:
    """A graph that gives the same whatever comes."""

    name = "tail.onnx"

    def __init__(self, **arrays: Any) -> None:
        self._arrays = arrays

    def outputs(self, _: Any) -> dict[str, Any]:
        return dict(self._arrays)


def tail(tiny: Bundle, task: Any, graph: Fixed, monkeypatch: pytest.MonkeyPatch) -> TaskTail:
    files = {
        file_name(task): replace(SPEC, task=task).to_json(),
        f"tail_{task}.onnx": model(node("Abs", "map_0", "y"), inputs=("map_0",), outputs=("y",)),
    }
    bundle = derive(tiny, replace(tiny.manifest, tasks=("classify", task)), files=files)
    made = TaskTail(bundle, task, threads=1)
    monkeypatch.setattr(made, "_graph", graph)
    return made


def test_boxes_in_their_form_are_answered(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tail(tiny, "detect", Fixed(scores=np.full((1, 6, 1), 0.5, np.float32), edges=EDGES), monkeypatch)
    (boxes,) = found.answers(MAPS)
    assert [box["label"] for box in boxes] == ["cat"] * 6  # type: ignore[index]


@pytest.mark.parametrize(
    ("scores", "edges", "message"),
    [
        (np.ones((1, 6, 2), np.float32), EDGES, "2 classes, expected 1"),  # the label of the second is not there
        (np.ones((1, 6), np.float32), EDGES, "breaks its contract"),
        (np.ones((1, 5, 1), np.float32), EDGES, "5 places, expected 6"),
        (np.ones((1, 6, 1), np.float32), EDGES[0], "of another batch"),
        (np.float32(1), EDGES, "of another batch"),
        (np.full((1, 6, 1), np.nan, np.float32), EDGES, "not finite"),
    ],
)
def test_boxes_in_another_form_are_refused(
    tiny: Bundle, scores: Any, edges: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tail(tiny, "detect", Fixed(scores=np.asarray(scores), edges=edges), monkeypatch)
    with pytest.raises(GraphError, match=message):
        broken.answers(MAPS)


def test_a_label_map_is_as_large_as_the_places_of_the_first_map(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/answers.md has it, whatever the grid of the logits."""
    (mask,) = tail(tiny, "segment", Fixed(logits=np.zeros((1, 1, 5, 7), np.float32)), monkeypatch).answers(MAPS)
    assert mask["size"] == [2 * 8, 3 * 8]  # type: ignore[call-overload]  # an answer is JSON
    with Image.open(io.BytesIO(base64.b64decode(mask["png"]))) as picture:  # type: ignore[call-overload]  # an answer is JSON
        assert (picture.format, picture.mode, picture.size) == ("PNG", "P", (24, 16))


@pytest.mark.parametrize("shape", [(1, 2, 4, 4), (1, 1, 4, 0), (1, 1, 4), ()])
def test_a_label_map_in_another_form_is_refused(
    tiny: Bundle, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tail(tiny, "segment", Fixed(logits=np.zeros(shape, np.float32)), monkeypatch)
    with pytest.raises(GraphError, match=r"tail\.onnx"):
        broken.answers(MAPS)


def test_what_are_no_maps_is_refused(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from splitcodec.edge.tasks import _Maps

    found = tail(tiny, "detect", Fixed(), monkeypatch)
    for feature in (np.zeros((1, 8), np.float32), np.zeros((1, 8, 2), np.float32)):
        with pytest.raises(GraphError, match=r"takes maps \(B, C, H, W\)"):
            found.chosen(_Maps(feature, {}))
