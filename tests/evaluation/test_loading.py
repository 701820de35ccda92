"""What benchmarks/load.py says of servers that fail it."""

from __future__ import annotations

import asyncio
import importlib
import io
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import OutputError, SettingsError

BOX = "Usage: x\n╭─ Error ─╮\n│ no such │\n╰─────────╯\n".encode()
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("loading.servers")


def told(servers: ModuleType, work: Callable[[Path], object]) -> str:
    """Return what is said of work that fails, and see to it that its log has gone."""
    logs: list[Path] = []

    def logged() -> None:
        with servers.logged() as log:
            logs.append(log)
            work(log)

    with pytest.raises(OutputError) as caught:
        logged()
    assert not logs[0].exists()
    return str(caught.value)


def test_a_server_that_does_not_start_is_told_with_why(servers: ModuleType) -> None:
    """The message named a log that was gone by then, or one that was never written."""
    port, bundle = servers.free_port(), "no-such-bundle"
    for said in (
        told(servers, lambda log: servers.Served(port, "-b", bundle, log=log)),
        told(servers, lambda log: servers.Unbatched(port, bundle, threads=1, log=log)),
    ):
        assert said.startswith("the server ended before it was ready; the server's log ends in: ")
        assert "BundleNotFound: no-such-bundle: no such folder or zip" in said
        assert "\n" not in said


def test_the_server_without_a_batcher_answers(servers: ModuleType, tmp_path: Path) -> None:
    """It lacked what the service had come to ask of one: every answer of it was a 500."""
    load = importlib.import_module("load")
    bundle = "efficientnet-lite0-tiny"
    device = Device(bundle)
    packets = [device.encode(Image.open(io.BytesIO(PHOTOGRAPHS[0].read())), level=level) for level in (0, 1)]
    port, expected = servers.free_port(), [dict(Edge(bundle).answer(packet)) for packet in packets]
    plain = servers.Unbatched(port, bundle, threads=1, log=tmp_path / "log")
    try:
        ms = asyncio.run(load._turns((port, port), load.Job(port, packets, expected, 2, 1), 3))
    finally:
        plain.stop()
    assert [len(one) for one in ms] == [3, 3]
    assert min(*ms[0], *ms[1]) > 0


def test_the_log_s_last_line_is_told(servers: ModuleType) -> None:
    def failing(written: bytes, error: Exception) -> Callable[[Path], None]:
        def work(log: Path) -> None:
            log.write_bytes(written)
            raise error

        return work

    for written, last in (
        (b"", "nothing"),
        (b"first\nlast \xff\n\n", "last \ufffd"),
        (b"x" * 999, "x" * 400),
        (BOX, "no such"),
    ):
        assert told(servers, failing(written, SettingsError("no"))) == f"no; the server's log ends in: {last}"
    gone = failing(b"end", FileNotFoundError(2, "gone", "/proc/1/stat"))
    assert told(servers, gone) == "[Errno 2] gone: '/proc/1/stat'; the server's log ends in: end"
    assert told(servers, failing(b"end", EOFError("0 bytes read"))) == "0 bytes read; the server's log ends in: end"


def test_a_run_that_ends_between_two_looks_at_memory_is_told(servers: ModuleType) -> None:
    """`--requests 20` ended in a traceback: the only look came before the first answers."""
    assert servers
    load = importlib.import_module("load")
    told = load._memory_mb([(0, 3_000_000), (20, 5_000_000)], 20)
    assert told == {"after_first_thousand": 5.0, "lowest": 5.0, "highest": 5.0, "last": 5.0, "moved_percent": 0.0}
    assert load._memory_mb([(0, 3_000_000)], 20)["last"] == 3.0
    assert load._memory_mb([(0, 1), (1000, 2_000_000), (3000, 2_100_000)], 4000)["moved_percent"] == 5.0


def test_a_nought_among_the_options_is_part_of_the_command(servers: ModuleType) -> None:
    """`latency.py --within 0` left a command without it, which measures at teacher - 3."""
    assert servers
    report = importlib.import_module("report")
    options = Namespace(within=0.0, quality=0, most=5, check_link=False, photos=None, rivals=[], plain=True)
    assert report.command("x.py", options) == "python benchmarks/x.py --within 0.0 --quality 0 --most 5 --plain"


@pytest.mark.parametrize(
    ("share", "coding", "said", "unsaid"),
    [(0.84, {}, "missed. Packets here are coded by context", " met"), (0.86, {"coding": 0}, ", met.", "by context")],
)
def test_the_page_says_whether_the_target_is_met(
    share: float, coding: dict[str, int], said: str, unsaid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gave 67 %, and nobody saw that 85 were wanted, nor why it had been 94."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    target = importlib.import_module("loading.page")._target
    told = " ".join(target({"ratio": {"cpu": share, "wall": 0.6}, **coding}))
    assert told.startswith("Target: 85 % of raw ONNX Runtime, ")
    assert said in told
    assert unsaid not in told
