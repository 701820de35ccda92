"""`splitcodec watch` from outside."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from splitcodec.cli import main
from splitcodec.cli.show import DEFAULT_BUNDLE
from splitcodec.device.client import Device
from splitcodec.device.link import http
from splitcodec.device.overlay import in_picture
from splitcodec.device.source import Capture, Folder, Known
from splitcodec.device.spool import Spool
from splitcodec.device.still import change
from splitcodec.edge.answer import Edge
from splitcodec.edge.server import BackgroundServer, Settings, create_app
from splitcodec.errors import LinkRefused
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.problem import may_pass

COMMAND = [sys.executable, "-m", "splitcodec.cli", "watch"]


class Run:
    """The command in this process; `run(...)` gives its exit code, stdout and stderr."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capture = capture

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        self._patch.setattr(sys, "argv", ["splitcodec", "watch", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = self._capture.readouterr()
        return subprocess.CompletedProcess([], int(left.value.code or 0), out, err)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


def shoot(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.linear_gradient("L").convert("RGB").resize((90 + number, 80)).save(folder / name)


@pytest.fixture(scope="module")
def url(tiny_folder: Path) -> Iterator[str]:
    with BackgroundServer(create_app(Edge(tiny_folder), Settings())) as background:
        yield background.url


def test_once(run: Run, url: str, tiny: Bundle, tiny_folder: Path, tmp_path: Path) -> None:
    shoot(tmp_path / "in", "a.png", "b.png")
    answers = tmp_path / "out" / "answers.jsonl"
    options = ("--url", url, "-b", tiny_folder, "--answers", answers, "--level", 2, "--after", "move", "--settle", 0.1)
    done = run(tmp_path / "in", *options, "--top", 2, "--once", "--json")
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout.splitlines()[-1])
    assert (status["taken"], status["answered"], status["waiting"]) == (2, 2, 0)
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [line["picture"] for line in lines] == ["a.png", "b.png"]
    device, edge = Device(tiny), Edge(tiny)
    for line in lines:
        packet = device.encode(tmp_path / "in" / "done" / line["picture"], level=2)
        assert (line["bytes"], line["level"], line["bundle"]) == (len(packet), 2, "tiny@1")
        assert line["answers"] == edge.answer(packet, top=2)["answers"]


def test_once_looks_as_often_as_it_is_told(
    run: Run, url: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked five times a second, at a network share as well."""
    shoot(tmp_path / "in", "a.png")
    looks: list[float] = []
    real = Folder.take

    def take(self: Folder, known: Known) -> list[Capture]:
        looks.append(time.monotonic())
        return real(self, known)

    monkeypatch.setattr(Folder, "take", take)
    options = ("--url", url, "-b", tiny_folder, "--settle", 0.5, "--poll", 0.6, "--once")
    assert run(tmp_path / "in", *options).returncode == 0
    assert looks[1] - looks[0] >= 0.6


def test_nobody_there_then_somebody(run: Run, url: str, tiny_folder: Path, tmp_path: Path) -> None:
    shoot(tmp_path / "in", "a.png")
    options = ("-b", tiny_folder, "--settle", 0, "--once")
    away = run(tmp_path / "in", "--url", "http://127.0.0.1:9", *options)
    assert away.returncode == 2
    assert "does not answer" in away.stderr
    assert "1 waiting" in away.stderr
    assert "Traceback" not in away.stderr
    there = run(tmp_path / "in", "--url", url, *options)
    assert there.returncode == 0, there.stderr
    assert "a.png:" in there.stderr
    assert len((tmp_path / "in" / ".splitcodec" / "answers.jsonl").read_text().splitlines()) == 1


def test_answers_that_lost_their_last_line_while_packets_wait_are_told_of(
    run: Run, url: str, tiny_folder: Path, tmp_path: Path
) -> None:
    shoot(tmp_path / "in", "a.png")
    options = ("-b", tiny_folder, "--settle", 0, "--once")
    assert run(tmp_path / "in", "--url", url, *options).returncode == 0
    shoot(tmp_path / "in", "b.png")
    away = run(tmp_path / "in", "--url", "http://127.0.0.1:9", *options)
    answers = tmp_path / "in" / ".splitcodec" / "answers.jsonl"
    answers.write_bytes(b"")  # as copytruncate does
    lost = run(tmp_path / "in", "--url", url, *options)
    words = f"splitcodec: {answers}: the last line that was written is not there"
    assert words not in away.stderr
    assert words in lost.stderr
    assert [json.loads(line)["picture"] for line in answers.read_text().splitlines()] == ["b.png"]


def test_sigterm_ends_it_cleanly(url: str, tiny_folder: Path, tmp_path: Path) -> None:
    shoot(tmp_path / "in", "a.png")
    command = [*COMMAND, str(tmp_path / "in"), "--url", url, "-b", str(tiny_folder), "--settle", "0", "--poll", "0.05"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "watching" in process.stderr.readline()
        assert "a.png" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "1 answered" in rest
    assert "Traceback" not in rest


def test_refusals_are_one_line(run: Run, tiny_folder: Path, tmp_path: Path) -> None:
    url = ("--url", "http://127.0.0.1:9", "-b", tiny_folder)
    for arguments, words in (
        ((tmp_path / "none", *url), "no such folder"),
        ((*url,), "--camera"),
        ((tmp_path, "--camera", "0", *url, "--spool", tmp_path), "one of the two"),
        (("--camera", "0", *url), "no --spool"),
        (("--camera", tmp_path / "no camera", "--spool", tmp_path, *url), "does not open"),
        ((tmp_path, *url, "--after", "burn"), "keep, delete or move"),
        ((tmp_path, *url, "--when-full", "burn"), "drop-oldest"),
        ((tmp_path, *url, "--answers", __file__ + "/x"), "test_watch.py is a file; choose another --answers"),
        ((tmp_path, "--url", "ftp://a", "-b", tiny_folder), "http://host:8080"),
        ((tmp_path, *url, "--force-fit"), "--max-bytes or --kbit-per-s"),
        ((tmp_path, *url, "--window-s", "5"), "--kbit-per-s"),
        ((tmp_path, *url, "--every", "5"), "--every means nothing without --camera"),
        (("--camera", "0", "--spool", tmp_path, *url, "--after", "delete"), "--after delete is for pictures in a"),
        (("--camera", "0", "--spool", tmp_path, *url, "--settle", "1"), "--settle is for files in a folder"),
        ((tmp_path, "--url", "mqtt://h/t", "-b", tiny_folder, "--token-file", "x"), "MQTT takes none"),
        ((tmp_path, *url, "--kbit-per-s", "0"), "more than 0"),
        ((tmp_path, *url, "--kbit-per-s", "1e10", "--window-s", "1e308"), "--kbit-per-s 10000000000.0; expected"),
        ((tmp_path, *url, "--kbit-per-s", "nan"), "--kbit-per-s nan; expected"),
        ((tmp_path, *url, "--tasks", "classify,classfy", "--once"), "--tasks 'classfy'; tiny@1 has classify"),
        ((tmp_path, *url, "--level", "99", "--once"), "level 99; tiny@1 has levels 0 to 2"),
        *(
            ((tmp_path, *url, option, "inf"), f"{option} inf; expected a number of at most 1,000,000,000")
            for option in ("--max-spool-mb", "--every", "--poll", "--settle", "--timeout", "--kbit-per-s")
        ),
    ):
        done = run(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert words in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        told = [line for line in done.stderr.splitlines() if line.startswith("splitcodec:")]
        assert len(told) == 1, done.stderr
        assert list(tmp_path.iterdir()) == [], arguments  # no spool among somebody's pictures


def test_names_do_not_drive_a_terminal(run: Run, url: str, tiny_folder: Path, tmp_path: Path) -> None:
    shoot(tmp_path / "in", "good\x1b]0;owned\x07.png")
    (tmp_path / "in" / "bad\x1b[2J.png").write_bytes(b"no picture")
    done = run(tmp_path / "in", "--url", url, "-b", tiny_folder, "--settle", 0.1, "--once")
    assert "good\\x1b]0;owned\\x07.png: " in done.stderr
    assert "bad\\x1b[2J.png: unreadable" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_level_that_the_bundle_lacks_is_refused_before_anything_is_said(tiny_folder: Path, tmp_path: Path) -> None:
    """It said "watching" and died at the first picture, under systemd again and again."""
    words = [str(tmp_path), "--url", "http://127.0.0.1:9", "-b", str(tiny_folder), "--level", "99"]
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, timeout=90)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "splitcodec: SettingsError: level 99; tiny@1 has levels 0 to 2\n"
    assert not (tmp_path / ".splitcodec").exists()


def test_an_edge_with_another_bundle_costs_no_packet(run: Run, url: str, tiny_folder: Path, tmp_path: Path) -> None:
    shoot(tmp_path / "in", "a.png", "b.png")
    options = ("-b", tiny_folder, "--settle", 0, "--once", "--after", "move")
    with BackgroundServer(create_app(Edge(DEFAULT_BUNDLE), Settings())) as other:
        wrong = run(tmp_path / "in", "--url", other.url, *options)
    assert wrong.returncode == 2
    assert "refused the packet (400): made with a bundle of fingerprint" in wrong.stderr
    assert "2 waiting" in wrong.stderr
    assert not list((tmp_path / "in").glob("failed/*"))
    right = run(tmp_path / "in", "--url", url, *options)
    assert right.returncode == 0, right.stderr
    assert sorted(path.name for path in (tmp_path / "in" / "done").iterdir()) == ["a.png", "b.png"]


def test_an_unknown_task_is_refused_by_name(url: str, tiny: Bundle, tmp_path: Path) -> None:
    shoot(tmp_path / "in", "a.png")
    with http(url, tasks=["detect"]) as link, pytest.raises(LinkRefused) as caught:
        link(Device(tiny).encode(tmp_path / "in" / "a.png"))
    assert (caught.value.status, caught.value.reason, may_pass(caught.value)) == (404, "TaskError", True)


def test_packets_that_wait_while_the_options_change_ask_for_what_they_were_made_for(
    run: Run, url: str, tiny: Bundle, tiny_folder: Path, tmp_path: Path
) -> None:
    """The edge had answered one whose answer was lost, and refused its key for another question (422)."""
    shoot(tmp_path / "in", "a.png")
    answers = tmp_path / "answers.jsonl"
    options = ("-b", tiny_folder, "--settle", 0, "--once", "--answers", answers)
    assert run(tmp_path / "in", "--url", "http://127.0.0.1:9", *options, "--top", 1).returncode == 2
    spool = Spool(tmp_path / "in" / ".splitcodec")
    entry = spool.read(spool.waiting()[0])
    spool.close()
    with http(url, tasks=["classify"], top=1) as link:
        link(entry.packet, idempotency_key=entry.key)
    shoot(tmp_path / "in", "b.png")
    done = run(tmp_path / "in", "--url", url, *options, "--top", 2)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    asked = {line["picture"]: len(line["answers"]["classify"]) for line in lines}
    assert (len(lines), asked["a.png"], asked["b.png"]) == (2, 1, 2)
    assert entry.place == Device(tiny).encode_timed(tmp_path / "in" / "a.png").place


def test_an_empty_token_is_none_and_a_password_is_not_shown(
    run: Run, url: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITCODEC_TOKEN", "")
    shoot(tmp_path / "in", "a.png")
    threading.Timer(1.0, signal.raise_signal, (signal.SIGTERM,)).start()
    address = url.replace("://", "://me:s3cret@")
    done = run(tmp_path / "in", "--url", address, "-b", tiny_folder, "--settle", 0, "--poll", 0.05)
    assert done.returncode == 0, done.stderr
    assert f"at {url}, spool" in done.stderr
    assert "1 answered" in done.stderr
    away = run(tmp_path / "in", "--url", "http://me:s3cret@127.0.0.1:9", "-b", tiny_folder, "--settle", 0, "--once")
    assert "s3cret" not in done.stderr + away.stderr


@pytest.mark.parametrize("json_", [["--json"], []])
@pytest.mark.parametrize("stream", [">", "2>"])
def test_a_log_on_a_full_disk_does_not_end_it(
    stream: str, json_: list[str], url: str, tiny_folder: Path, tmp_path: Path
) -> None:
    shoot(tmp_path / "in", "a.png", "b.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    command = [
        *COMMAND,
        str(tmp_path / "in"),
        "--url",
        url,
        "-b",
        str(tiny_folder),
        "--settle",
        "0.1",
        "--once",
        *json_,
    ]
    subprocess.run(["sh", "-c", f'exec "$@" {stream}/dev/full', "sh", *command], check=False, timeout=60)
    assert len((tmp_path / "in" / ".splitcodec" / "answers.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_it_runs_where_nobody_listens(closed: str, url: str, tiny_folder: Path, tmp_path: Path) -> None:
    """As started by `watch ... >&- 2>&- &`: Python has no stdout or no stderr then."""
    shoot(tmp_path / "in", "a.png")
    command = [*COMMAND, tmp_path / "in", "--url", url, "-b", tiny_folder, "--settle", "0.1", "--once", "--json"]
    subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *map(str, command)], check=True, timeout=60)
    assert len((tmp_path / "in" / ".splitcodec" / "answers.jsonl").read_text().splitlines()) == 1
    info = [*COMMAND[:-1], "info", tiny_folder]
    subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *map(str, info)], check=True, timeout=60)


def test_an_interrupt_ends_it_with_130(run: Run, url: str, tiny_folder: Path, tmp_path: Path) -> None:
    shoot(tmp_path / "in", "a.png")
    threading.Timer(1.0, signal.raise_signal, (signal.SIGINT,)).start()
    done = run(tmp_path / "in", "--url", url, "-b", tiny_folder, "--settle", 0, "--poll", 0.05)
    assert done.returncode == 130
    assert "answered" in done.stderr


def test_a_byte_budget_holds_for_every_packet(
    run: Run, url: str, tiny: Bundle, tiny_folder: Path, tmp_path: Path
) -> None:
    shoot(tmp_path / "in", "a.png", "b.png")
    most = max(len(Device(tiny).encode(tmp_path / "in" / name, level=1)) for name in ("a.png", "b.png"))
    answers = tmp_path / "answers.jsonl"
    options = ("--url", url, "-b", tiny_folder, "--answers", answers, "--settle", 0.1, "--once", "--json")
    done = run(tmp_path / "in", *options, "--max-bytes", most)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(lines) == 2
    assert all(line["bytes"] <= most and line["level"] >= 1 for line in lines)
    shoot(tmp_path / "in", "c.png")
    assert run(tmp_path / "in", *options, "--max-bytes", 13).returncode == 2
    last = json.loads(answers.read_text().splitlines()[-1])
    assert (last["error"]["outcome"], last["error"]["type"]) == ("unreadable", "BudgetTooSmall")


def test_a_task_beside_classification_is_shown_the_whole_picture(run: Run, tmp_path: Path) -> None:
    wide = Image.linear_gradient("L").convert("RGB").resize((640, 200))
    (tmp_path / "in").mkdir()
    wide.save(tmp_path / "in" / "a.png")
    answers, edge, device = tmp_path / "answers.jsonl", Edge(DEFAULT_BUNDLE), Device(DEFAULT_BUNDLE)
    with BackgroundServer(create_app(edge, Settings())) as background:
        options = ("--url", background.url, "--answers", answers, "--settle", 0.1, "--once", "--encoder", "fp32")
        assert run(tmp_path / "in", *options, "--tasks", "classify,detect,segment").returncode == 0
    (line,) = [json.loads(line) for line in answers.read_text().splitlines()]
    encoded = device.encode_timed(tmp_path / "in" / "a.png", fit="letterbox")
    right = in_picture(edge.answer(encoded.packet, tasks=["classify", "detect", "segment"]), encoded.place)
    assert line["answers"] == right["answers"]
    assert line["answers"]["segment"]["size"] == [200, 640]


def test_an_average_rate_makes_pictures_wait(
    run: Run, url: str, tiny: Bundle, tiny_folder: Path, tmp_path: Path
) -> None:
    names = [f"{number}.png" for number in range(5)]
    shoot(tmp_path / "in", *names)
    least = max(len(Device(tiny).encode(tmp_path / "in" / name, level=0)) for name in names)
    answers, window_s = tmp_path / "answers.jsonl", 0.5
    kbit = 8 * (least + 0.5) / window_s / 1000  # a full window holds one packet of level 0
    options = ("--url", url, "-b", tiny_folder, "--answers", answers, "--settle", 0.1, "--once", "--json")
    begin = time.monotonic()
    done = run(tmp_path / "in", *options, "--kbit-per-s", kbit, "--window-s", window_s)
    seconds = time.monotonic() - begin
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [line["picture"] for line in lines] == names
    assert {line["level"] for line in lines} == {0}
    assert sum(line["bytes"] for line in lines) <= kbit * 125 * (seconds + window_s)


def test_pictures_of_a_scene_that_stands_still_are_skipped(
    run: Run, url: str, tiny_folder: Path, tmp_path: Path
) -> None:
    shoot(tmp_path / "in", "a.png")
    with Image.open(tmp_path / "in" / "a.png") as picture:
        for name in ("b.png", "c.png"):
            picture.save(tmp_path / "in" / name, compress_level=1)
        picture.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "in" / "d.png")
    options = ("--url", url, "-b", tiny_folder, "--settle", 0.1, "--once", "--min-change", 0.01)
    done = run(tmp_path / "in", *options, "--after", "move", "--kbit-per-s", 1000)
    assert done.returncode == 0, done.stderr
    answers = (tmp_path / "in" / ".splitcodec" / "answers.jsonl").read_text().splitlines()
    lines = {line["picture"]: line for line in map(json.loads, answers)}
    assert {name: "answers" in line for name, line in lines.items()} == {
        "a.png": True,
        "b.png": False,
        "c.png": False,
        "d.png": True,
    }
    first = lines["a.png"]["capture"]
    assert [(lines[name]["unchanged_since"], lines[name]["change"]) for name in ("b.png", "c.png")] == [
        (first, 0.0)
    ] * 2
    assert f"b.png: as {first} (changed by 0.00)" in done.stderr
    assert "2 answered, 2 unchanged" in done.stderr
    assert sorted(path.name for path in (tmp_path / "in" / "done").iterdir()) == ["a.png", "b.png", "c.png", "d.png"]
    for name in ("e.png", "f.png"):
        shutil.copyfile(tmp_path / "in" / "done" / "a.png", tmp_path / "in" / name)
    again = run(tmp_path / "in", *options, "--refresh", 0)
    assert "2 answered" in again.stderr
    assert "unchanged" not in again.stderr
    done = run(tmp_path / "in", "--url", url, "-b", tiny_folder, "--once", "--refresh", 5)
    assert (done.returncode, "--min-change" in done.stderr) == (2, True)


def test_a_change_is_told_in_symbols_of_the_default_level(run: Run, url: str, tiny: Bundle, tmp_path: Path) -> None:
    """Whatever level is sent."""
    assert tiny.manifest.default_level > 0
    shoot(tmp_path / "in", "a.png")
    with Image.open(tmp_path / "in" / "a.png") as picture:
        picture.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "in" / "b.png")
    options = ("--url", url, "-b", tiny.path, "--settle", 0.1, "--once", "--level", 0, "--encoder", "fp32")
    done = run(tmp_path / "in", *options, "--min-change", 1000)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "in" / ".splitcodec" / "answers.jsonl").read_text()
    (line,) = (one for one in map(json.loads, text.splitlines()) if one["picture"] == "b.png")
    device, gain_c = Device(tiny, threads=1), tiny.tables[0].gain_lc[tiny.manifest.default_level]
    a, b = (device.encoder.latent_chw(device.crop(tmp_path / "in" / name)) for name in ("a.png", "b.png"))
    wanted = change(a * gain_c[:, None, None], b * gain_c[:, None, None])
    assert wanted > 0.01
    assert line["change"] == pytest.approx(wanted, abs=0.002)
