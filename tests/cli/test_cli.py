"""The command line from outside: what it prints where, exit codes, one line for every refusal."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image
from pydantic import SecretStr
from typer.testing import CliRunner

import splitcodec
from splitcodec.cli import app
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.edge.server import BackgroundServer, Settings, create_app
from splitcodec.errors import OutputError
from splitcodec.evaluation.golden import FILE, make_golden
from splitcodec.wire.bundle import Bundle, write_bundle


def run(
    *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a fresh interpreter, with `env` on top of the environment."""
    command = [sys.executable, "-m", "splitcodec.cli", *map(str, arguments)]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=120)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, one line on stderr that says `words`, no traceback, no empty line, nothing done."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() in ("", "[]")
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for number, colour in enumerate(("tomato", "teal", "gold")):
        paths.append(folder / f"{number}_{colour}.png")
        Image.linear_gradient("L").convert("RGB").resize((90, 80)).point(lambda v, n=number: (v * (n + 1)) % 256).save(
            paths[-1]
        )
    return paths


@pytest.fixture(scope="module")
def golden_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, photos: Sequence[Path]) -> Path:
    from splitcodec.wire.bundle import open_bundle

    tiny = open_bundle(tiny_folder)
    files = {name: tiny.read(name) for name in tiny.manifest.files}
    files[FILE] = make_golden(Device(tiny), Edge(tiny), list(photos))
    out = tmp_path_factory.mktemp("golden") / "tiny"
    write_bundle(out, tiny.manifest, files=files)
    return out


@pytest.fixture(scope="module")
def server(tiny_folder: Path) -> Iterator[str]:
    with BackgroundServer(create_app(Edge(tiny_folder), Settings())) as background:
        yield background.url


def test_encode_then_answer(tiny_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    done = run("encode", *photos, "-o", tmp_path, "--bundle", tiny_folder, "--level", 2, "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert [m["image"] for m in made] == [str(p) for p in photos]
    for entry in made:
        assert set(entry) == {"image", "packet", "bytes", "level", "ms"}
        packet = Path(entry["packet"])
        assert packet.parent == tmp_path
        assert packet.suffix == ".spc"
        assert packet.stat().st_size == entry["bytes"]
        assert entry["level"] == 2
    one = json.loads(run("answer", made[0]["packet"], "--bundle", tiny_folder, "--json").stdout)
    expected = Edge(tiny_folder).answer(Path(made[0]["packet"]).read_bytes())
    assert one["answers"] == expected["answers"]
    assert set(one["ms"]) == {"decode", "decoder", "tail"}
    several = json.loads(run("answer", *(m["packet"] for m in made), "--bundle", tiny_folder, "--json").stdout)
    assert [a["packet"] for a in several] == [m["packet"] for m in made]


def test_clashing_names_get_numbers_and_none_is_lost(tiny_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    for folder, photo in zip("abc", photos, strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cat.png").write_bytes(photo.read_bytes())
    images = [tmp_path / folder / "cat.png" for folder in "abc"]
    out = tmp_path / "out"
    first = json.loads(run("encode", *images, "-o", out, "-b", tiny_folder, "--json").stdout)
    assert [Path(m["packet"]).name for m in first] == ["cat.spc", "cat-1.spc", "cat-2.spc"]
    again = json.loads(run("encode", *images, "-o", out, "-b", tiny_folder, "--json").stdout)
    assert [m["packet"] for m in again] == [m["packet"] for m in first]
    assert len(list(out.iterdir())) == 3


def test_one_bad_picture_does_not_stop_the_others(tiny_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not a picture")
    done = run("encode", photos[0], bad, photos[1], "-o", tmp_path / "out", "-b", tiny_folder, "--json")
    assert done.returncode == 2
    assert len(json.loads(done.stdout)) == 2
    assert "bad.jpg" in done.stderr
    assert "Traceback" not in done.stderr


def test_ask_over_http(server: str, tiny_folder: Path, photos: list[Path]) -> None:
    done = run("ask", photos[0], "--url", server, "-b", tiny_folder, "--level", 1, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    packet = Device(tiny_folder).encode(photos[0], level=1)
    assert answer["bytes"] == len(packet)
    assert answer["answers"] == Edge(tiny_folder).answer(packet)["answers"]
    assert {"preprocess", "encoder", "coding", "link", "decode", "decoder", "tail"} == set(answer["ms"])
    one = json.loads(run("ask", photos[0], "--url", server, "-b", tiny_folder, "--top", 1, "--json").stdout)
    assert len(one["answers"]["classify"]) == 1 < len(answer["answers"]["classify"])


def test_what_failed_is_in_the_json_too(server: str, tiny_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    """A single picture or packet that failed gave `[]`; of several, nothing said which."""
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not a picture")
    packet = tmp_path / "p.spc"
    packet.write_bytes(Device(tiny_folder).encode(photos[0]))
    asking = (["ask"], photos[0], "image", ["--url", server], "PictureUnreadable")
    for command, good, key, words, kind in (asking, (["answer"], packet, "packet", [], "PacketChecksum")):
        alone = run(*command, bad, *words, "-b", tiny_folder, "--json")
        told = json.loads(alone.stdout)
        assert (told[key], told["error"]["type"], set(told)) == (str(bad), kind, {key, "error"})
        alone.stdout = ""
        refused(alone, kind, "bad.jpg")
        several = run(*command, good, bad, good, *words, "-b", tiny_folder, "--json")
        assert several.returncode == 2
        first, failed, last = json.loads(several.stdout)
        assert failed == told
        assert "error" not in first
        assert (first[key], first["answers"]) == (last[key], last["answers"]) == (str(good), first["answers"])
        shown = run(*command, good, bad, *words, "-b", tiny_folder)
        assert shown.returncode == 2
        assert good.name in shown.stdout
        assert bad.name not in shown.stdout


def test_top_looks_once(server: str) -> None:
    told = json.loads(run("top", "--url", server, "--once", "--json").stdout)
    assert told["ready"] is True
    assert {"answers", "requests", "refusals", "queue_depth", "batch_mean", "stages_ms", "memory_bytes"} <= set(told)
    text = run("top", "--url", server, "--once").stdout
    assert "queue, batches running" in text
    assert "decoder" in text


def test_a_token_from_a_file_or_the_environment(
    tiny_folder: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, file = "a-token-of-some-length", tmp_path / "token"
    file.write_text(f"# mine\n{token}\n")
    with BackgroundServer(create_app(Edge(tiny_folder), Settings(tokens=SecretStr(token)))) as server:
        asking = ("ask", photos[0], "--url", server.url, "-b", tiny_folder, "--json")
        turned_away = run(*asking)
        told = json.loads(turned_away.stdout)
        assert (told["image"], told["error"]["type"]) == (str(photos[0]), "LinkRefused")
        assert "401" in told["error"]["detail"]
        turned_away.stdout = ""
        refused(turned_away, "LinkRefused", "401")
        refused(run("top", "--url", server.url, "--once"), "401", "SPLITCODEC_TOKEN")
        assert json.loads(run(*asking, "--token-file", file).stdout)["bundle"] == "tiny@1"
        monkeypatch.setenv("SPLITCODEC_TOKEN", token)
        assert json.loads(run("top", "--url", server.url, "--once", "--json").stdout)["answers"] == {"tiny@1": 1}


def test_info(tiny_folder: Path) -> None:
    facts = json.loads(run("info", tiny_folder, "--json").stdout)
    assert facts["bundle"] == "tiny@1"
    assert set(facts["encoder"]) == {"macs", "parameters", "bytes"}
    assert facts["levels"] == 3
    told = run("info", tiny_folder).stdout
    assert "tiny@1" in told
    assert max(map(len, told.splitlines())) < 100, "a line for each file: in one cell they made lines of 400 letters"
    assert all(any(f"{name} {size:,}" in line for line in told.splitlines()) for name, size in facts["files"].items())


def test_check(golden_folder: Path, tmp_path: Path) -> None:
    assert "replay" in run("check", golden_folder).stdout
    half = tmp_path / "half"
    assert run("bundle", "split", golden_folder, "-o", half).returncode == 0
    facts = json.loads(run("check", half, "--json").stdout)
    assert facts["answers"] is False


def test_check_refuses_a_changed_file(golden_folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(golden_folder, copy)
    graph = copy / "encoder.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    refused(run("check", copy), "BundleHash", "encoder.onnx")


def test_pack_makes_a_bundle_that_works(golden_folder: Path, tmp_path: Path) -> None:
    packed = tmp_path / "tiny.zip"
    assert run("bundle", "pack", golden_folder, "-o", packed).returncode == 0
    assert run("check", packed).returncode == 0
    refused(run("bundle", "pack", golden_folder, "-o", tmp_path / "tiny.rar"), ".zip")


def test_evaluate(tiny_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    data = photos[0].parent
    done = run(
        "evaluate",
        "-b",
        tiny_folder,
        "--data",
        data,
        "--codecs",
        "jpeg",
        "--sweep",
        "full",
        "--rival",
        f"twin={tiny_folder}",
        "--memory",
        tmp_path / "codecs",
        "--json",
        "--out",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["bundle"] == "tiny@1"
    assert report["images"] == 3
    assert {p["method"] for p in report["points"]} == {"splitcodec", "twin", "jpeg"}
    assert set(report["bd_rate"]) == {"twin", "jpeg"}
    assert report["encoders"]["twin"]["trained"] == "undertrained"
    assert {p["resolution"] for p in report["points"] if p["method"] == "jpeg"} == {64, 48, 32, 24}
    assert json.loads((tmp_path / "rd.json").read_text())["points"] == report["points"]
    assert (tmp_path / "rd.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "report.md").stat().st_size > 500


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "no-such-bundle"], ["BundleNotFound", "no-such-bundle"]),
        (["encode", "nowhere.jpg", "-b", "TINY"], ["PictureNotFound", "nowhere.jpg"]),
        (["encode", "PHOTO", "-b", "TINY", "--level", "9"], ["SettingsError", "0 to 2"]),
        (["answer", "nowhere.spc", "-b", "TINY"], ["nowhere.spc"]),
        (["answer", "PHOTO", "-b", "TINY"], ["PacketChecksum"]),
        (["answer", "HUGE", "-b", "TINY"], ["FileTooLarge", "1500000 bytes", "1048576", "splitcodec encode"]),
        (["answer", "PACKET", "-b", "TINY", "--tasks", "juggle"], ["TaskError", "juggle"]),
        (["ask", "PHOTO", "-b", "TINY", "--url", "http://127.0.0.1:9", "--retries", "0"], ["LinkDown", "127.0.0.1:9"]),
        (["ask", "PHOTO", "-b", "TINY", "--url", "ftp://x"], ["ftp://x"]),
        (
            ["ask", "PHOTO", "-b", "TINY", "--url", "http://127.0.0.1:9", "--tasks", ","],
            ["SettingsError", "--tasks ','"],
        ),
        (["answer", "PACKET", "-b", "TINY", "--tasks", ""], ["SettingsError", "--tasks ''", "classify,detect"]),
        (["ask", "PHOTO", "-b", "TINY", "--url", "udp://a..b"], ["SettingsError", "udp://a..b"]),
        (["evaluate", "-b", "TINY", "--data", "EMPTY"], ["DataError", "empty"]),
        (["evaluate", "-b", "TINY", "--data", "EMPTY", "--codecs", "gif"], ["SettingsError", "gif", "jpeg"]),
        (["encode", "PHOTO", "-b", "TINY", "-o", "PHOTO"], ["OutputError"]),
        (["serve", "-b", "TINY", "--port", "99999"], ["SettingsError", "port"]),
        (["serve", "-b", "TINY", "--host", "0.0.0.0"], ["SettingsError", "--tokens-file", "--insecure"]),
        (["serve", "-b", "TINY", "--tokens-file", "nowhere"], ["SettingsError", "nowhere"]),
        (["ask", "PHOTO", "-b", "TINY", "--url", "http://127.0.0.1:9", "--token-file", "none"], ["token file none"]),
        (["top", "--url", "http://127.0.0.1:9", "--once"], ["LinkDown", "127.0.0.1:9"]),
        (["encode", "PHOTO", "-b", "TINY", "--side", "90"], ["SettingsError", "--fit letterbox"]),
        (["ask", "PHOTO", "-b", "TINY", "--url", "http://127.0.0.1:9", "--timeout", "1e300"], ["--timeout 1e+300"]),
        (["bridge", "--udp", "0", "--url", "http://127.0.0.1:9", "--timeout", "1e300"], ["--timeout 1e+300"]),
        (["top", "--url", "http://127.0.0.1:9", "--every", "inf"], ["--every inf"]),
    ],
)
def test_refusals(
    arguments: list[str], words: list[str], tiny_folder: Path, photos: list[Path], tmp_path: Path, tiny: Bundle
) -> None:
    (tmp_path / "empty").mkdir()
    packet = tmp_path / "p.spc"
    packet.write_bytes(Device(tiny).encode(photos[0]))
    huge = tmp_path / "huge.spc"  # its checksum holds, so nothing is damaged
    huge.write_bytes((body := bytes(1_500_000 - 4)) + zlib.crc32(body).to_bytes(4, "little"))
    names = {"TINY": tiny_folder, "PHOTO": photos[0], "EMPTY": tmp_path / "empty", "PACKET": packet, "HUGE": huge}
    refused(run(*(names.get(a, a) for a in arguments), cwd=tmp_path), *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "--no-such-option"], ["No such option", "--no-such-option", "see splitcodec encode --help"]),
        (["encode", "a.jpg", "--threads", "99999999"], ["'--threads'", "see splitcodec encode --help"]),
        (["encode"], ["Missing argument 'IMAGE'; see splitcodec encode --help"]),
        (["encode", "a.jpg", "--level"], ["'--level' requires an argument"]),
        (["bundle", "pack", "x"], ["Missing option '--out' / '-o'; see splitcodec bundle pack --help"]),
        (["encode", "a.jpg", "--fit", "x"], ["'--fit'", "not one of 'crop', 'letterbox'"]),
        (["encod"], ["No such command 'encod'", "see splitcodec --help"]),
        (["--nope"], ["No such option", "see splitcodec --help"]),
    ],
)
def test_wrong_words_are_told_in_one_line(arguments: list[str], words: list[str]) -> None:
    """Typer drew a box of five lines around them."""
    refused(run(*arguments), "splitcodec: SettingsError: ", *words)


@pytest.mark.parametrize("arguments", [[], ["bundle"]])
def test_no_words_at_all_print_the_help(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, "Commands" in done.stdout + done.stderr or "Start here" in done.stdout) == (2, True)


def test_serve_runs_and_stops_when_interrupted(tiny_folder: Path, photos: list[Path]) -> None:
    import os
    import re
    import signal

    command = [sys.executable, "-m", "splitcodec.cli", "serve", "-b", str(tiny_folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = None
        while found is None:
            found = re.search(r"http://[\d.]+:\d+", process.stderr.readline())
        asked = run("ask", photos[0], "--url", found[0], "-b", tiny_folder, "--json")
        os.kill(process.pid, signal.SIGINT)
        rest = process.stderr.read()
        code = process.wait(20)
    assert asked.returncode == 0, asked.stderr
    assert code in (0, 130)
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    "words", [["serve", "-b", "TINY", "--port", "0"], ["encode", "PHOTO", "-b", "TINY", "-o", "x"]]
)
def test_a_provider_that_is_not_there_is_one_line(
    tiny_folder: Path, photos: list[Path], tmp_path: Path, words: list[str]
) -> None:
    """At once: a server opens its bundles in the background."""
    given = {"TINY": str(tiny_folder), "PHOTO": str(photos[0]), "x": str(tmp_path / "x")}
    done = subprocess.run(
        [sys.executable, "-m", "splitcodec.cli", *(given.get(word, word) for word in words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"SPLITCODEC_PROVIDERS": "cudo"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("splitcodec: SettingsError: SPLITCODEC_PROVIDERS: 'cudo' is none of what this ONNX Runtime")


def test_commands_start_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "splitcodec.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "torch" not in done.stderr
    assert "onnxruntime" not in done.stderr


def test_an_answer_is_told_though_its_drawing_cannot_be_written(
    server: str, tiny_folder: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ["ask", str(photos[0]), "-b", str(tiny_folder), "--url", server, "--json", "--draw", str(tmp_path / "o.png")]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("splitcodec.cli.drawn.os.replace", full)
        done = CliRunner().invoke(app, ask)
    assert isinstance(done.exception, OutputError)
    assert str(done.exception).startswith(f"cannot draw to {tmp_path / 'o.png'}: No space left on device; ")
    assert json.loads(done.stdout)["answers"]["classify"]
    assert not list(tmp_path.iterdir())
    assert CliRunner().invoke(app, ask).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["o.png"]
    with Image.open(tmp_path / "o.png") as drawn, Image.open(photos[0]) as photo:
        assert drawn.size == photo.size


def test_names_that_are_no_text_are_printed(tiny_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff\n[red].png")
    odd.write_bytes(photos[0].read_bytes())
    for encoding in ("utf-8:strict", "ascii:strict"):
        done = run("encode", odd, "-b", tiny_folder, "-o", tmp_path / "out", env={"PYTHONIOENCODING": encoding})
        assert (done.returncode, done.stderr) == (0, "")
        assert r"\udcff\n[red].spc" in done.stdout


def test_python_m_splitcodec_is_the_command_line() -> None:
    command = [sys.executable, "-m", "splitcodec", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout, done.stderr) == (f"{splitcodec.__version__}\n", "")


def test_nobody_who_reads_is_a_failure(tiny_folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "splitcodec.cli", "info", str(tiny_folder), "--json"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False, timeout=120)
    os.close(write)
    assert (done.returncode, done.stderr) == (2, b"")


def test_top_shows_what_looks_like_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from splitcodec.cli import top
    from splitcodec.edge.scrape import parse_metrics, summary

    text = 'splitcodec_ready 1\nsplitcodec_answers_total{bundle="[/red]x"} 3\n'
    text += 'splitcodec_refusals_total{reason="a[link=http://evil]\x1b[31m"} 3\n'
    console = Console(record=True, width=100)
    console.print(top._view("http://[fe80::1]:80", summary(parse_metrics(text, when=0.0))))
    shown = console.export_text()
    for word in ("[/red]x", r"a[link=http://evil]\x1b[31m", "http://[fe80::1]"):
        assert word in shown


def test_a_full_disk_below_stderr_holds_up_no_other_picture(
    tiny_folder: Path, photos: Sequence[Path], tmp_path: Path
) -> None:
    """What failed could not be told, and that ended the command: no JSON, exit code 1."""
    command = [sys.executable, "-m", "splitcodec.cli", "encode", "nowhere.jpg", str(photos[0]), "-b", str(tiny_folder)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*command, "--json"], stdout=subprocess.PIPE, stderr=full, cwd=tmp_path, check=False, timeout=120
        )
    assert done.returncode == 2
    assert [one["image"] for one in json.loads(done.stdout)] == [str(photos[0])]
