"""Servers as processes of their own, watched from outside.   used by: load.py"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from outcome import deaf

from splitcodec.edge.scrape import Scrape, parse_metrics
from splitcodec.errors import OutputError, SplitcodecError

_TICK = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


@contextmanager
def logged() -> Iterator[Path]:
    """Give servers a log while they are needed. What fails meanwhile is told with the log's last line, as OutputError.

    The log itself goes: it has a line for every request.
    """
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        try:
            yield log
        except (SplitcodecError, OSError, EOFError) as error:
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
            words = (line.strip("│ ") for line in reversed(lines))  # wrong options stand in a box
            last = next((line for line in words if re.search(r"\w", line)), "nothing")
            raise OutputError(f"{error}; the server's log ends in: {last[:400]}") from error


class Served:
    """`splitcodec serve` on a port; its log goes to a file."""

    def __init__(self, port: int, *options: str, log: Path) -> None:
        self.port = port
        command = [sys.executable, "-m", "splitcodec.cli", "serve", "--port", str(port), *options]
        with log.open("ab") as file, deaf():
            self._process = subprocess.Popen(command, stdout=file, stderr=file)
            atexit.register(self._process.kill)  # whatever ends the benchmark; does nothing to one that has ended
        self.pid = self._process.pid
        wait_ready(port, alive=lambda: self._process.poll() is None)

    def kill(self) -> None:
        """Kill it as `kill -9` does, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it with SIGTERM; return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)


def wait_ready(port: int, *, alive: Any, within_s: float = 120.0) -> None:
    """Wait until /readyz says 200. Raises OutputError."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not alive():
            raise OutputError("the server ended before it was ready")
        try:
            if get(port, "/readyz"):
                return
        except OSError:
            time.sleep(0.05)
    raise OutputError(f"the server was not ready within {within_s:g} s")


def get(port: int, path: str) -> bytes:
    """Return the body of a GET. Raises OSError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=30) as response:
        body: bytes = response.read()
        return body


def scrape(port: int) -> Scrape:
    """Return what /metrics says."""
    return parse_metrics(get(port, "/metrics").decode(), when=time.monotonic())


def cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has used, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Unbatched:
    """The same application with each packet given straight to a worker thread: what a batcher is compared with."""

    def __init__(self, port: int, bundle: str, *, threads: int | None, log: Path) -> None:
        self.port = port
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve_unbatched, args=(port, bundle, threads, log), daemon=True
        )
        with deaf():
            self._process.start()
        self.pid = self._process.pid or 0
        wait_ready(port, alive=self._process.is_alive)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.join()


class _Straight:
    depth = running = 0

    def __init__(self, run: Any) -> None:
        self._run = run
        self._pool = ThreadPoolExecutor(2)

    def check_room(self, question: Any) -> None:
        pass

    async def answer(self, question: Any) -> Any:
        import asyncio

        (outcome,) = await asyncio.get_running_loop().run_in_executor(self._pool, self._run, [question])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def close(self, **_: float) -> None:
        self._pool.shutdown()


def _serve_unbatched(port: int, bundle: str, threads: int | None, log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)

    from splitcodec.edge.answer import Edge
    from splitcodec.edge.listen import run_app
    from splitcodec.edge.server import create_app, read_settings

    def ready(_: str) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    settings = read_settings({"port": port, "symbols_per_s": 0, "requests_per_s": 0})
    app = create_app(Edge(bundle, threads=threads), settings)
    service = app.state.service
    service._batcher = _Straight(service._run)
    run_app(app, settings, announce=ready)
