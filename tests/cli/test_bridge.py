"""`splitcodec bridge` as a process, with `ask` and `watch` against it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from PIL import Image
from pydantic import SecretStr
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.edge.answer import Edge
from splitcodec.edge.server import BackgroundServer, Settings, create_app
from splitcodec.errors import SplitcodecError
from tests.mosquitto import Mosquitto

COMMAND = [sys.executable, "-m", "splitcodec.cli"]
TOKEN = "sixteen bytes or more"
PLAIN = {key: value for key, value in os.environ.items() if key not in ("SPLITCODEC_TOKEN", "SPLITCODEC_SERVER_TOKEN")}


@contextmanager
def bridging(*words: str, stop: int = signal.SIGTERM, more: dict[str, str] | None = None) -> Iterator[str]:
    """Run a bridge and return what it says; it ends with 0."""
    command = [*COMMAND, "bridge", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=PLAIN | (more or {})) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline()
        finally:
            process.send_signal(stop)
        assert process.wait(20) == 0


def address(said: str) -> str:
    found = re.search(r"udp://127\.0\.0\.1:[0-9]+", said)
    assert found is not None, said
    return found[0]


@pytest.fixture
def bridge(tiny_folder: Path, tmp_path: Path) -> Iterator[str]:
    """Return the address of a bridge with a key."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with bridging("--udp", "0", "--bundle", str(tiny_folder), "--token-file", str(file)) as said:
        yield address(said)


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, timeout=120, check=False, env={**PLAIN, **more}
    )


def test_pictures_are_answered_over_udp(bridge: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "b"):
        Image.effect_noise((90, 70), 60).convert("RGB").save(folder / f"{name}.png")
    bundle = ["--bundle", str(tiny_folder), "--top", "1"]
    asked = run("ask", str(folder / "a.png"), "--url", bridge, *bundle, "--json", SPLITCODEC_TOKEN=TOKEN)
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert len(answer["answers"]["classify"]) == 1
    spool = ["--spool", str(tmp_path / "spool"), "--answers", str(tmp_path / "answers.jsonl"), "--once"]
    watched = run("watch", str(folder), "--url", bridge, *bundle, *spool, SPLITCODEC_TOKEN=TOKEN)
    assert watched.returncode == 0, watched.stderr
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert sorted(line["picture"] for line in lines) == ["a.png", "b.png"]
    assert lines[0]["answers"]["classify"]
    refused = run("ask", str(folder / "a.png"), "--url", bridge, *bundle, "--timeout", "0.3", "--retries", "0")
    assert refused.returncode == 2
    assert "need the same token" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_log_on_a_full_disk_does_not_end_it(tiny_folder: Path, tmp_path: Path) -> None:
    Image.effect_noise((90, 70), 60).convert("RGB").save(tmp_path / "a.png")
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [*COMMAND, "bridge", "--udp", port, "--bundle", str(tiny_folder)]
    with (
        open("/dev/full", "w") as full,
        subprocess.Popen(command, stderr=full, env=PLAIN) as process,
        ExitStack() as leaving,
    ):
        leaving.callback(process.kill)
        words = ("ask", str(tmp_path / "a.png"), "--url", f"udp://127.0.0.1:{port}", "--bundle", str(tiny_folder))
        asked = run(*words, "--timeout", "1", "--retries", "6")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert asked.returncode == 0, asked.stderr


def test_a_server_that_wants_a_token_gets_it_from_either_bridge(tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("paho.mqtt.client")
    wanted, picture, file = "the-servers-own-token", tmp_path / "a.png", tmp_path / "token"
    file.write_text(wanted)
    Image.effect_noise((90, 70), 60).convert("RGB").save(picture)
    asking = ["ask", str(picture), "--bundle", str(tiny_folder), "--json", "--retries", "0", "--url"]
    given = ["--server-token-file", str(file)]
    key = {"SPLITCODEC_TOKEN": TOKEN}
    broker = Mosquitto(tmp_path)
    with broker.running(), BackgroundServer(create_app(Edge(tiny_folder), Settings(tokens=SecretStr(wanted)))) as edge:
        with bridging("--udp", "0", "--url", edge.url, *given, more=key) as said:
            asked = run(*asking, address(said), **key)
            assert asked.returncode == 0, asked.stderr
        with bridging("--udp", "0", "--url", edge.url, more=key) as said:
            assert "401" in run(*asking, address(said), **key).stderr
        for words, more in ((given, None), ([], {"SPLITCODEC_SERVER_TOKEN": wanted})):
            with bridging("--mqtt", broker.url, "--url", edge.url, *words, stop=signal.SIGINT, more=more):
                asked = run(*asking, broker.url)
            assert asked.returncode == 0, asked.stderr


def test_a_hangup_opens_other_bundles_and_keeps_the_old_ones_where_those_are_spoilt(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "served"
    shutil.copytree(tiny_folder, folder)
    manifest = folder / "manifest.json"
    now = json.loads(manifest.read_text())
    Image.effect_noise((90, 70), 60).convert("RGB").save(tmp_path / "a.png")

    def ask(url: str) -> str:
        asked = run("ask", str(tmp_path / "a.png"), "--bundle", str(tiny_folder), "--json", "--url", url)
        assert asked.returncode == 0, asked.stderr
        return str(json.loads(asked.stdout)["bundle"])

    command = [*COMMAND, "bridge", "--udp", "0", "--bundle", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=PLAIN) as process, ExitStack() as leaving:
        leaving.callback(process.kill)
        assert process.stderr is not None
        url = address(process.stderr.readline())
        ident = ask(url)
        manifest.write_text("{")
        process.send_signal(signal.SIGHUP)
        assert "the old ones stay in use" in process.stderr.readline()
        assert ask(url) == ident
        manifest.write_text(json.dumps(now | {"version": now["version"] + 1}))
        process.send_signal(signal.SIGHUP)
        told = process.stderr.readline()
        assert ask(url) == f"{now['name']}@{now['version'] + 1}"
        assert told.strip().endswith(f"bundles opened again: {now['name']}@{now['version'] + 1}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_password_of_the_server_is_not_said() -> None:
    with bridging("--udp", "0", "--url", "http://me:s3cret@127.0.0.1:9") as said:
        assert said.endswith(" to http://127.0.0.1:9\n")


def test_more_at_once_than_a_process_has_threads_for_are_refused() -> None:
    """A traceback, of Python's threads or of paho's limits."""
    for carrier in (["--udp", "0"], ["--mqtt", "mqtt://127.0.0.1:9/site7"]):
        done = run("bridge", *carrier, "--concurrency", "100000")
        assert done.returncode == 2
        assert "'--concurrency'" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one of --mqtt URL and --udp"),
        (["--udp", "8080", "--mqtt", "mqtt://host/topic"], "give one of --mqtt URL and --udp"),
        (["--udp", "8080", "--client-id", "x"], "are for --mqtt"),
        (["--udp", "host:port"], "expected a port such as 8080"),
        (["--udp", "99999"], "expected a port such as 8080"),
        (["--udp", "1" * 5000], "expected a port such as 8080"),
        (["--udp", "nowhere.invalid:1"], "cannot listen on UDP port 1"),
        (["--udp", "8080", "--url", "http://h", "--bundle", "b"], "give one of the two"),
        (["--mqtt", "mqtt://host/topic", "--token-file", "x"], "the server at --url takes --server-token-file"),
        (["--udp", "8080", "--server-token-file", "x"], "is for the server at --url"),
        (["--udp", "8080", "--url", "http://h", "--server-token-file", "/nowhere"], "token file /nowhere"),
    ],
)
def test_wrong_options_are_named(words: list[str], message: str, tiny_folder: Path) -> None:
    given = words if "--url" in words else [*words, "--bundle", str(tiny_folder)]
    with pytest.raises(SplitcodecError, match=re.escape(message)):
        CliRunner().invoke(app, ["bridge", *given], catch_exceptions=False, standalone_mode=False)
