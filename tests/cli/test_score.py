"""`--score` of `ask`, `watch` and `answer`, with a bundle that ships."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitcodec.cli import main
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.edge.server import BackgroundServer, Settings, create_app

CAMERA = next(one for one in PHOTOGRAPHS if one.name == "camera")


@pytest.fixture(scope="module")
def edge() -> Edge:
    return Edge(threads=1)


@pytest.fixture(scope="module")
def url(edge: Edge) -> Iterator[str]:
    with BackgroundServer(create_app(edge, Settings())) as background:
        yield background.url


class Run:
    """A command in this process; `run(...)` gives its exit code and stdout, stderr is in `err`."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capture = capture
        self.err = ""

    def __call__(self, *arguments: object) -> tuple[int, str]:
        self._patch.setattr(sys, "argv", ["splitcodec", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, self.err = self._capture.readouterr()
        return int(left.value.code or 0), out


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "camera.jpg"
    path.write_bytes(CAMERA.read())
    return path


def scores(answer: Any) -> list[float]:
    return [box["score"] for box in answer["answers"]["detect"]]


def test_ask_prints_and_draws_as_ever(run: Run, url: str, photo: Path, tmp_path: Path) -> None:
    asking = ("ask", photo, "--url", url, "--tasks", "detect")
    whole, some = (json.loads(run(*asking, "--json", *words)[1]) for words in ((), ("--score", 0.3)))
    assert scores(some) == [score for score in scores(whole) if score >= 0.3]
    assert 0 < sum(score < 0.5 for score in scores(some)) < len(scores(whole)) == 100
    table = run(*asking, "--draw", tmp_path / "all.png")
    assert run(*asking, "--draw", tmp_path / "some.png", "--score", 0.3)[0] == table[0] == 0
    assert (tmp_path / "all.png").read_bytes() == (tmp_path / "some.png").read_bytes()


def test_answer(run: Run, edge: Edge, tmp_path: Path) -> None:
    packet = tmp_path / "a.spc"
    packet.write_bytes(Device(edge.bundles[0]).encode(CAMERA.read(), fit="letterbox"))
    counts = [
        len(scores(json.loads(run("answer", packet, "--tasks", "detect", "--json", *words)[1])))
        for words in ((), ("--score", 0), ("--score", 0.5), ("--score", 1))
    ]
    assert counts[0] == counts[1] == 100 > counts[2] > counts[3] == 0


def test_watch_sends_each_packet_with_the_score_that_it_was_made_for(
    run: Run, url: str, photo: Path, tmp_path: Path
) -> None:
    folder, answers = tmp_path / "in", tmp_path / "answers.jsonl"
    folder.mkdir()
    options = ("--tasks", "detect", "--settle", 0, "--once", "--answers", answers)
    photo.rename(folder / "a.jpg")
    assert run("watch", folder, "--url", "http://127.0.0.1:9", *options, "--score", 0.3)[0] == 2
    (folder / "b.jpg").write_bytes(CAMERA.read())
    assert run("watch", folder, "--url", url, *options, "--score", 0.5)[0] == 0, run.err
    lines = {line["picture"]: scores(line) for line in map(json.loads, answers.read_text().splitlines())}
    assert 0.3 <= min(lines["a.jpg"]) < 0.5 <= min(lines["b.jpg"])


@pytest.mark.parametrize("score", ["-0.1", "1.1", "nan", "many"])
@pytest.mark.parametrize("command", ["ask", "watch", "answer"])
def test_a_score_that_is_none_is_refused_as_a_wrong_top_is(run: Run, photo: Path, command: str, score: str) -> None:
    inputs = [photo.parent] if command == "watch" else [photo, photo]
    edge = [] if command == "answer" else ["--url", "http://127.0.0.1:9"]
    code, out = run(command, *inputs, *edge, "--tasks", "detect", "--score", score)
    assert (code, out) == (2, "")
    assert run.err.count("'--score'") == 1
    assert "Traceback" not in run.err
    assert not (photo.parent / ".splitcodec").exists()
