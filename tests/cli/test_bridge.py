"""`splitcodec bridge --udp` as a process, with `ask` and `watch` against it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.errors import SplitcodecError

COMMAND = [sys.executable, "-m", "splitcodec.cli"]
TOKEN = "sixteen bytes or more"
PLAIN = {key: value for key, value in os.environ.items() if key != "SPLITCODEC_TOKEN"}


@pytest.fixture
def bridge(tiny_folder: Path, tmp_path: Path) -> Iterator[str]:
    """Return the address of a bridge with a key."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    words = ["bridge", "--udp", "0", "--bundle", str(tiny_folder), "--token-file", str(file)]
    with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True, env=PLAIN) as process:
        assert process.stderr is not None
        found = re.search(r"udp://127\.0\.0\.1:[0-9]+", process.stderr.readline())
        assert found is not None
        yield found[0]
        process.terminate()
        assert process.wait(20) == 0


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one of --mqtt URL and --udp"),
        (["--udp", "8080", "--mqtt", "mqtt://host/topic"], "give one of --mqtt URL and --udp"),
        (["--udp", "8080", "--client-id", "x"], "are for --mqtt"),
        (["--udp", "host:port"], "expected a port such as 8080"),
        (["--udp", "99999"], "expected a port such as 8080"),
        (["--udp", "nowhere.invalid:1"], "cannot listen on UDP port 1"),
        (["--udp", "8080", "--url", "http://h", "--bundle", "b"], "give one of the two"),
    ],
)
def test_wrong_options_are_named(words: list[str], message: str, tiny_folder: Path) -> None:
    given = words if "--url" in words else [*words, "--bundle", str(tiny_folder)]
    with pytest.raises(SplitcodecError, match=re.escape(message)):
        CliRunner().invoke(app, ["bridge", *given], catch_exceptions=False, standalone_mode=False)
