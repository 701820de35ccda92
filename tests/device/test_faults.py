"""Kill -9 at every step and at random moments, and a server that breaks connections: no answer lost, none doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import PacketError
from splitcodec.wire.bundle import Bundle

ROOT = Path(__file__).parents[2]


def die_everywhere(rounds: str) -> dict[str, int]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        command = [sys.executable, "-m", "tests.device.crashing", folder, rounds]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=3000)
    total: dict[str, int] = json.loads(done.stdout)
    print("faults injected {faults}, captures {captures}, lost {lost}, doubled {doubled}".format(**total))
    return total


def spotless(total: dict[str, int]) -> bool:
    return [total[name] for name in ("lost", "doubled", "crossed", "left")] == [0, 0, 0, 0]


def test_a_death_at_every_step_loses_and_doubles_nothing() -> None:
    total = die_everywhere("short")
    assert spotless(total), total
    assert total["faults"] > 100
    assert total["unchanged"] > 50


@pytest.mark.soak
def test_a_death_at_every_step_many_times() -> None:
    total = die_everywhere("20")
    assert spotless(total), total


class Flaky(ThreadingHTTPServer):
    """An edge whose every second answer goes wrong, before or after it was computed."""

    daemon_threads = True

    def __init__(self, edge: Edge, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.edge = edge
        self.chance = random.Random(seed)
        self.lock = threading.Lock()
        self.keys: Counter[str] = Counter()
        self.faults = 0
        self.calm = False
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients die here."""


class Handler(BaseHTTPRequestHandler):
    server: Flaky

    def do_POST(self) -> None:
        packet = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            fault = (
                None if self.server.calm else self.server.chance.choice(["cut", "late cut", "503", "slow", *[None] * 4])
            )
            self.server.faults += fault is not None
            self.server.keys[self.headers["idempotency-key"]] += 1
        if fault == "cut":
            self.connection.close()
            return
        if fault == "503":
            self.reply(503, b'{"detail": "busy"}', "application/problem+json")
            return
        try:
            answer = self.server.edge.respond(packet)
        except PacketError as error:
            self.reply(400, json.dumps({"detail": str(error)}).encode(), "application/problem+json")
            return
        if fault == "late cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n" + answer)
            self.connection.close()
            return
        if fault == "slow":
            time.sleep(0.05)
        self.reply(200, answer, "application/json")

    def reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def edge(tiny: Bundle) -> Edge:
    return Edge(tiny)


def serving(edge: Edge, seed: int) -> Iterator[Flaky]:
    with Flaky(edge, seed) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(edge: Edge) -> Iterator[Flaky]:
    yield from serving(edge, 7)


def kill_again_and_again(
    server: Flaky, bundle: Bundle, folder: Path, bundle_folder: Path, *, kills: int, a_run: int
) -> None:
    chance = random.Random(kills)
    pictures, answers = folder / "pictures", folder / "answers.jsonl"
    pictures.mkdir()
    command = [
        *(
            sys.executable,
            "-m",
            "splitcodec.cli",
            "watch",
            str(pictures),
            "--url",
            server.url,
            "--answers",
            str(answers),
        ),
        *("--bundle", str(bundle_folder), "--poll", "0.05", "--settle", "0.1", "--threads", "1", "--timeout", "2"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    count = 0

    def shoot() -> None:
        nonlocal count
        noise = np.random.default_rng(count).integers(0, 256, (70, 80, 3), dtype=np.uint8)
        part = pictures / ".part.png"
        Image.fromarray(noise).save(part)
        part.rename(pictures / f"{count:04d}.png")
        count += 1

    died = 0
    for _ in range(kills):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stderr is not None
            assert "watching" in process.stderr.readline()
            until = time.monotonic() + chance.uniform(0.05, 0.6)
            for _ in range(a_run):
                shoot()
                time.sleep(chance.uniform(0, 0.03))
            time.sleep(max(0.0, until - time.monotonic()))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            died += process.returncode == -signal.SIGKILL
    (pictures / "damaged.jpg").write_bytes(b"no picture")
    server.calm = True
    time.sleep(0.15)
    done = subprocess.run([*command, "--once", "--json"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2, done.stderr  # the damaged one
    assert json.loads(done.stdout.splitlines()[-1])["waiting"] == 0

    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    seen = Counter(line["picture"] for line in lines)
    names = [path.name for path in pictures.iterdir() if path.is_file()]
    lost, doubled = sum(seen[name] == 0 for name in names), sum(n - 1 for n in seen.values())
    resent = sum(n - 1 for n in server.keys.values())
    print(
        f"kill -9 {died}, link faults {server.faults}, captures {len(names)}, packets sent again {resent}, "
        f"lost {lost}, doubled {doubled}"
    )
    assert (died, lost, doubled) == (kills, 0, 0)
    device = Device(bundle, threads=1)
    for line in lines:
        if "error" in line:
            assert (line["picture"], line["error"]["outcome"]) == ("damaged.jpg", "unreadable")
        else:
            packet = device.encode(pictures / line["picture"])
            assert line["answers"] == server.edge.answer(packet)["answers"]
    assert len(server.keys) == len(names) - 1


def test_kill_9_at_random_moments(server: Flaky, tiny: Bundle, tiny_folder: Path, tmp_path: Path) -> None:
    kill_again_and_again(server, tiny, tmp_path, tiny_folder, kills=2, a_run=6)


@pytest.mark.soak
def test_kill_9_at_random_moments_for_long(server: Flaky, tiny: Bundle, tiny_folder: Path, tmp_path: Path) -> None:
    kill_again_and_again(server, tiny, tmp_path, tiny_folder, kills=60, a_run=12)
