"""A small packet first, a larger one where the answer is unsure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from splitcodec import Device
from splitcodec.device.escalation import Escalation
from splitcodec.errors import LinkDown, LinkGarbled, SettingsError
from splitcodec.wire.answer import Answer, dump_answer, parse_answer
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.packet import unpack


@pytest.fixture(scope="module")
def device(tiny: Bundle) -> Device:
    return Device(tiny, threads=1)


def answering(*certainties: float, seen: list[bytes]) -> Callable[[bytes], bytes]:
    """Return a link whose answers have best guesses of those probabilities, one after another."""

    def link(packet: bytes) -> bytes:
        guesses: Any = [{"index": len(seen), "label": str(len(seen)), "p": certainties[len(seen)]}]
        seen.append(packet)
        return dump_answer(Answer(bundle="tiny@1", level=unpack(packet).level, answers={"classify": guesses}, ms={}))

    return link


@pytest.mark.parametrize(
    ("certainty", "levels"),
    [(0.5, [1]), (0.51, [1]), (0.49, [1, 2])],
    ids=["as sure as asked", "surer", "less sure"],
)
def test_the_larger_packet_is_sent_where_the_answer_is_unsure(
    device: Device, pictures: list[Image.Image], certainty: float, levels: list[int]
) -> None:
    seen: list[bytes] = []
    asked = Escalation(device, sure=0.5, level=2, first=1).ask(pictures[0], link=answering(certainty, 0.1, seen=seen))
    assert seen == [device.encode(pictures[0], level=level) for level in levels]  # ordinary packets
    assert [one.packet for one in asked.sent] == seen
    assert asked.bytes == sum(map(len, seen))
    assert asked.answer["level"] == levels[-1]
    assert [answer["answers"]["classify"][0]["index"] for answer in asked.answers] == list(range(len(levels)))


def test_the_encoder_runs_once(device: Device, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[object] = []
    latent = type(device.encoder).latent_chw
    monkeypatch.setattr(
        type(device.encoder), "latent_chw", lambda encoder, image: (runs.append(encoder), latent(encoder, image))[1]
    )
    asked = Escalation(device, sure=1, level=2, first=0).ask(pictures[0], link=answering(0.9, 0.9, seen=[]))
    assert len(runs) == 1
    first, second = asked.sent
    assert set(first.ms) == {"preprocess", "encoder", "coding"}
    assert set(second.ms) == {"coding"}


def test_boxes_come_in_pixels_of_the_picture(device: Device, pictures: list[Image.Image]) -> None:
    answers: Any = {
        "classify": [{"index": 0, "label": "a", "p": 0.2}],
        "detect": [{"index": 1, "label": "b", "score": 0.9, "box": [0.1, 0.2, 0.5, 0.6]}],
    }
    picture = pictures[0].resize((200, 120))
    link = lambda packet: dump_answer(Answer(bundle="tiny@1", level=0, answers=answers, ms={}))  # noqa: E731
    asked = Escalation(device, sure=1, level=2, first=0).ask(picture, link=link, fit="letterbox")
    alone = device.ask(picture, link=link, fit="letterbox")
    assert [answer["answers"] for answer in asked.answers] == [alone["answers"]] * 2
    assert alone["answers"]["detect"][0]["box"][2] > 1


@pytest.mark.parametrize(("level", "first"), [(2, 0), (1, 0)])
def test_the_first_level_is_a_third(device: Device, level: int, first: int) -> None:
    assert Escalation(device, sure=0.5, level=level).levels == (first, level)
    assert Escalation(device, sure=0.5).levels[1] == device.bundle.manifest.default_level


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sure": 1.01}, "sure 1.01; expected the probability"),
        ({"sure": float("nan")}, "sure nan"),
        ({"sure": "0.5"}, "sure '0.5'"),
        ({"sure": True}, "sure True"),
        ({"sure": 0.5, "level": 3}, "levels 0 to 2"),
        ({"sure": 0.5, "level": 0}, "first level 0 before level 0"),
        ({"sure": 0.5, "level": 1, "first": 1}, "first level 1 before level 1; expected a lower one"),
        ({"sure": 0.5, "first": -1}, "first level -1"),
        ({"sure": 0.5, "first": 0.5}, "first level 0.5"),
    ],
)
def test_refusals(device: Device, given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words.replace(".", r"\.")):
        Escalation(device, **given)


def test_an_answer_that_cannot_be_unsure(device: Device, pictures: list[Image.Image]) -> None:
    box: Any = [{"index": 1, "label": "b", "score": 0.9, "box": [0.0, 0.0, 1.0, 1.0]}]
    detected = dump_answer(Answer(bundle="tiny@1", level=0, answers={"detect": box}, ms={}))
    assert parse_answer(detected)
    with pytest.raises(SettingsError, match="an answer to detect; classify alone says how sure it is"):
        Escalation(device, sure=0.5, level=2).ask(pictures[0], link=lambda _: detected)


def test_a_link_that_fails_is_told(device: Device, pictures: list[Image.Image]) -> None:
    asking = Escalation(device, sure=1, level=2)

    def half(packet: bytes) -> bytes:
        if unpack(packet).level == 2:
            raise LinkDown("away")
        return answering(0.5, seen=[])(packet)

    with pytest.raises(LinkDown, match="away"):
        asking.ask(pictures[0], link=half)
    with pytest.raises(LinkGarbled):
        asking.ask(pictures[0], link=lambda _: b"{}")
