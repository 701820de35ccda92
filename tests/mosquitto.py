"""A real broker on a free port of loopback, for the time of a test."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.requires import require


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@dataclass
class Mosquitto:
    """A broker; `lines` are added to its configuration."""

    folder: Path
    lines: str = "allow_anonymous true\n"
    scheme: str = "mqtt"
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}/site7"

    @contextlib.contextmanager
    def running(self) -> Iterator[Mosquitto]:
        config = self.folder / "mosquitto.conf"
        user = "user root\n"  # where tests run as root, do not leave the folder that only root reads
        config.write_text(f"listener {self.port} 127.0.0.1\n{user}log_dest stdout\n{self.lines}")
        with (self.folder / "log").open("w") as log:
            process = subprocess.Popen([require("mosquitto"), "-c", config], stdout=log, stderr=log)
        try:
            self._wait(process)
            yield self
        finally:
            process.terminate()
            process.wait(10)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            assert process.poll() is None, (self.folder / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise AssertionError("mosquitto does not listen")
