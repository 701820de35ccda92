"""How `encode` gives packets their names, while others do the same."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import httpx
import pytest
from PIL import Image
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.cli.drawn import check_draw
from splitcodec.cli.packets import store
from splitcodec.edge.answer import Edge
from splitcodec.edge.server import BackgroundServer, create_app
from splitcodec.edge.settings import Settings
from splitcodec.errors import SplitcodecError, TaskError


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
            stored[packet] = store(tmp_path, "cat", packet)

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
    assert store(tmp_path, "cat", b"ours") == tmp_path / "cat-1.spc"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"cat.spc": b"theirs", "cat-1.spc": b"ours"}


def test_a_name_as_long_as_a_name_can_be(tmp_path: Path) -> None:
    """The part's name was longer still: `cat.jpg` of 255 letters could not be encoded."""
    stem = "a" * 251
    assert store(tmp_path, stem, b"packet").name == f"{stem}.spc"
    assert [path.name for path in tmp_path.iterdir()] == [f"{stem}.spc"]


@pytest.mark.parametrize("name", ["out.psd", "out.nothing", "out", "out.xbm", "none/out.png", "folder.png", "a.png"])
def test_a_drawing_that_cannot_be_written_is_refused_before_anything_is_sent(name: str, tmp_path: Path) -> None:
    """It was told after the answer, and the photograph itself was drawn over."""
    picture = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(picture)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(SplitcodecError, match=rf"{name}.*; give a name such as out.png"):
        check_draw(tmp_path / name, [picture])
    with pytest.raises(SplitcodecError, match=rf"{name}"):
        CliRunner().invoke(
            app,
            ["ask", str(picture), "--url", "http://127.0.0.1:9", "--draw", str(tmp_path / name)],
            catch_exceptions=False,
        )
    check_draw(tmp_path / "out.JPG", [picture])
    check_draw(None, [picture, picture])
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "folder.png"}


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("encode", ["--level", "99"], "level 99; tiny@1 has levels 0 to 2"),
        ("ask", ["--level", "99"], "level 99; tiny@1 has levels 0 to 2"),
        ("encode", ["--fit", "letterbox", "--side", "5"], "side 5; tiny@1 takes 16 to"),
        ("ask", ["--fit", "letterbox", "--side", "5"], "side 5; tiny@1 takes 16 to"),
        ("encode", ["-o", "0.png/packets"], "cannot write a packet to 0.png/packets"),
    ],
)
def test_what_is_wrong_for_every_picture_is_said_once_and_none_is_read(
    command: str, options: list[str], said: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`encode --level 99` on a folder said so once a picture."""
    if command == "ask":
        options = ["--url", "http://127.0.0.1:9", *options]
    monkeypatch.chdir(tmp_path)
    for name in range(3):
        Image.new("RGB", (80, 80)).save(f"{name}.png")
    monkeypatch.setattr("splitcodec.device.view.load_reduced", lambda *_, **__: pytest.fail("a picture was read"))
    with pytest.raises(SplitcodecError, match=said):
        CliRunner().invoke(
            app, [command, "0.png", "1.png", "2.png", "-b", str(tiny_folder), *options], catch_exceptions=False
        )


def test_the_folder_of_packets_is_made_with_the_first(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (80, 80)).save(tmp_path / "a.png")
    words = ["encode", "-b", str(tiny_folder), "-o", str(tmp_path / "new" / "packets")]
    assert CliRunner().invoke(app, [*words, str(tmp_path / "broken.png")]).exit_code == 2
    assert not (tmp_path / "new").exists()
    assert CliRunner().invoke(app, [*words, str(tmp_path / "a.png")]).exit_code == 0
    assert [path.name for path in (tmp_path / "new" / "packets").iterdir()] == ["a.spc"]


@pytest.mark.parametrize("json_", [True, False])
def test_what_the_edge_would_refuse_for_every_picture_is_asked_once(
    json_: bool, tiny_folder: Path, tmp_path: Path
) -> None:
    for name in range(3):
        Image.new("RGB", (80, 80), (90 * name, 0, 0)).save(tmp_path / f"{name}.png")
    app_ = create_app(Edge(tiny_folder), Settings())
    with BackgroundServer(app_) as server:
        command = ["ask", *(str(tmp_path / f"{name}.png") for name in range(3)), "--url", server.url]
        command += ["-b", str(tiny_folder), "--tasks", "juggle", "--fit", "crop", *(["--json"] if json_ else [])]
        done = CliRunner().invoke(app, command)
        metrics = httpx.get(f"{server.url}/metrics").text
    assert done.exit_code == 2
    assert done.stderr.count("juggle") == 1
    assert "the same would be said of the other 2, which were not tried" in done.stderr
    assert 'splitcodec_refusals_total{reason="TaskError"} 1.0' in metrics
    if json_:
        told = json.loads(done.stdout)
        assert [one["image"] for one in told] == [str(tmp_path / f"{name}.png") for name in range(3)]
        assert {one["error"]["type"] for one in told} == {"LinkRefused"}


def test_answer_refuses_a_task_once(tiny_folder: Path) -> None:
    command = ["answer", "a.spc", "b.spc", "-b", str(tiny_folder), "--tasks", "juggle"]
    with pytest.raises(TaskError, match="juggle"):
        CliRunner().invoke(app, command, catch_exceptions=False)


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
