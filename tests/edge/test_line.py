from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from splitcodec import Device, Edge
from splitcodec.errors import GraphError, PacketGrid, PacketPayload, SplitcodecError
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.packet import Packet, pack, unpack


@pytest.fixture(scope="module")
def edge(tiny: Bundle) -> Edge:
    return Edge(tiny, threads=1)


@pytest.fixture(scope="module")
def shipped() -> Edge:
    return Edge("efficientnet-lite0", threads=1)


@pytest.fixture(scope="module")
def packets(tiny: Bundle) -> list[bytes]:
    device, random = Device(tiny, threads=1), np.random.default_rng(3)
    return [device.encode(random.integers(0, 256, (70, 90, 3), dtype=np.uint8), level=n % 3) for n in range(7)]


def test_a_batch_answers_as_each_alone(edge: Edge, packets: list[bytes]) -> None:
    questions = [edge.read(packet, top=n + 1) for n, packet in enumerate(packets)]
    assert len({question.kind for question in questions}) == 1  # levels may share a batch
    for packet, question, found in zip(packets, questions, edge.answer_all(questions), strict=True):
        alone = edge.answer(packet, top=question.top)
        assert not isinstance(found, SplitcodecError)
        assert found["answers"] == alone["answers"]
        assert found["level"] == alone["level"]
        assert list(found["ms"]) == ["decode", "decoder", "tail"]


def test_the_shipped_graphs_answer_alike_in_batches(shipped: Edge) -> None:
    from splitcodec.demo.photos import PHOTOGRAPHS

    device = Device(shipped.bundles[0], threads=1)
    packets = [device.encode(photograph.read(), level=n) for n, photograph in enumerate(PHOTOGRAPHS)]
    together = shipped.answer_all([shipped.read(packet) for packet in packets])
    for packet, found in zip(packets, together, strict=True):
        assert not isinstance(found, SplitcodecError)
        alone = shipped.answer(packet)["answers"]["classify"]
        guesses = found["answers"]["classify"]
        assert [guess["index"] for guess in guesses] == [guess["index"] for guess in alone]
        assert [guess["p"] for guess in guesses] == pytest.approx([guess["p"] for guess in alone], abs=1e-6)


def test_each_of_a_batch_gets_boxes_from_its_own_score_on(shipped: Edge) -> None:
    from splitcodec.demo.photos import PHOTOGRAPHS

    device = Device(shipped.bundles[0], threads=1)
    packet = device.encode(PHOTOGRAPHS[1].read(), fit="letterbox")
    questions = [shipped.read(packet, tasks=["detect"], score=score) for score in (0.5, 0.05, 0.3)]
    assert len({question.kind for question in questions}) == 1
    few, every, some = (
        [box["score"] for box in answer["answers"]["detect"]]
        for answer in shipped.answer_all(questions)
        if not isinstance(answer, SplitcodecError)
    )
    assert 0 < len(few) < len(some) < len(every)
    assert few == [score for score in every if score >= 0.5]
    assert some == [score for score in every if score >= 0.3]


def test_a_bad_payload_fails_alone(edge: Edge, packets: list[bytes]) -> None:
    bad = pack(replace(unpack(packets[1]), payload=b"\x01" * 60))
    outcomes = edge.answer_all([edge.read(one) for one in (packets[0], bad, packets[2])])
    assert isinstance(outcomes[1], PacketPayload)
    for place in (0, 2):
        outcome = outcomes[place]
        assert not isinstance(outcome, SplitcodecError)
        assert outcome["answers"] == edge.answer(packets[place])["answers"]
    assert [type(one) for one in edge.answer_all([edge.read(bad)])] == [PacketPayload]


def test_features_that_break_the_tail_fail_alone(
    edge: Edge, packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [edge.read(packet) for packet in packets[:3]]
    alone = [edge.answer(packet)["answers"] for packet in packets[:3]]
    decoder = questions[0].line.decoder
    real, worst = decoder.latent_chw, decoder.symbols(questions[1].packet)

    def poisoned(symbols_chw: Any, level: int, *, table_set: int = 0) -> Any:
        latent_chw = real(symbols_chw, level, table_set=table_set)
        return latent_chw * np.float32("nan") if np.array_equal(symbols_chw, worst) else latent_chw

    monkeypatch.setattr(type(decoder), "latent_chw", staticmethod(poisoned))
    outcomes = edge.answer_all(questions)
    assert isinstance(outcomes[1], GraphError)
    assert [one["answers"] for one in outcomes if not isinstance(one, SplitcodecError)] == [alone[0], alone[2]]


def test_another_grid_is_another_batch(edge: Edge, tiny: Bundle, packets: list[bytes]) -> None:
    small = Device(tiny, threads=1).pack(np.zeros((4, 2, 3), np.int64), level=0)
    questions = [edge.read(one) for one in (packets[0], small, packets[1])]
    assert [question.symbols for question in questions] == [64, 24, 64]
    assert [question.cost for question in questions] == [64, 24, 64]
    assert [question.weight for question in questions] == [1.0, 6 / 16, 1.0]
    assert questions[1].kind != questions[0].kind == questions[2].kind
    outcomes = edge.answer_all(questions)
    assert len(outcomes) == 3
    assert not any(isinstance(outcome, SplitcodecError) for outcome in outcomes)


def test_a_grid_that_the_graphs_refuse_is_the_packets_fault(
    edge: Edge, tiny: Bundle, packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = edge.read(Device(tiny, threads=1).pack(np.zeros((4, 4, 1), np.int64), level=0))

    def refuse(*_: object) -> None:
        raise GraphError("Invalid input shape")

    monkeypatch.setattr(type(small.line.tasks), "answer", lambda *_, **__: refuse())
    outcomes = edge.answer_all([small, edge.read(packets[0])])
    assert isinstance(outcomes[0], PacketGrid)
    assert "4 x 1" in str(outcomes[0])
    assert isinstance(outcomes[1], GraphError)


def test_reading_refuses_before_anything_is_decoded(
    edge: Edge, packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("splitcodec.wire.coder.Coder.decode", never)
    huge = pack(replace(unpack(packets[0]), rows=255, cols=255, payload=b"\0"))
    assert len(huge) == 13
    with pytest.raises(PacketGrid):
        edge.read(huge)
    assert edge.read(packets[0]).top == 5


@pytest.mark.parametrize(("rows", "cols"), [(255, 16), (16, 255), (65, 63)])
def test_thirteen_bytes_buy_no_strip(shipped: Edge, monkeypatch: pytest.MonkeyPatch, rows: int, cols: int) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("splitcodec.wire.coder.Coder.decode", never)
    fingerprint = shipped.bundles[0].fingerprint[:4]
    strip = pack(Packet(0, 0, 0, fingerprint, rows=rows, cols=cols, payload=b"\x01"))
    assert len(strip) == 13
    with pytest.raises(PacketGrid, match="at most 64 rows"):
        shipped.read(strip, tasks=["classify"])


def test_the_largest_letterbox_is_let_in(shipped: Edge) -> None:
    bundle = shipped.bundles[0]
    picture = np.zeros((700, 900, 3), np.uint8)
    packet = Device(bundle, threads=1).encode(picture, level=0, fit="letterbox", side=bundle.manifest.max_side)
    question = shipped.read(packet)
    assert max(question.packet.rows, question.packet.cols) == bundle.manifest.max_side // bundle.manifest.stride


def test_every_further_task_is_charged(shipped: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = shipped.bundles[0].manifest
    packet = Device(shipped.bundles[0], threads=1).encode(np.zeros((90, 90, 3), np.uint8), level=0)
    costs = {
        tasks: shipped.read(packet, tasks=tasks).cost
        for tasks in (("classify",), ("detect",), ("segment", "segment"), ("classify", "detect"), manifest.tasks)
    }
    once = manifest.channels * 14 * 14
    assert list(costs.values()) == [once, 3 * once, 3 * once, 3 * once, 5 * once]
    question = shipped.read(packet, tasks=manifest.tasks)
    assert (question.symbols, question.weight) == (once, 5.0)
    head = question.line.tasks.heads["detect"]
    monkeypatch.setattr(head, "spec", replace(head.spec, decoder="decoder_detect"))
    assert shipped.read(packet, tasks=["detect"]).cost == 4 * once


def test_of_equal_fingerprints_one_answers(tiny: Bundle) -> None:
    newer = replace(tiny, manifest=replace(tiny.manifest, version=2))
    twin = replace(tiny, manifest=replace(tiny.manifest, name="twin"))
    edge = Edge(tiny, twin, newer, threads=1)
    assert [edge.answers_with(bundle) for bundle in (tiny, twin, newer)] == [False, False, True]
    edge = Edge(tiny, twin, threads=1)  # equal versions too: the first
    assert [edge.answers_with(bundle) for bundle in (tiny, twin)] == [True, False]
