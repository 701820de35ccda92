from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitcodec.errors import FrameError, SettingsError
from splitcodec.wire.fragment import (
    SMALLEST_FRAME,
    Channel,
    Complete,
    Fragment,
    Frame,
    Report,
    dump_frame,
    message_crc,
    parse_frame,
    split,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "fragment-format.md").read_text(encoding="utf-8")

channels = st.sampled_from(Channel)
idents = st.integers(0, 0xFFFF)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    channel, ident, last = draw(channels), draw(idents), draw(st.integers(0, 255))
    kind = draw(st.integers(0, 2))
    if kind == 0:
        data = draw(st.binary(min_size=1, max_size=230))
        return Fragment(channel, ident, draw(st.integers(0, last)), last, data, draw(st.booleans()))
    if kind == 1:
        came = draw(st.frozensets(st.integers(0, last), max_size=last))
        return Report(channel, ident, last, came)
    return Complete(channel, ident, draw(st.integers(0, 0xFFFFFFFF)))


@given(frames())
def test_what_is_dumped_is_parsed(frame: Frame) -> None:
    assert parse_frame(dump_frame(frame)) == frame


@given(st.binary(max_size=60))
def test_anything_else_is_a_frame_error_or_canonical(data: bytes) -> None:
    try:
        frame = parse_frame(data)
    except FrameError:
        return
    assert dump_frame(frame) == data


@given(frames(), st.data())
def test_up_to_two_flipped_bits_are_always_noticed(frame: Frame, data: st.DataObject) -> None:
    whole = bytearray(dump_frame(frame))
    bits = data.draw(st.sets(st.integers(0, 8 * len(whole) - 1), min_size=1, max_size=2))
    for bit in bits:
        whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameError):
        parse_frame(bytes(whole))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("8034120000aa", "version 2"),
        ("7034120000aa", "reserved"),
        ("4c34120000aa", "reserved"),
        ("4134120000aa", "reserved"),
        ("4634120000", "reserved"),
        ("4034120201aa", "fragment 2 of 0 to 1"),
        ("4034120101", "0 bytes"),
        ("44341209000000", "report of 3 bytes"),
        ("443412020700", "report of 2 bytes"),
        ("4434120207", "some of them missing"),
        ("4434120208", "some of them missing"),
        ("48341200000000ff", "complete of 10"),
    ],
)
def test_refusals_by_name(body: str, words: str) -> None:
    from binascii import crc_hqx

    checked = bytes.fromhex(body)
    with pytest.raises(FrameError, match=words):
        parse_frame(checked + crc_hqx(checked, 0xFFFF).to_bytes(2, "little"))


@pytest.mark.parametrize("frame", [SMALLEST_FRAME, 51, 115, 222])
def test_no_frame_is_larger_than_asked_for(frame: int) -> None:
    most = min(256, 8 * (frame - 6)) * (frame - 7) - 4
    pieces = split(bytes(most), frame=frame)
    last = len(pieces) - 1
    assert max(len(dump_frame(Fragment(Channel.REQUEST, 1, i, last, p))) for i, p in enumerate(pieces)) == frame
    assert len(dump_frame(Report(Channel.REQUEST, 1, last, frozenset()))) <= frame
    with pytest.raises(SettingsError, match=f"at most {most}"):
        split(bytes(most + 1), frame=frame)


def test_frames_too_small_are_refused() -> None:
    with pytest.raises(SettingsError, match="at least 11"):
        split(b"x", frame=10)


def test_the_documents_example() -> None:
    printed = dict(re.findall(r"^ {4}(\w+) +([0-9a-f ]+)$", DOCUMENT, re.M))
    message = bytes.fromhex(printed["message"])
    pieces = split(message, frame=int(printed["frame"].replace(" ", "")))
    made = [
        dump_frame(Fragment(Channel.REQUEST, 0x1234, i, len(pieces) - 1, piece, report=i == len(pieces) - 1))
        for i, piece in enumerate(pieces)
    ]
    made.append(dump_frame(Report(Channel.REQUEST, 0x1234, len(pieces) - 1, frozenset({0, 2}))))
    crc = message_crc(message)
    made.append(dump_frame(Complete(Channel.REQUEST, 0x1234, crc)))
    answer = bytes.fromhex(printed["answer"])
    (whole,) = split(answer, frame=51, request_crc=crc)
    made.append(dump_frame(Fragment(Channel.ANSWER, 0x1234, 0, 0, whole, report=True)))
    names = ["fragment0", "fragment1", "fragment2", "report", "complete", "answered"]
    assert {name: one.hex() for name, one in zip(names, made, strict=True)} == {
        name: printed[name].replace(" ", "") for name in names
    }
