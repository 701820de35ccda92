"""What callers give where numbers, lists of tasks, packets or answers are wanted, at each door of the library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from splitcodec import Device, Edge
from splitcodec.device.budget import Deadline
from splitcodec.device.link import http
from splitcodec.errors import (
    BundleNotFound,
    LinkGarbled,
    PacketError,
    SettingsError,
    SplitcodecError,
    TablesError,
    TaskError,
)
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.given import names, whole, within

PICTURE = Image.new("RGB", (80, 80), "teal")


@pytest.fixture(scope="module")
def device(tiny_folder: Path) -> Device:
    return Device(tiny_folder)


@pytest.fixture(scope="module")
def edge(tiny_folder: Path) -> Edge:
    return Edge(tiny_folder)


@pytest.mark.parametrize("value", [np.zeros(20), np.zeros((90, 9, 3), np.uint8), None, "text" * 9, [1] * 20, 5, Path()])
def test_what_is_no_packet_is_refused_by_name(value: Any, edge: Edge) -> None:
    """An array was an OverflowError, or an answer whose level no JSON takes; the others were TypeErrors."""
    for ask in (edge.answer, edge.respond, edge.read):
        with pytest.raises(PacketError, match=f"a {type(value).__name__} is no packet; pass the bytes"):
            ask(value)


def test_a_packet_may_be_any_bytes(device: Device, edge: Edge) -> None:
    packet = device.encode(PICTURE)
    gaps = memoryview(bytes(two for one in packet for two in (one, 0)))[::2]
    for one in (bytearray(packet), memoryview(packet), gaps):
        assert edge.answer(one)["answers"] == edge.answer(packet)["answers"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"tasks": 5}, TaskError, "tasks 5; expected a list"),
        ({"tasks": [5]}, TaskError, r"tasks \[5\]; expected a list"),
        ({"tasks": b"classify"}, TaskError, "expected a list"),
        ({"top": "3"}, SettingsError, "top '3'; expected"),
        ({"top": True}, SettingsError, "top True; expected"),
        ({"top": 2.0}, SettingsError, "top 2.0; expected"),
        ({"score": "x"}, SettingsError, "score 'x'; expected"),
    ],
)
def test_what_an_edge_is_asked_for(
    options: dict[str, Any], kind: type[SplitcodecError], said: str, device: Device, edge: Edge
) -> None:
    with pytest.raises(kind, match=said):
        edge.answer(device.encode(PICTURE), **options)
    if "score" not in options:
        with pytest.raises(SettingsError, match=said.split(";")[0] if kind is SettingsError else "tasks"):
            http("http://127.0.0.1:9", **options)


def test_a_text_is_no_list_of_tasks() -> None:
    """It was asked for letter by letter."""
    with pytest.raises(SettingsError, match="tasks 'classify'; expected a list of names"):
        http("http://127.0.0.1:9", tasks="classify")


@pytest.mark.parametrize("threads", ["2", 2.5, True])
def test_numbers_of_threads(threads: Any, tiny: Bundle) -> None:
    for shore in (Device, Edge):
        with pytest.raises(SettingsError, match=f"{threads!r} threads"):
            shore(tiny, threads=threads)


@pytest.mark.parametrize("source", [5, None, b"efficientnet-lite0", ["efficientnet-lite0"]])
def test_what_is_no_bundle(source: Any) -> None:
    for shore in (Device, Edge):
        with pytest.raises(BundleNotFound, match="no such folder or zip"):
            shore(source)


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda d: d.encode(PICTURE, fit="letterbox", side="64"), SettingsError, "side '64'; tiny@1 takes 16"),
        (lambda d: d.encode(PICTURE, fit="letterbox", side=64.0), SettingsError, "side 64.0; tiny@1 takes 16"),
        (lambda d: d.encode(PICTURE, deadline=300), SettingsError, r"deadline 300; expected Deadline\(ms"),
        (lambda d: d.ask(PICTURE, link="http://x"), SettingsError, r"link 'http://x'; expected a function"),
        (lambda d: d.ask(PICTURE, link=lambda _: None), LinkGarbled, "the link gave a NoneType"),
        (lambda d: d.ask(PICTURE, link=lambda _: "{}"), LinkGarbled, "the link gave a str"),
        (lambda d: d.pack(d.symbols(PICTURE).tolist(), level=0), TablesError, "a list, expected an array"),
        (lambda d: d.pack_latent(None, level=0), TablesError, "a NoneType, expected an array"),
        (lambda _: Edge(max_symbols=2.5), SettingsError, "max_symbols 2.5"),  # type: ignore[arg-type]
    ],
)
def test_what_a_device_is_given(
    call: Callable[[Device], object], kind: type[SplitcodecError], said: str, device: Device
) -> None:
    with pytest.raises(kind, match=said):
        call(device)


def test_a_deadline_of_more_bytes_than_numbers_have(device: Device) -> None:
    """Their product was no number, and that an OverflowError."""
    most = device.bundle.manifest.levels - 1
    far = Deadline(1e300, kbit_per_s=1e300)
    assert device.encode(PICTURE, deadline=far) == device.encode(PICTURE, level=most)


def test_numbers_and_names() -> None:
    assert [whole(one) for one in (3, np.int64(3), np.uint8(3))] == [3, 3, 3]
    assert [whole(one) for one in (True, np.True_, 3.0, "3", None)] == [None] * 5
    assert within(np.float32(0.5), 0, 1)
    assert not any(within(one, 0, 1) for one in (float("nan"), "x", None, np.zeros(3)))
    assert names(["b", "a", "b"]) == ("b", "a")
    assert names("classify") is names(5) is names([5]) is None
