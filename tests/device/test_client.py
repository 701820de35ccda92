from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from splitcodec import Device
from splitcodec.device.link import HttpLink, http
from splitcodec.device.meter import LinkMeter
from splitcodec.errors import (
    BundleNotFound,
    LinkGarbled,
    PacketGrid,
    PictureNotFound,
    PictureTooLarge,
    SettingsError,
    TablesError,
)
from splitcodec.wire.answer import Answer, dump_answer
from splitcodec.wire.bundle import Bundle, derive, split_device, write_zip
from splitcodec.wire.coder import Coder
from splitcodec.wire.packet import OVERHEAD, unpack


@pytest.fixture(scope="module")
def device(tiny: Bundle) -> Device:
    return Device(tiny, threads=1)


def test_a_packet_carries_the_symbols(device: Device, tiny: Bundle, pictures: list[Image.Image]) -> None:
    for picture in pictures:
        for level in range(tiny.manifest.levels):
            packet = device.encode(picture, level=level)
            fields = unpack(packet)
            assert (fields.level, fields.rows, fields.cols) == (level, 4, 4)
            assert fields.fingerprint == tiny.fingerprint[:4]
            symbols = Coder(tiny.tables[0]).decode(fields.payload, (4, 4, 4), level=level)
            assert np.array_equal(symbols, device.symbols(picture, level=level))


def test_a_packet_costs_little_more_than_its_ideal(device: Device, tiny: Bundle, pictures: list[Image.Image]) -> None:
    for picture in pictures:
        ideal = tiny.tables[0].bits(device.symbols(picture, level=2), 2) / 8
        assert ideal <= len(device.encode(picture, level=2)) <= ideal + OVERHEAD + 9  # two words, one rounding


def test_both_coders_give_the_same_packet(tiny: Bundle, pictures: list[Image.Image]) -> None:
    plain, best = Device(tiny, threads=1, plain_coder=True), Device(tiny, threads=1)
    assert [plain.encode(picture) for picture in pictures] == [best.encode(picture) for picture in pictures]


def test_folder_zip_and_device_half_give_the_same_packet(
    tiny: Bundle, tiny_folder: Path, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    write_zip(tiny, tmp_path / "tiny.zip")
    split_device(tiny, tmp_path / "half")
    sources: list[Any] = [tiny_folder, str(tiny_folder), tmp_path / "tiny.zip", tmp_path / "half"]
    assert len({Device(source, threads=1).encode(pictures[-1]) for source in sources}) == 1


def test_a_path_and_its_bytes_give_the_same_packet(device: Device, tmp_path: Path, pictures: list[Image.Image]) -> None:
    out = io.BytesIO()
    pictures[0].save(out, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(out.getvalue())
    assert (
        device.encode(path) == device.encode(str(path)) == device.encode(out.getvalue()) == device.encode(pictures[0])
    )


def test_default_level_is_the_bundles(device: Device, pictures: list[Image.Image]) -> None:
    assert unpack(device.encode(pictures[0])).level == 1


def test_numpy_integers_are_levels(device: Device, pictures: list[Image.Image]) -> None:
    assert device.encode(pictures[0], level=np.int64(2)) == device.encode(pictures[0], level=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [-1, 3, 16, True, "1", 1.0])
def test_a_wrong_level_names_the_range(device: Device, pictures: list[Image.Image], level: Any) -> None:
    for call in (device.encode, device.symbols):
        with pytest.raises(SettingsError, match="tiny@1 has levels 0 to 2"):
            call(pictures[0], level=level)


def test_stages_are_timed(device: Device, pictures: list[Image.Image]) -> None:
    encoded = device.encode_timed(pictures[0], level=2)
    assert encoded.packet == device.encode(pictures[0], level=2)
    assert encoded.level == 2
    assert list(encoded.ms) == ["preprocess", "encoder", "coding"]
    assert all(ms >= 0 for ms in encoded.ms.values())


def test_symbols_are_packed_within_bounds(device: Device) -> None:
    with pytest.raises(TablesError):
        device.pack(np.full((4, 4, 4), 10_000), level=0)
    with pytest.raises(TablesError):
        device.pack(np.zeros((4, 4), np.int32), level=0)
    with pytest.raises(PacketGrid):
        device.pack(np.zeros((4, 1, 300), np.int32), level=0)


def test_what_no_edge_would_take_is_not_made(tiny: Bundle) -> None:
    """A whole picture of more symbols than the bundle allows went over the link, to be refused there."""
    small = Device(derive(tiny, replace(tiny.manifest, max_symbols=100), files={}), threads=1)
    assert len(small.encode(Image.new("RGB", (64, 64)), level=1)) > 12
    with pytest.raises(PictureTooLarge, match=r"side of 96 pixels it is 144 symbols, tiny@1 takes 100"):
        small.encode(Image.new("RGB", (96, 96)), fit="letterbox", side=96, level=1)
    with pytest.raises(PacketGrid, match="at most 100 are allowed"):
        small.pack(np.zeros((4, 6, 6), np.int32), level=1)


def test_asking_sends_the_packet_and_reads_the_answer(device: Device, pictures: list[Image.Image]) -> None:
    sent: list[bytes] = []
    answer = Answer(bundle="tiny@1", level=2, answers={"classify": [{"index": 1, "label": "c1", "p": 0.5}]}, ms={})

    def link(packet: bytes) -> bytes:
        sent.append(packet)
        return dump_answer(answer)

    assert device.ask(pictures[0], link=link, level=2) == answer
    assert sent == [device.encode(pictures[0], level=2)]


def test_an_answer_without_what_the_link_asked_for_is_refused(
    device: Device, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answer(bundle="tiny@1", level=2, answers={"classify": [{"index": 1, "label": "c1", "p": 0.5}]}, ms={})
    monkeypatch.setattr(HttpLink, "_post", lambda *_: (200, httpx.Headers(), dump_answer(answer)))
    with http("http://127.0.0.1:9") as link:
        assert device.ask(pictures[0], link=link) == answer
    with (
        http("http://127.0.0.1:9", tasks=["classify", "detect"]) as link,
        pytest.raises(LinkGarbled, match="an answer to classify, but detect was asked for"),
    ):
        device.ask(pictures[0], link=LinkMeter(link))


@pytest.mark.parametrize("garbage", [b"", b"<html>", b"{}", b"\xff"])
def test_a_garbage_answer_is_link_garbled(device: Device, pictures: list[Image.Image], garbage: bytes) -> None:
    with pytest.raises(LinkGarbled):
        device.ask(pictures[0], link=lambda _: garbage)


def test_what_is_missing_is_named(device: Device, tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="no-such-bundle"):
        Device("no-such-bundle")
    with pytest.raises(PictureNotFound, match=r"absent\.png"):
        device.encode(tmp_path / "absent.png")
