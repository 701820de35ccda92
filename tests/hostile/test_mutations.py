"""Mutated packets by the thousand (`make soak`: by the million) through parser, coder and edge."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitcodec.edge.answer import Edge
from splitcodec.errors import PacketError, SplitcodecError
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.codings import Codings
from tests.hostile.mutate import answered, mutants, receive, sealed_again, seeds, survive

TINY = open_bundle(Path(__file__).parents[1] / "data" / "tiny")
PACKETS = seeds(TINY)
CHOSEN, PLAIN = ([Codings(tables, plain=plain) for tables in TINY.tables] for plain in (None, True))
_EDITS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 12), st.binary(max_size=12)), min_size=1, max_size=6
)  # where, how many bytes go, what comes instead


def outcome(data: bytes, coders: list[Codings]) -> str | bytes:
    try:
        return receive(data, TINY, coders).tobytes()
    except PacketError as error:
        return type(error).__name__ + "\n" * str(error).count("\n")


def test_thousands_of_mutants(tiny: Bundle) -> None:
    told = survive(tiny, count=20_000, seed=7)
    assert sum(told["as they are"].values()) == sum(told["checksum put right"].values()) == 10_000
    assert "accepted" not in told["as they are"]
    assert {"PacketPayload", "PacketLevel", "PacketCoding", "PacketGrid", "PacketTableSet"} <= set(
        told["checksum put right"]
    )
    assert told["peak_memory_grew_mb"] < 64


def test_both_coders_say_the_same_of_a_mutant() -> None:
    for data, _ in islice(mutants(PACKETS, seed=8), 2000):
        assert outcome(data, CHOSEN) == outcome(data, PLAIN)


@given(st.sampled_from(PACKETS), _EDITS, st.booleans())
@settings(max_examples=300)
def test_any_edit_is_refused_by_name_or_decodes(base: bytes, edits: list[tuple[int, int, bytes]], seal: bool) -> None:
    data = bytearray(base)
    for at, gone, instead in edits:
        data[at : at + gone] = instead
    got = outcome(sealed_again(data, base) if seal else bytes(data), CHOSEN)
    if isinstance(got, str):
        assert got.startswith("Packet")
        assert "\n" not in got
    else:
        assert seal or bytes(data) in PACKETS


def test_mutants_through_the_edge() -> None:
    counts = answered(Edge(TINY, threads=1), PACKETS, count=5000, seed=9)
    assert counts["answered"] > 100
    assert counts["PacketChecksum"] > 1000


def test_a_batch_with_mutants_answers_the_others(tiny: Bundle) -> None:
    edge = Edge(tiny, threads=1)
    alone = [edge.answer(packet)["answers"] for packet in PACKETS]
    questions, whole = [], []
    for place, (data, _) in enumerate(islice(mutants(PACKETS, seed=10), 600)):
        for one in (data, PACKETS[place % len(PACKETS)]):
            try:
                questions.append(edge.read(one))
            except PacketError:
                continue
            whole.append(place % len(PACKETS) if one is not data else None)
    outcomes = edge.answer_all(questions)
    assert len(outcomes) == len(questions) > 700
    for which, got in zip(whole, outcomes, strict=True):
        if which is not None:
            assert not isinstance(got, SplitcodecError)
            came, wanted = got["answers"]["classify"], alone[which]["classify"]
            assert [one["index"] for one in came] == [one["index"] for one in wanted]
            assert np.allclose([one["p"] for one in came], [one["p"] for one in wanted], atol=1e-6)


def opened(count: int, *, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.hostile.mutate_bundles", "--count", str(count), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout)
    assert sum(told["outcomes"].values()) == count
    return told


def test_bundles_with_right_hashes_and_changed_graphs_are_refused_by_name() -> None:
    outcomes = opened(400, seed=1)["outcomes"]  # among them a graph without an input shape, and names that are no UTF-8
    assert outcomes["decoder.onnx: GraphError"] > 5
    assert outcomes["tables.npz: BundleFormat"] > 5


@pytest.mark.soak
def test_twenty_thousand_bundles_in_bounded_memory(capsys: pytest.CaptureFixture[str]) -> None:
    told = opened(20_000, seed=2)
    with capsys.disabled():
        print(f"\n{json.dumps(told, indent=1)}")


@pytest.mark.soak
def test_a_million_mutants_in_bounded_memory(capsys: pytest.CaptureFixture[str]) -> None:
    for bundle, count in (("tests/data/tiny", 800_000), ("efficientnet-lite0", 200_000)):
        command = [sys.executable, "-m", "tests.hostile.mutate", "--bundle", bundle, "--count", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
        assert done.returncode == 0, done.stderr[-2000:]
        told: dict[str, Any] = json.loads(done.stdout)
        with capsys.disabled():
            print(f"\n{json.dumps(told, indent=1)}")
        assert sum(told["as they are"].values()) + sum(told["checksum put right"].values()) == count
        assert "accepted" not in told["as they are"]


@pytest.mark.soak
def test_five_thousand_mutants_through_the_shipped_edge(capsys: pytest.CaptureFixture[str]) -> None:
    bundle = open_bundle("efficientnet-lite0")
    counts = answered(Edge(bundle, threads=1), seeds(bundle), count=5000, seed=11)
    with capsys.disabled():
        print(f"\n{bundle.ident}, 5,000 through Edge.answer: {counts}")
    assert counts["answered"] > 100
