from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitcodec.errors import LinkGarbled
from splitcodec.wire.answer import MAX_BYTES, Answer, Guess, dump_answer
from splitcodec.wire.brief import DICTIONARY, restore, shorten

DOCUMENT = (Path(__file__).parents[2] / "docs" / "fragment-format.md").read_text(encoding="utf-8")


@given(st.binary(max_size=3000))
def test_whatever_is_shortened_is_restored(data: bytes) -> None:
    assert restore(shorten(data)) == data


@given(st.binary(max_size=300))
def test_other_bytes_are_refused_by_name(data: bytes) -> None:
    try:
        answer = restore(data)
    except LinkGarbled:
        return
    assert len(answer) <= MAX_BYTES


def test_one_guess_takes_a_third_or_little_more() -> None:
    guess = Guess(index=285, label="Egyptian cat", p=0.402481)
    ms = {"decode": 0.283, "decoder": 10.501, "tail": 6.228}
    answer = dump_answer(Answer(bundle="efficientnet-lite0@5", level=4, answers={"classify": [guess]}, ms=ms))
    assert len(shorten(answer)) <= 0.35 * len(answer)


def test_bombs_and_pieces_are_refused() -> None:
    assert len(restore(shorten(bytes(MAX_BYTES)))) == MAX_BYTES
    with pytest.raises(LinkGarbled, match="more than"):
        restore(shorten(bytes(MAX_BYTES + 1)))
    whole = shorten(b"some answer or other")
    with pytest.raises(LinkGarbled, match="too early"):
        restore(whole[:-3])
    with pytest.raises(LinkGarbled, match="too late"):
        restore(whole + b"x")


def test_the_document_has_the_dictionary_and_an_example() -> None:
    block = re.search(r"## 7\.[\s\S]*?\n\n((?:    .*\n)+)", DOCUMENT)
    assert block is not None
    assert "".join(line[4:] for line in block[1].splitlines()).encode() == DICTIONARY
    example = dict(re.findall(r"^    (short|long)  +(\S.*)$", DOCUMENT, re.M))
    assert restore(bytes.fromhex(example["short"])).decode() == example["long"]
    opener = zlib.decompressobj(-15, DICTIONARY)
    assert opener.decompress(bytes.fromhex(example["short"])).decode() == example["long"]
