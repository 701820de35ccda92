"""What somebody new meets first: a missing extra, a mistyped address, the same facts under the same names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from PIL import Image
from rich.text import Text
from typer.testing import CliRunner, Result

from splitcodec.cli import app
from splitcodec.cli.show import DEFAULT_BUNDLE, print_table, progress
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.evaluation.golden import FILE, make_golden
from splitcodec.wire.bundle import Bundle, open_bundle, write_bundle
from tests.cli.test_cli import refused

ROOT = Path(__file__).parents[2]
PAGES = {
    page.name: page.read_text(encoding="utf-8").replace("\\\n", " ")
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    if page.name not in ("LOG.md", "results.md")
}
SERVER = ("fastapi", "starlette", "uvicorn", "pydantic_settings", "prometheus_client")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(10):
        Image.effect_noise((80, 80), 20 + 5 * k).convert("RGB").save(folder / f"{k}.png")
    return folder


@pytest.fixture
def whole(tiny: Bundle, photos: Path, tmp_path: Path) -> Path:
    """Return a bundle that brings golden vectors."""
    files = {name: tiny.read(name) for name in tiny.manifest.files}
    files[FILE] = make_golden(Device(tiny), Edge(tiny), sorted(photos.iterdir())[:2])
    return write_bundle(tmp_path / "whole", tiny.manifest, files=files).path


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        *((["serve"], missing) for missing in SERVER),
        *((words, "fastapi") for words in (["serve", "--demo"], ["serve", "--engine", "ray"], ["demo"])),
    ],
)
def test_without_the_server_s_packages_the_extra_is_named(words: list[str], missing: str, tmp_path: Path) -> None:
    """The first thing that a plain `pip install` gave on `splitcodec serve` was a traceback."""
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['splitcodec', *{words}]; "
    command = [sys.executable, "-c", code + "from splitcodec.cli import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    done.stdout = ""  # `demo` has said what it is about to do
    refused(done, "MissingExtra", f"needs {missing}", "splitcodec[edge]")


def test_every_bundle_that_is_written_is_told_alike(whole: Path, photos: Path, tmp_path: Path) -> None:
    """Some commands called the same thing `path`, others `folder`, and some left the fingerprint out."""
    given = ["--photos", photos]
    for words in (
        ["bundle", "pack", whole],
        ["bundle", "split", whole],
        ["bundle", "join", whole, "--edge", whole],
        ["calibrate", "-b", whole, *given],
        ["levels", whole, *given, "--bytes", "60"],
    ):
        out = tmp_path / "-".join(map(str, words[:2])).replace("/", "")
        done = run(*words, "-o", out, "--json")
        assert done.exit_code == 0, (words, done.output, done.exception)
        told, made = json.loads(done.stdout), open_bundle(out)
        assert {key: told[key] for key in ("bundle", "path", "fingerprint")} == facts(made, out), words


def test_exports_are_told_alike(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr("splitcodec.training.export.export", lambda *_, **__: tiny)
    monkeypatch.setattr("splitcodec.training.task_export.export_task", lambda *_, **__: tiny)
    monkeypatch.setattr("splitcodec.cli.tasks._finished", lambda *_: True)  # of no run
    (tmp_path / "recipe.yaml").touch()
    for words in (["export", tmp_path], ["export-task", tmp_path, "-b", tiny.path]):
        told = json.loads(run(*words, "-o", tmp_path / "out", "--json").stdout)
        assert {key: told[key] for key in ("bundle", "path", "fingerprint")} == facts(tiny, tmp_path / "out"), words
    kept = run("export-task", tmp_path, "-b", tiny.path, "-o", tmp_path / "out").stdout
    assert kept.splitlines()[-1].startswith("It is still called tiny@1, ")


def test_what_is_no_run_is_not_asked_for_a_recipe(tiny: Bundle, tmp_path: Path) -> None:
    """`export` and `bundle redecode` of the wrong folder said to give a YAML file."""
    pytest.importorskip("torch")
    for words in (["export", tmp_path], ["bundle", "redecode", tiny.path, "--run", tmp_path]):
        done = run(*words, "-o", tmp_path / "out")
        assert f"{tmp_path} holds no run of `splitcodec train`" in str(done.exception), words


def facts(bundle: Bundle, out: Path) -> dict[str, str]:
    return {"bundle": bundle.ident, "path": str(out), "fingerprint": bundle.fingerprint.hex()}


@pytest.mark.parametrize("url", ["ftp://me:s3cret@edge", "edge:8080", "", "s3cret@edge"])
@pytest.mark.parametrize("command", ["ask", "watch"])
def test_an_address_of_no_kind_names_all_kinds(command: str, url: str, tiny_folder: Path, tmp_path: Path) -> None:
    done = run(command, tmp_path, "--url", url, "-b", tiny_folder)
    for word in ("http://host:8080", "mqtt://host/topic", "udp://host"):
        assert word in str(done.exception)
    assert "s3cret" not in str(done.exception)


def test_watch_without_a_folder_or_a_camera_asks_for_one(tiny_folder: Path) -> None:
    """It asked for a spool."""
    done = run("watch", "--url", "http://127.0.0.1:9", "-b", tiny_folder)
    assert "a folder of pictures or --camera" in str(done.exception)


def test_watch_takes_a_token_file_as_ask_does(tiny_folder: Path, tmp_path: Path) -> None:
    done = run("watch", tmp_path, "--url", "http://127.0.0.1:9", "-b", tiny_folder, "--token-file", tmp_path / "none")
    assert f"token file {tmp_path / 'none'}" in str(done.exception)


def test_ask_says_what_was_forced(tiny_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/device.md promised `side` and `dropped` of --json; `encode` alone gave them."""
    edge = Edge(tiny_folder)

    class Link:
        url = "http://edge"

        def __call__(self, packet: bytes) -> bytes:
            return edge.respond(packet)

        def close(self) -> None:
            """Close nothing."""

    monkeypatch.setattr("splitcodec.device.links.open_link", lambda *_, **__: Link())
    words = ["ask", photos / "9.png", "--url", "http://edge", "-b", tiny_folder, "--json", "--max-bytes"]
    forced = json.loads(run(*words, 30, "--force-fit").stdout)
    assert (forced["bytes"] <= 30, forced["side"] <= 64, forced["dropped"] >= 0) == (True, True, True)
    assert not {"side", "dropped"} & set(json.loads(run(*words, 60_000).stdout))


def test_a_title_stays_on_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """`tune` broke the processor's name at the edge of its narrow table."""
    print_table("efficientnet-lite0@8 on a processor with a long name", ["ms"], [["1"]])
    assert capfd.readouterr().out.splitlines()[0] == "efficientnet-lite0@8 on a processor with a long name"


def test_what_a_run_says_is_one_line_of_its_log(capfd: pytest.CaptureFixture[str]) -> None:
    said = "stage1: agreement held out: " + ", ".join(f"{k} % at {k} kB" for k in range(30))
    with progress() as bar:
        bar.console.print(said)
    assert capfd.readouterr().err == said + "\n"


def commands(group: Any, *name: str) -> Iterator[tuple[str, tuple[set[str], list[str]]]]:
    """Give every command's words, its options, and what the help says of each of its parameters."""
    if not hasattr(group, "commands"):
        options = {option for parameter in group.params for option in parameter.opts if option[0] == "-"}
        yield " ".join(name), (options, [parameter.help or "" for parameter in group.params])
    for word, command in getattr(group, "commands", {}).items():
        yield from commands(command, *name, word)


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_no_help_loses_words_to_markup() -> None:
    """`bridge --help` named mqtt:// alone: "[s]" of mqtt[s]:// means struck through."""
    for name, (_, told) in COMMANDS.items():
        for text in told:
            assert Text.from_markup(text).plain == text, name


def test_a_default_that_typer_does_not_know_is_told() -> None:
    for name in ("answer", "bridge", "serve"):
        assert any("Bundles to" in text and f"Default: {DEFAULT_BUNDLE}." in text for text in COMMANDS[name][1]), name


def test_threads_are_told_for_what_they_are() -> None:
    """Where pictures are done side by side each graph has one thread, and the help spoke of threads for the network."""
    for name in ("calibrate", "evaluate", "quantise"):
        assert "Pictures at a time. Default: one per core." in COMMANDS[name][1], name


def test_every_option_that_a_page_gives_a_command_exists() -> None:
    lines = 0
    for page, text in PAGES.items():
        for name, rest in re.findall(rf"splitcodec ({'|'.join(sorted(COMMANDS, reverse=True))}) ([^`\n#|]*)", text):
            given = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest))
            assert given <= COMMANDS[name][0], (page, name, rest)
            lines += bool(given)
    assert lines > 50


def test_every_option_is_on_a_page() -> None:
    """What a page does not name is found by those alone who read the help of every command."""
    text = "\n".join(PAGES.values())
    for name, (options, _) in COMMANDS.items():
        for option in options:
            if option.startswith("--"):
                assert re.search(rf"{option}(?![\w-])", text), (name, option)


@pytest.mark.parametrize(
    "raised",
    [
        "raise MemoryError",
        "__import__('numpy').zeros(10**15)",
        "raise type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory. Tried to allocate 2.00 GiB')",
        'raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory: you tried to allocate 4 bytes")',
    ],
)
def test_what_finds_no_memory_says_how_to_take_less(raised: str) -> None:
    """A batch too large for the GPU was a traceback."""
    code = f"from splitcodec import cli\ndef app(**_):\n    {raised}\ncli.app = app\ncli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    refused(done, "not enough memory (", "stageN.batch")


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    code = "from splitcodec import cli\ndef app(**_):\n    raise RuntimeError('ours')\ncli.app = app\ncli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
