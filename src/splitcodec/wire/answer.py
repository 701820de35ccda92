"""What comes back over the link: the answer's JSON, written by the edge and read by the device.

The words are those of `POST /v1/answer`. A device does not trust an edge either: what does not look exactly like an
answer is refused by name instead of surfacing as a KeyError in somebody's loop.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn, TypedDict, cast

from splitcodec.errors import AnswerTooLarge, LinkGarbled

MAX_BYTES = 1 << 20
MAX_SIDE = 65_536
GUESSES = 5
"""Guesses of a classification that an edge gives unless it is asked for another number."""
MOST_GUESSES = 1000
LEAST_SCORE = 0.05
"""Score below which an edge gives no boxes, whatever it is asked for."""
LEAST_REGION = 0.0005
"""Share of a label map's pixels below which a class is in the map alone, not in the list beside it."""


class Guess(TypedDict):
    """One class and its probability."""

    index: int
    label: str
    p: float


class Box(TypedDict):
    """One object: x0, y0, x1, y1 in shares of what the network saw, 0 to 1; a device maps them to pixels."""

    index: int
    label: str
    score: float
    box: list[float]


class Region(TypedDict):
    """One class of a label map, and its share of the map's pixels."""

    index: int
    label: str
    share: float


class Mask(TypedDict):
    """A label map: its size as (rows, columns), a PNG with a palette in base64, and the classes that occur in it."""

    size: list[int]
    png: str
    classes: list[Region]


class Answers(TypedDict, total=False):
    """What was asked for. Tasks that this version does not know are read like `classify`."""

    classify: list[Guess]
    detect: list[Box]
    segment: Mask


class Answer(TypedDict):
    """An edge's answer. `bundle` is name@version, `level` is -1 for an uncompressed picture, `ms` is per stage."""

    bundle: str
    level: int
    answers: Answers
    ms: dict[str, float]


def dump_answer(answer: Answer) -> bytes:
    """Return the answer as one line of JSON in UTF-8. Raises AnswerTooLarge above 1 MiB, which no device would take."""
    data = json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if len(data) > MAX_BYTES:
        raise AnswerTooLarge(
            f"an answer of {len(data)} bytes, at most {MAX_BYTES} are sent; ask for fewer guesses or tasks, or send a "
            "smaller picture"
        )
    return data


def parse_answer(data: bytes, *, tasks: Sequence[str] | None = None) -> Answer:
    """Return the answer in `data`, at most 1 MiB, to whoever asked for `tasks` (empty: what an edge gives unasked).

    Raises LinkGarbled, naming the key that is wrong or the task that is missing; None: any tasks will do.
    """
    if not isinstance(data, bytes | bytearray):
        raise LinkGarbled(f"the link gave a {type(data).__name__}; expected the answer's bytes, as the edge sent them")
    if len(data) > MAX_BYTES:
        raise LinkGarbled(f"an answer of {len(data)} bytes, at most {MAX_BYTES} are read; is this an edge?")
    try:
        got = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise LinkGarbled(f"not an answer: {data[:40]!r} is no JSON in UTF-8; is this an edge?") from error
    body = _object(got, keys=("bundle", "level", "answers", "ms"), where="answer")
    answers = cast(
        "Answers", {task: _task(task, found) for task, found in _object(body["answers"], where="answers").items()}
    )
    ms = {stage: _number(value, where=f"ms.{stage}") for stage, value in _object(body["ms"], where="ms").items()}
    bundle, level = _text(body["bundle"], where="bundle"), _integer(body["level"], where="level")
    for name in (*answers, *ms):
        _text(name, where="name of a task or stage")
    for task in () if tasks is None else tasks or ("classify",):
        if task not in answers:
            raise LinkGarbled(
                f"an answer to {', '.join(answers)[:80] or 'nothing'}, but {task[:40]} was asked for as well; "
                "check the edge, and what stands between: it gave another question's answer, or a part of it"
            )
    return Answer(bundle=bundle, level=level, answers=answers, ms=ms)


def _task(task: str, found: object) -> list[Guess] | list[Box] | Mask:
    where = f"answers.{task}"
    if task == "detect":
        return [_box(box, where=where) for box in _list(found, where=where)]
    if task == "segment":
        return _mask(found, where=where)
    return [_guess(guess, where=where) for guess in _list(found, where=where)]


def _box(value: object, *, where: str) -> Box:
    one = _object(value, keys=("index", "label", "score", "box"), where=where)
    corners = [_share(side, where=f"{where}.box") for side in _list(one["box"], where=f"{where}.box")]
    if len(corners) != 4 or corners[0] > corners[2] or corners[1] > corners[3]:
        raise LinkGarbled(f"{where}.box: {corners}, expected x0, y0, x1 and y1, smaller ones first")
    return Box(
        index=_integer(one["index"], where=f"{where}.index"),
        label=_text(one["label"], where=where),
        score=_share(one["score"], where=f"{where}.score"),
        box=corners,
    )


def _mask(value: object, *, where: str) -> Mask:
    mask = _object(value, keys=("size", "png", "classes"), where=where)
    size = [_integer(side, where=f"{where}.size") for side in _list(mask["size"], where=f"{where}.size")]
    if len(size) != 2 or not all(1 <= side <= MAX_SIDE for side in size):
        raise LinkGarbled(f"{where}.size: {size}, expected rows and columns from 1 to {MAX_SIDE}")
    regions = []
    for item in _list(mask["classes"], where=f"{where}.classes"):
        one = _object(item, keys=("index", "label", "share"), where=f"{where}.classes")
        index, label = _integer(one["index"], where=f"{where}.index"), _text(one["label"], where=where)
        regions.append(Region(index=index, label=label, share=_share(one["share"], where=f"{where}.share")))
    return Mask(size=size, png=_text(mask["png"], where=f"{where}.png"), classes=regions)


def _share(value: object, *, where: str) -> float:
    number = _number(value, where=where)
    if not 0.0 <= number <= 1.0:
        raise LinkGarbled(f"{where}: {number}, expected 0 to 1")
    return number


def _guess(value: object, *, where: str) -> Guess:
    guess = _object(value, keys=("index", "label", "p"), where=where)
    p = _number(guess["p"], where=f"{where}.p")
    if not 0.0 <= p <= 1.0:
        raise LinkGarbled(f"{where}.p: {p}, expected a probability from 0 to 1")
    return Guess(index=_integer(guess["index"], where=f"{where}.index"), label=_text(guess["label"], where=where), p=p)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _object(value: object, *, where: str, keys: tuple[str, ...] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, where=where, expected="an object")
    if keys is not None and set(value) != set(keys):
        raise LinkGarbled(f"{where}: keys {sorted(value)[:8]}, expected {sorted(keys)}")
    return value


def _list(value: object, *, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(value, where=where, expected="a list")
    return value


def _text(value: object, *, where: str) -> str:
    if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _wrong(value, where=where, expected="text")  # halves of characters cannot be printed
    return value


def _integer(value: object, *, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, where=where, expected="an integer")
    return value


def _number(value: object, *, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, where=where, expected="a finite number")
    try:
        number = float(value)
    except OverflowError:  # an integer of 400 digits
        number = math.inf
    if not math.isfinite(number):
        raise _wrong(value, where=where, expected="a finite number")
    return number


def _wrong(value: object, *, where: str, expected: str) -> LinkGarbled:
    return LinkGarbled(f"{where[:80]}: {str(value)[:40]!r}, expected {expected}; is this an edge?")
