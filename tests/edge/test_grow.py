"""Ray Serve: a local Ray, load, a killed replica, no answer lost. Long, and skipped where Ray is not installed.

`make soak-ray` installs it and runs this; the test prints one line of figures.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("fastapi")

from splitcodec import Device, Edge
from splitcodec.cli import app
from splitcodec.device.link import http
from splitcodec.edge.settings import read_settings
from splitcodec.errors import BundlePart, MissingExtra, SettingsError
from splitcodec.wire.answer import parse_answer
from splitcodec.wire.bundle import Bundle, derive, open_bundle, split_device, write_folder

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")
TOKEN = "ray-token-0123456789"
REQUESTS = 600


def serve_command(*options: str) -> list[str]:
    return [sys.executable, "-m", "splitcodec.cli", "serve", *options]


@contextmanager
def grown(folder: Path, *options: str, replicas: int, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    command = serve_command("-b", str(folder), "--engine", "ray", "--replicas", str(replicas), "--port", "0", *options)
    environment = {**os.environ, "SPLITCODEC_TOKENS": TOKEN, "RAY_DISABLE_IMPORT_WARNING": "1"}
    environment.pop("RAY_ADDRESS", None)
    with log.open("wb") as file, subprocess.Popen(command, stderr=file, stdout=file, env=environment) as process:
        try:
            end = time.monotonic() + 240
            while " at http" not in log.read_text(errors="replace"):
                assert process.poll() is None, log.read_text(errors="replace")
                assert time.monotonic() < end, log.read_text(errors="replace")
                time.sleep(0.2)
            line = next(line for line in log.read_text(errors="replace").splitlines() if " at http" in line)
            yield process, line.partition(" at ")[2].partition(",")[0]
        finally:
            process.terminate()
            process.wait(60)


def replicas_of(process: int) -> list[int]:
    """Return the process ids of the replicas among the descendants of a process."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
    family = {process}
    while more := {one for one, parent in parents.items() if parent in family} - family:
        family |= more
    return sorted(one for one in family if "ServeReplica" in titles.get(one, ""))


def figures(done: Counter[str], *, before: list[int], after: list[int]) -> str:
    """Return what happened in one line; `before` and `after` are the replicas' process ids."""
    restarts = len(set(after) - set(before))
    killed = f"{len(before)} replicas, one killed after {done['at the kill']} answers"
    answers = f"{done['right']} right, {done['wrong']} wrong, {done['asked again']} asked again"
    return f"Ray Serve: {REQUESTS} requests, {answers}, {restarts} replica restarts ({killed})"


def test_the_figures_say_what_happened() -> None:
    done = Counter({"right": 600, "asked again": 7, "at the kill": 203})
    assert figures(done, before=[11, 12], after=[12, 15]) == (
        "Ray Serve: 600 requests, 600 right, 0 wrong, 7 asked again, 1 replica restarts "
        "(2 replicas, one killed after 203 answers)"
    )


@needs_ray
@pytest.mark.soak
def test_a_killed_replica_loses_no_answer(
    tiny: Bundle, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device, random = Device(tiny, threads=1), np.random.default_rng(3)
    pictures = [random.integers(0, 256, (70, 90, 3), dtype=np.uint8) for _ in range(12)]
    packets = [device.encode(picture, level=n % 3) for n, picture in enumerate(pictures)]
    edge = Edge(tiny, threads=1)
    expected = [edge.answer(packet)["answers"]["classify"] for packet in packets]
    done, lock = Counter[str](), threading.Lock()

    with grown(tiny_folder, replicas=2, log=tmp_path / "log") as (process, url):
        assert httpx.post(f"{url}/v1/answer", content=packets[0], trust_env=False).status_code == 401
        before = replicas_of(process.pid)
        assert len(before) == 2

        def waited(seconds: float) -> None:
            with lock:
                done["asked again"] += 1
            time.sleep(min(seconds, 1.0))

        def one(turn: int) -> None:
            answer = parse_answer(link(packets[turn % 12], idempotency_key=f"grow-{turn}"))
            came, wanted = answer["answers"]["classify"], expected[turn % 12]
            same = [guess["index"] for guess in came] == [guess["index"] for guess in wanted]
            close = np.allclose([guess["p"] for guess in came], [guess["p"] for guess in wanted], atol=1e-6)
            with lock:
                done["right" if same and close else "wrong"] += 1

        with http(url, token=TOKEN, retries=40, sleep=waited) as link, ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(one, turn) for turn in range(REQUESTS)]
            while done["right"] < 200:
                time.sleep(0.01)
            os.kill(before[0], signal.SIGKILL)
            done["at the kill"] = done["right"]
            for future in futures:
                future.result()
        end = time.monotonic() + 60
        while len(after := [one for one in replicas_of(process.pid) if one != before[0]]) < 2:
            assert time.monotonic() < end
            time.sleep(0.2)
        process.terminate()
        assert process.wait(60) == 0
    with capsys.disabled():
        print(f"\n{figures(done, before=before, after=after)}")
    assert done["right"] == REQUESTS
    assert not done["wrong"]


@needs_ray
@pytest.mark.soak
def test_a_hangup_ends_nothing_and_no_replica_answers_by_another_bundle_than_the_rest(
    tiny: Bundle, tmp_path: Path
) -> None:
    """SIGHUP ended the server and all requests; a replica that started again took whatever lay on the disk by then."""
    live, log = tmp_path / "live", tmp_path / "log"
    write_folder(tiny, live)
    packet = Device(tiny, threads=1).encode(np.zeros((70, 90, 3), np.uint8))

    def asked() -> str:
        with http(url, token=TOKEN, retries=40) as link:
            return parse_answer(link(packet))["bundle"]

    with grown(live, "--host", "localhost", replicas=2, log=log) as (process, url):
        assert url.startswith("http://127.0.0.1:"), "where it listens"
        process.send_signal(signal.SIGHUP)
        until(lambda: "for bundles and TLS files start anew" in log.read_text(errors="replace"))
        before = replicas_of(process.pid)
        live.rename(tmp_path / "before")
        write_folder(derive(tiny, replace(tiny.manifest, version=2), files={}), live)
        os.kill(before[0], signal.SIGKILL)
        end = time.monotonic() + 15
        while time.monotonic() < end:
            assert asked() == "tiny@1"
        shutil.rmtree(live)
        (tmp_path / "before").rename(live)
        until(lambda: len([one for one in replicas_of(process.pid) if one != before[0]]) == 2)
        assert asked() == "tiny@1"
        process.terminate()
        assert process.wait(60) == 0


@pytest.fixture
def grow() -> ModuleType:
    """Return the door to Ray, which warns while it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("splitcodec.edge.grow")


def until(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 90
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.1)


@needs_ray
def test_what_no_replica_could_open_is_refused_before_ray_starts(
    grow: ModuleType, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was a traceback of Ray's, and its name only in Ray's logs."""
    monkeypatch.setattr(grow.ray, "init", lambda **_: pytest.fail("Ray was started"))
    half = split_device(tiny, tmp_path / "half").path
    for options, kind, says in (
        (["-b", str(half)], BundlePart, "decoder.onnx"),
        (["--tokens-file", str(tmp_path / "none")], SettingsError, "tokens file"),
        (["--tls-cert", str(tmp_path / "none"), "--tls-key", str(tmp_path / "none")], SettingsError, "TLS files"),
    ):
        outcome = CliRunner().invoke(app, ["serve", "--engine", "ray", "--port", "0", *options])
        assert isinstance(outcome.exception, kind)
        assert says in str(outcome.exception)


@needs_ray
def test_what_keeps_ray_from_starting_is_told_in_one_line(
    grow: ModuleType, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(**_: object) -> None:
        raise Exception("The current node timed out\nduring startup")

    monkeypatch.setattr(grow.ray, "init", late)
    outcome = CliRunner().invoke(app, ["serve", "-b", str(tiny_folder), "--engine", "ray", "--port", "0"])
    assert isinstance(outcome.exception, SettingsError)
    assert "Ray does not start the server: The current node timed out during startup; its logs" in str(
        outcome.exception
    )


@needs_ray
@pytest.mark.parametrize(
    ("host", "listens", "url"),
    [("localhost", "127.0.0.1", "http://127.0.0.1:"), ("::1", "::1", "http://[::1]:"), ("::", "::", "http://[::]:")],
)
def test_the_url_is_of_the_one_address_that_rays_proxy_listens_on(
    grow: ModuleType, host: str, listens: str, url: str
) -> None:
    placed, told = grow._placed(read_settings({"host": host, "port": 0}), alone=True)
    assert placed.host == listens
    assert told == f"{url}{placed.port}"
    assert grow._placed(read_settings({"host": host, "port": 0}), alone=False)[0].host == host


@needs_ray
def test_a_name_of_the_zoo_is_the_zoos_for_every_engine(
    grow: ModuleType, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Ray, a folder of that name in the working folder was served in its stead."""
    monkeypatch.chdir(tmp_path)
    write_folder(tiny, "efficientnet-lite0")
    assert grow._place("efficientnet-lite0") == open_bundle("efficientnet-lite0").ident
    assert grow._place("./efficientnet-lite0") == str(tmp_path / "efficientnet-lite0")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--replicas", "2"], "--replicas needs --engine ray"),
        (["--engine", "steam"], "engine 'steam'; expected uvicorn or ray"),
        (["--engine", "ray", "--demo"], "--demo needs --engine uvicorn"),
    ],
)
def test_growing_is_refused_by_name_where_it_makes_no_sense(options: list[str], says: str) -> None:
    outcome = CliRunner().invoke(app, ["serve", *options])
    assert isinstance(outcome.exception, SettingsError)
    assert says in str(outcome.exception)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(tiny_folder: Path) -> None:
    outcome = CliRunner().invoke(app, ["serve", "-b", str(tiny_folder), "--engine", "ray"])
    assert isinstance(outcome.exception, MissingExtra)
    assert "splitcodec[edge,ray]" in str(outcome.exception)
