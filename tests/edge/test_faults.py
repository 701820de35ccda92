"""A server as a process among clients that misbehave, and one that is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi")

from splitcodec import Device, Edge
from splitcodec.device.link import http
from splitcodec.wire.answer import Guess, parse_answer
from splitcodec.wire.bundle import Bundle

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks into /proc")


@pytest.fixture(scope="module")
def packets(tiny: Bundle) -> list[bytes]:
    device, random = Device(tiny, threads=1), np.random.default_rng(4)
    return [device.encode(random.integers(0, 256, (70, 90, 3), dtype=np.uint8), level=n % 3) for n in range(6)]


@pytest.fixture(scope="module")
def expected(tiny: Bundle, packets: list[bytes]) -> list[list[Guess]]:
    edge = Edge(tiny, threads=1)
    return [edge.answer(packet)["answers"]["classify"] for packet in packets]


@contextmanager
def serving(folder: Path, port: int, log: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "splitcodec.cli",
        "serve",
        "-b",
        str(folder),
        "--port",
        str(port),
        "--threads",
        "1",
    ]
    environment = os.environ | {f"SPLITCODEC_{name.upper()}": value for name, value in settings.items()}
    with log.open("ab") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as process:
        try:
            end = time.monotonic() + 120
            while not ready(port):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def resident_mb(process: int) -> float:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def right(answer: bytes, expected: list[Guess]) -> bool:
    came = parse_answer(answer)["answers"]["classify"]
    return [one["index"] for one in came] == [one["index"] for one in expected] and bool(
        np.allclose([one["p"] for one in came], [one["p"] for one in expected], atol=1e-6)
    )


def misbehave(port: int, packet: bytes, *, until: threading.Event) -> list[socket.socket]:
    """Open connections of every bad kind and feed the slow ones a byte at a time; returns what is still open."""
    head = b"POST /v1/answer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    kinds = (
        b"",
        b"POST /v1/answer HTTP/1.1\r\nx-slow: ",
        head % len(packet) + packet[:9],
        head % (1 << 40),
        b"POST /v1/answer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00 not http\r\n\r\n",
    )
    held: list[socket.socket] = []
    for turn in range(60):
        one = socket.create_connection(("127.0.0.1", port))
        with suppress(OSError):
            one.sendall(kinds[turn % len(kinds)])
            if turn % 5 == 0:
                one.shutdown(socket.SHUT_WR)
            one.setblocking(False)
        held.append(one)
    chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
    while not until.wait(0.05):
        for turn, one in enumerate(held):
            with suppress(OSError):
                one.send(chunk if turn % len(kinds) == 4 else bytes(4096) if turn % len(kinds) == 3 else b"a")
    return held


def test_others_are_answered_while_some_misbehave(
    tiny_folder: Path, tmp_path: Path, packets: list[bytes], expected: list[list[Guess]]
) -> None:
    port, over = free_port(), threading.Event()
    limits = {"head_timeout_s": "1", "body_timeout_s": "1", "keep_alive_s": "2", "max_body_bytes": "65536"}
    with serving(tiny_folder, port, tmp_path / "log", **limits) as process, http(f"http://127.0.0.1:{port}") as link:
        for turn in range(30):
            link(packets[turn % 6])
        memory, files = resident_mb(process.pid), open_files(process.pid)
        with ThreadPoolExecutor(1) as pool:
            rabble = pool.submit(misbehave, port, packets[0], until=over)
            end = time.monotonic() + 1.5
            answered = 0
            while time.monotonic() < end or answered < 30:
                assert right(link(packets[answered % 6]), expected[answered % 6])
                answered += 1
            over.set()
            held = rabble.result()
        for one in held:
            one.close()
        end = time.monotonic() + 20
        while open_files(process.pid) > files and time.monotonic() < end:
            time.sleep(0.05)
        assert open_files(process.pid) <= files
        assert resident_mb(process.pid) < memory + 32
        process.terminate()
        assert process.wait(30) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_kill_9_and_restart_under_load_loses_no_answer(
    tiny_folder: Path, tmp_path: Path, packets: list[bytes], expected: list[list[Guess]]
) -> None:
    port, got, log = free_port(), list[bool](), tmp_path / "log"

    def one(turn: int) -> None:
        answer = link(packets[turn % 6], idempotency_key=f"turn-{turn}")
        got.append(right(answer, expected[turn % 6]))

    with (
        http(f"http://127.0.0.1:{port}", retries=1000, sleep=lambda _: time.sleep(0.05)) as link,
        ThreadPoolExecutor(6) as pool,
    ):
        with serving(tiny_folder, port, log) as process:
            futures = [pool.submit(one, turn) for turn in range(300)]
            while len(got) < 60:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert len(got) < 300
        with serving(tiny_folder, port, log):
            for future in futures:
                future.result()
            before, again = (link(packets[0], idempotency_key="again") for _ in range(2))
    assert got == [True] * 300
    assert before == again
