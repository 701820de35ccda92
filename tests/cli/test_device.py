"""How `encode` gives packets their names, while others do the same."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.cli.device import _store, _write_drawing
from splitcodec.errors import OutputError
from splitcodec.wire.answer import Answer


def no_links(source: object, target: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_encoders_into_one_folder_lose_no_packet(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    start = threading.Barrier(4)
    stored: dict[bytes, Path] = {}

    def encode(name: int) -> None:
        start.wait(10)
        for i in range(25):
            packet = b"%d-%d" % (name, i)
            stored[packet] = _store(tmp_path, "cat", packet)

    threads = [threading.Thread(target=encode, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {packet: path.read_bytes() for packet, path in stored.items()} == {packet: packet for packet in stored}
    names = {"cat.spc", *(f"cat-{number}.spc" for number in range(1, 100))}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_another_takes_at_the_last_moment_is_left_to_it(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.link if links else no_links

    def link(part: Path, path: Path) -> None:
        if path.name == "cat.spc":
            path.write_bytes(b"theirs")
        plain(part, path)

    monkeypatch.setattr(os, "link", link)
    assert _store(tmp_path, "cat", b"ours") == tmp_path / "cat-1.spc"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"cat.spc": b"theirs", "cat-1.spc": b"ours"}


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    """The part's name was longer still: `cat.jpg` of 255 letters could not be encoded."""
    stem = "a" * 251
    assert _store(tmp_path, stem, b"packet").name == f"{stem}.spc"
    assert [path.name for path in tmp_path.iterdir()] == [f"{stem}.spc"]


@pytest.mark.parametrize("name", ["out.psd", "out.nothing"])
def test_a_drawing_that_cannot_be_written_is_refused_in_words(name: str, tmp_path: Path) -> None:
    """Pillow reads PSD and does not write it: that was a KeyError."""
    picture = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(picture)
    with pytest.raises(OutputError, match=f"cannot draw to .*{name}: .*; give a name such as out.png"):
        _write_drawing(picture, Answer(bundle="b@1", level=0, answers={}, ms={}), tmp_path / name)
    assert list(tmp_path.iterdir()) == [picture]


def test_whether_a_file_can_be_read_is_found_by_reading_it(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typer asked before, and refused all pictures or packets, and --json its JSON, for one that nobody may read."""
    Image.new("RGB", (80, 80)).save(tmp_path / "cat.png")
    monkeypatch.setattr(os, "access", lambda path, *_, **__: not os.fsdecode(path).startswith("cat."))
    monkeypatch.chdir(tmp_path)  # the packet lands here
    for command in (["encode", "cat.png"], ["answer", "cat.spc"]):
        done = CliRunner().invoke(app, [*command, "-b", str(tiny_folder), "--json"])
        assert done.exit_code == 0, done.output
