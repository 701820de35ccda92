from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitcodec.edge.answer import Edge
from splitcodec.evaluation.report import markdown
from splitcodec.evaluation.result import ANOTHER, ELSEWHERE, SAME, TUNED, Report
from splitcodec.evaluation.rivals import Rival, open_entrants
from splitcodec.evaluation.teachers import relation, teachers
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.graphs import _fields, weight_digests
from tests.evaluation.conftest import Make

CROPS = [np.random.default_rng(k).integers(0, 256, (64, 64, 3), dtype=np.uint8) for k in range(2)]


def _changed(data: bytes) -> bytes:
    """Return a graph with other signs of its weights."""
    out = bytearray(data)
    for number, _, graph in _fields(memoryview(out), name="x"):
        for field, _, tensor in _fields(graph, name="x") if number == 7 and isinstance(graph, memoryview) else ():
            for inner, _, raw in _fields(tensor, name="x") if field == 5 and isinstance(tensor, memoryview) else ():
                if inner == 9 and isinstance(raw, memoryview) and len(raw) > 64:
                    for place in range(1, len(raw), 2):
                        raw[place] ^= 0x80
    return bytes(out)


def _relation(rival: Bundle, main: Bundle) -> str:
    edges = Edge(rival, threads=1), Edge(main, threads=1)
    return relation(rival, main, edges=edges, crops=CROPS)


def test_the_same_files_are_the_same_network(tiny: Bundle, like_tiny: Make) -> None:
    assert _relation(like_tiny("twin"), tiny) == SAME


def test_other_files_that_answer_alike_are_the_same_network(tiny: Bundle, like_tiny: Make) -> None:
    unknown = b"\xa2\x06\x00"  # an empty training_info of the model: other bytes, the same graph
    files = {name: tiny.read(name) + unknown for name in ("head.onnx", "tail_classify.onnx")}
    assert _relation(like_tiny("x", files=files), tiny) == ELSEWHERE
    del files["tail_classify.onnx"]
    assert _relation(like_tiny("y", files=files), tiny) == SAME  # before the same tail: cut at the same layer


def test_networks_that_answer_otherwise(arena: Report, tiny: Bundle) -> None:
    found = {name: cost.teacher for name, cost in arena.encoders.items()}
    assert found == {"splitcodec": None, "tiny-large": SAME, "paper": SAME, "tuned": TUNED}


def test_another_network_is_said_everywhere(arena: Report) -> None:
    foreign = replace(arena, encoders={**arena.encoders, "tuned": replace(arena.encoders["tuned"], teacher=ANOTHER)})
    assert foreign.label("tuned") == "tuned (another network)"
    text = markdown(foreign)
    assert "Another network: tuned. " in text
    assert "| tuned | " not in text


@pytest.fixture
def strange(tiny: Bundle, like_tiny: Make) -> Bundle:
    """Return a bundle whose head has weights of its own."""
    head = tiny.read("head.onnx")
    return like_tiny("strange", files={"head.onnx": _changed(head)})


def test_a_head_of_other_weights_is_another_network(tiny: Bundle, strange: Bundle, labelled: Path) -> None:
    assert not weight_digests(strange.read("head.onnx"), name="x") <= weight_digests(tiny.read("head.onnx"), name="x")
    entrants = open_entrants(tiny, [Rival((strange,), "it")], taken=[])
    assert teachers(entrants, sorted(labelled.glob("*.png"))) == {"it": ANOTHER}


def test_the_worst_bundle_of_a_method_speaks_for_it(
    tiny: Bundle, like_tiny: Make, strange: Bundle, labelled: Path
) -> None:
    entrants = open_entrants(tiny, [Rival((strange, like_tiny("twin")), "it")], taken=[])
    assert teachers(entrants, sorted(labelled.glob("*"))) == {"it": ANOTHER}
