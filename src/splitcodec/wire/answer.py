"""What comes back over the link: the answer's JSON, written by the edge and read by the device.

The words are those of `POST /v1/answer`. A device does not trust an edge either: what does not look exactly like an
answer is refused by name instead of surfacing as a KeyError in somebody's loop.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, TypedDict

from splitcodec.errors import LinkGarbled

MAX_BYTES = 1 << 20


class Guess(TypedDict):
    """One class and its probability."""

    index: int
    label: str
    p: float


class Answer(TypedDict):
    """An edge's answer. `bundle` is name@version, `level` is -1 for an uncompressed picture, `ms` is per stage."""

    bundle: str
    level: int
    answers: dict[str, list[Guess]]
    ms: dict[str, float]


def dump_answer(answer: Answer) -> bytes:
    """Return the answer as one line of JSON in UTF-8."""
    return json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def parse_answer(data: bytes) -> Answer:
    """Return the answer in `data`, at most 1 MiB. Raises LinkGarbled, naming the key that is wrong."""
    if len(data) > MAX_BYTES:
        raise LinkGarbled(f"an answer of {len(data)} bytes, at most {MAX_BYTES} are read; is this an edge?")
    try:
        got = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise LinkGarbled(f"not an answer: {data[:40]!r} is no JSON in UTF-8; is this an edge?") from error
    body = _object(got, keys=("bundle", "level", "answers", "ms"), where="answer")
    answers = {
        task: [_guess(guess, where=f"answers.{task}") for guess in _list(guesses, where=f"answers.{task}")]
        for task, guesses in _object(body["answers"], where="answers").items()
    }
    ms = {stage: _number(value, where=f"ms.{stage}") for stage, value in _object(body["ms"], where="ms").items()}
    bundle, level = _text(body["bundle"], where="bundle"), _integer(body["level"], where="level")
    for name in (*answers, *ms):
        _text(name, where="name of a task or stage")
    return Answer(bundle=bundle, level=level, answers=answers, ms=ms)


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
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong(value, where=where, expected="a finite number")
    return float(value)


def _wrong(value: object, *, where: str, expected: str) -> LinkGarbled:
    return LinkGarbled(f"{where[:80]}: {str(value)[:40]!r}, expected {expected}; is this an edge?")
