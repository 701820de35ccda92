"""`splitcodec ask --sure`: one or two packets a photograph."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from splitcodec import Device, Edge
from splitcodec.cli import app
from splitcodec.edge.server import BackgroundServer, create_app
from splitcodec.edge.settings import Settings


@pytest.fixture(scope="module")
def url(tiny_folder: Path) -> Iterator[str]:
    with BackgroundServer(create_app(Edge(tiny_folder), Settings())) as server:
        yield server.url


@pytest.fixture
def photo(pictures: list[Image.Image], tmp_path: Path) -> Path:
    pictures[0].save(tmp_path / "a.png")
    return tmp_path / "a.png"


def ask(*words: object) -> Result:
    return CliRunner().invoke(app, ["ask", *map(str, words)])


@pytest.mark.parametrize(("sure", "levels"), [(0, [0]), (1, [0, 2])])
def test_packets_are_told_and_counted(url: str, tiny_folder: Path, photo: Path, sure: float, levels: list[int]) -> None:
    done = ask(photo, "--url", url, "-b", tiny_folder, "--level", 2, "--sure", sure, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    device, edge = Device(tiny_folder), Edge(tiny_folder)
    packets = [device.encode(photo, level=level) for level in levels]
    answers = [edge.answer(packet)["answers"]["classify"] for packet in packets]
    assert told["packets"] == [
        {"level": level, "bytes": len(packet), "p": answer[0]["p"]}
        for level, packet, answer in zip(levels, packets, answers, strict=True)
    ]
    assert (told["level"], told["bytes"]) == (levels[-1], sum(map(len, packets)))
    assert told["answers"]["classify"] == answers[-1]
    assert list(told["ms"]) == ["preprocess", "encoder", "coding", "link", "decode", "decoder", "tail"]


def test_a_table_has_the_bytes_of_both(url: str, tiny_folder: Path, photo: Path) -> None:
    done = ask(photo, "--url", url, "-b", tiny_folder, "--level", 2, "--first-level", 1, "--sure", 1)
    assert done.exit_code == 0, done.stderr
    device = Device(tiny_folder)
    assert f" {sum(len(device.encode(photo, level=level)) for level in (1, 2))} " in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--first-level", "1"], "--first-level means nothing without --sure"),
        (["--sure", "0.5", "--max-bytes", "500"], "leave --max-bytes, --deadline-ms and --kbit-per-s out"),
        (["--sure", "0.5", "--kbit-per-s", "9", "--fps", "1"], "leave --max-bytes"),
        (["--sure", "0.5", "--level", "0"], "first level 0 before level 0"),
        (["--sure", "0.5", "--tasks", "detect"], "add classify to --tasks"),
    ],
)
def test_refusals(tiny_folder: Path, photo: Path, words: list[str], told: str) -> None:
    done = ask(photo, "--url", "http://127.0.0.1:9", "-b", tiny_folder, *words)
    assert isinstance(done.exception, Exception)
    assert told in str(done.exception)
