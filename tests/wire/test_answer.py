"""The answer: there and back, and whatever else an address may send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitcodec.errors import AnswerTooLarge, LinkGarbled
from splitcodec.wire.answer import MAX_BYTES, Answer, Guess, dump_answer, parse_answer

ONE: Answer = {
    "bundle": "tiny@1",
    "level": 2,
    "answers": {"classify": [{"index": 3, "label": "jaguar é", "p": 0.75}]},
    "ms": {"decode": 0.25, "tail": 1.5},
}
label = st.text(max_size=10)
task = label.filter(lambda name: name not in ("detect", "segment"))  # whose answers look otherwise
millis = st.floats(0, 1e6)
guesses = st.builds(Guess, index=st.integers(0, 10**6), label=label, p=st.floats(0, 1))
answers = st.builds(
    Answer,
    bundle=label,
    level=st.integers(-1, 15),
    answers=st.dictionaries(task, st.lists(guesses, max_size=3), max_size=3),
    ms=st.dictionaries(label, millis, max_size=3),
)


@given(answers)
def test_round_trip(answer: Answer) -> None:
    assert parse_answer(dump_answer(answer)) == answer


def test_it_is_one_line_of_utf8() -> None:
    data = dump_answer(ONE)
    assert b"\n" not in data
    assert "é".encode() in data


def test_an_answer_that_no_device_takes_is_not_written() -> None:
    def of(letters: int) -> Answer:
        return {**ONE, "answers": {"classify": [{"index": 3, "label": "x" * letters, "p": 0.75}]}}

    room = MAX_BYTES - len(dump_answer(of(0)))
    assert parse_answer(dump_answer(of(room))) == of(room)
    with pytest.raises(AnswerTooLarge, match="1048577 bytes, at most 1048576 are sent; ask for fewer guesses or tasks"):
        dump_answer(of(room + 1))


def test_whole_numbers_are_read_as_floats() -> None:
    guess = {"index": 0, "label": "x", "p": 1}
    got = parse_answer(json.dumps({**ONE, "answers": {"classify": [guess]}, "ms": {"tail": 2}}).encode())
    assert isinstance(got["answers"]["classify"][0]["p"], float)
    assert isinstance(got["ms"]["tail"], float)


def guess_with(**changed: Any) -> dict[str, Any]:
    return {"answers": {"classify": [{"index": 3, "label": "x", "p": 0.5, **changed}]}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bundle": 1}, "bundle: '1', expected text"),
        ({"level": "2"}, "level: '2', expected an integer"),
        ({"level": True}, "level: 'True', expected an integer"),
        ({"level": 1.0}, "level: '1.0', expected an integer"),
        ({"answers": []}, "answers: '\\[\\]', expected an object"),
        ({"answers": {"classify": {}}}, "answers.classify: '{}', expected a list"),
        ({"answers": {"classify": [1]}}, "answers.classify: '1', expected an object"),
        ({"ms": {"tail": "1"}}, "ms.tail: '1', expected a finite number"),
        ({"ms": {"tail": 10**400}}, "ms.tail: '1000.*', expected a finite number"),
        ({"ms": {"tail": None}}, "ms.tail: 'None', expected a finite number"),
        ({"extra": 1}, "answer: keys .* expected"),
        ({"bundle": "\ud800"}, "bundle: .* expected text"),
        ({"ms": {"\ud800": 1}}, "name of a task or stage: .* expected text"),
        (guess_with(p=1.5), "classify.p: 1.5, expected a probability"),
        (guess_with(p=-(10**400)), "classify.p: '-1000.*', expected a finite number"),
        (guess_with(p=True), "classify.p: 'True', expected a finite number"),
        (guess_with(index=0.5), "classify.index: '0.5', expected an integer"),
        (guess_with(label=None), "expected text"),
        (guess_with(more=1), "keys .* expected"),
    ],
)
def test_wrong_types_and_keys_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(LinkGarbled, match=message):
        parse_answer(json.dumps({**ONE, **changed}).encode())


def box_with(**changed: Any) -> dict[str, Any]:
    return {"answers": {"detect": [{"index": 3, "label": "x", "score": 0.5, "box": [0, 0, 1, 1], **changed}]}}


def mask_with(share: float = 0.5, **changed: Any) -> dict[str, Any]:
    classes = [{"index": 3, "label": "x", "share": share}]
    return {"answers": {"segment": {"size": [2, 3], "png": "", "classes": classes, **changed}}}


@pytest.mark.parametrize(
    "right", [box_with(), box_with(box=[0.5, 0.5, 0.5, 0.5]), mask_with(), mask_with(size=[1, 65_536])]
)
def test_boxes_and_label_maps_are_read(right: dict[str, Any]) -> None:
    assert parse_answer(json.dumps({**ONE, **right}).encode())["answers"] == right["answers"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (box_with(box=[0.6, 0, 0.5, 1]), "x0, y0, x1 and y1, smaller ones first"),
        (box_with(box=[0, 0.6, 1, 0.5]), "x0, y0, x1 and y1, smaller ones first"),
        (box_with(box=[0, 0, 1]), "x0, y0, x1 and y1, smaller ones first"),
        (box_with(box=[0, 0, 1, 1, 1]), "x0, y0, x1 and y1, smaller ones first"),
        (box_with(box=[0, 0, 1, 1.5]), "detect.box: 1.5, expected 0 to 1"),
        (box_with(box=[-0.5, 0, 1, 1]), "detect.box: -0.5, expected 0 to 1"),
        (box_with(score=1.5), "detect.score: 1.5, expected 0 to 1"),
        (mask_with(size=[2]), "expected rows and columns"),
        (mask_with(size=[2, 3, 4]), "expected rows and columns"),
        (mask_with(size=[0, 3]), "expected rows and columns"),
        (mask_with(size=[3, 65_537]), "expected rows and columns"),
        (mask_with(share=1.5), "segment.share: 1.5, expected 0 to 1"),
    ],
)
def test_boxes_and_label_maps_that_are_none_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(LinkGarbled, match=message):
        parse_answer(json.dumps({**ONE, **changed}).encode())


def test_an_answer_of_more_than_a_mebibyte_is_not_read() -> None:
    data = json.dumps({**ONE, "bundle": "x" * (1 << 20)}).encode()
    with pytest.raises(LinkGarbled, match="at most 1048576 are read"):
        parse_answer(data)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(LinkGarbled, match="answer: keys"):
        parse_answer(b'{"bundle": "x"}')


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>502 Bad Gateway</html>",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"[" * 200_000,
        b'{"bundle": NaN}',
        b'{"bundle":"x","level":0,"answers":{},"ms":{"tail":1e999}}',
        b" " * (MAX_BYTES + 1),
    ],
)
def test_what_is_no_answer_is_refused_on_one_line(data: bytes) -> None:
    with pytest.raises(LinkGarbled) as refusal:
        parse_answer(data)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_json_is_refused_by_name(value: Any) -> None:
    with pytest.raises(LinkGarbled):
        parse_answer(json.dumps({**ONE, "answers": value, "ms": value}).encode())


def test_an_answer_must_have_what_was_asked_for() -> None:
    data = dump_answer(ONE)
    for tasks in (None, (), ("classify",)):
        assert parse_answer(data, tasks=tasks) == ONE
    with pytest.raises(LinkGarbled, match=r"an answer to classify, but segment was asked for as well; check the edge"):
        parse_answer(data, tasks=("classify", "segment"))
    with pytest.raises(LinkGarbled, match="an answer to nothing, but classify was asked for"):
        parse_answer(dump_answer({**ONE, "answers": {}}), tasks=())
    assert parse_answer(dump_answer({**ONE, "answers": {}}))["answers"] == {}
