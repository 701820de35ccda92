"""Load generators: processes of clients that ask a server in a closed loop and check every answer.   used by: load.py

Plain HTTP/1.1 over asyncio streams, so that the generators cost little beside the server. A client that loses its
server asks again under the same idempotency key until it has an answer.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import multiprocessing
import resource
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from outcome import deaf

from splitcodec.errors import OutputError

TOLERANCE = 1e-6  # of probabilities; docs/server.md says why batches may differ in the last bits
GIVE_UP_S = 120.0  # a request that is not answered by then is lost
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Job:
    """What one generator does: requests `first`, `first + step`, ... below `requests`, from `clients` connections."""

    port: int
    packets: list[bytes]
    expected: list[dict[str, Any]]
    requests: int
    clients: int
    first: int = 0
    step: int = 1
    keys: str = ""  # before idempotency keys; none: no keys


@dataclass
class Told:
    """What one generator saw. `fresh` and `replayed` count answers by the server's life in which they came."""

    latency_s: list[float] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    fresh: Counter[int] = field(default_factory=Counter)
    replayed: Counter[int] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    answer_bytes: int = 0
    packet_bytes: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0


class Generators:
    """Some generator processes; `done` counts answers while they run, `life` is the server's, for those who kill it."""

    def __init__(self, job: Job, *, processes: int) -> None:
        self.done: Synchronized[int] = _CONTEXT.Value("q", 0)
        self.life: Synchronized[int] = _CONTEXT.Value("q", 0)
        self._start = _CONTEXT.Barrier(processes + 1)
        self._told = _CONTEXT.SimpleQueue()
        share = [job.clients // processes + (n < job.clients % processes) for n in range(processes)]
        self._processes: list[SpawnProcess] = [
            _CONTEXT.Process(
                target=_generate,
                args=(_part(job, n, processes, clients), self.done, self.life, self._start, self._told),
                daemon=True,
            )
            for n, clients in enumerate(share)
        ]
        with deaf():
            for process in self._processes:
                process.start()
            atexit.register(self.end)  # whatever ends the benchmark; what they share is there until then

    def end(self) -> None:
        """End all that still ask."""
        for process in self._processes:
            process.terminate()

    def go(self) -> None:
        """Wait until all have started, then let them begin together."""
        self._start.wait(120)

    @property
    def running(self) -> bool:
        """Say whether any still asks."""
        return any(process.is_alive() for process in self._processes) and self._told.empty()

    def told(self) -> Told:
        """Wait for all, return what they saw together; `wall_s` is the longest, `cpu_s` the sum. Raises OutputError."""
        whole = Told()
        for _ in self._processes:
            while self._told.empty():
                if any(process.exitcode for process in self._processes):
                    raise OutputError("a load generator failed; what it says is above")
                time.sleep(0.01)
            one: Told = self._told.get()
            whole.latency_s += one.latency_s
            whole.finished += one.finished
            whole.wrong += one.wrong
            whole.fresh += one.fresh
            whole.replayed += one.replayed
            whole.retries += one.retries
            whole.answer_bytes += one.answer_bytes
            whole.packet_bytes += one.packet_bytes
            whole.cpu_s += one.cpu_s
            whole.wall_s = max(whole.wall_s, one.wall_s)
        for process in self._processes:
            process.join()
        return whole


def differs(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Say whether an answer is another than the in-process one: bundle, level, classes, probabilities."""
    if (answer["bundle"], answer["level"]) != (expected["bundle"], expected["level"]):
        return True
    came, wanted = answer["answers"]["classify"], expected["answers"]["classify"]
    if [(one["index"], one["label"]) for one in came] != [(one["index"], one["label"]) for one in wanted]:
        return True
    return any(abs(one["p"] - other["p"]) > TOLERANCE for one, other in zip(came, wanted, strict=True))


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, packet: bytes, *, ident: str, key: str = ""
) -> tuple[int, bytes, bytes]:
    """Return (status, head in lower case, body) of one request."""
    keyed = f"idempotency-key: {key}\r\n" if key else ""
    head = (
        f"POST /v1/answer HTTP/1.1\r\nhost: x\r\nx-request-id: {ident}\r\n{keyed}content-length: {len(packet)}\r\n\r\n"
    )
    writer.write(head.encode() + packet)
    came = (await reader.readuntil(b"\r\n\r\n")).lower()
    size = int(came.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
    return int(came[9:12]), came, await reader.readexactly(size)


def _part(job: Job, n: int, processes: int, clients: int) -> Job:
    return Job(job.port, job.packets, job.expected, job.requests, clients, first=n, step=processes, keys=job.keys)


def _generate(job: Job, done: Any, life: Any, start: Any, queue: Any) -> None:
    told = Told()
    start.wait(120)
    before, begin = _cpu_s(), time.perf_counter()
    asyncio.run(_all(job, done, life, told))
    told.cpu_s, told.wall_s = _cpu_s() - before, time.perf_counter() - begin
    queue.put(told)


async def _all(job: Job, done: Any, life: Any, told: Told) -> None:
    turns = iter(range(job.first, job.requests, job.step))
    await asyncio.gather(*(_client(job, turns, done, life, told) for _ in range(job.clients)))


async def _client(job: Job, turns: Iterator[int], done: Any, life: Any, told: Told) -> None:
    line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    lived = 0
    for turn in turns:
        which = turn % len(job.packets)
        ident, key = f"load-{turn}", f"{job.keys}{turn}" if job.keys else ""
        begin = time.perf_counter()
        while True:
            try:
                if line is None:
                    now = life.value
                    line = await asyncio.open_connection("127.0.0.1", job.port)
                    lived = now
                status, head, body = await asyncio.wait_for(
                    ask(*line, job.packets[which], ident=ident, key=key), timeout=30
                )
                trouble = "" if status == 200 else f"status {status}"
            except (OSError, EOFError, TimeoutError) as error:
                trouble = type(error).__name__
                if line is not None:
                    line[1].close()
                    line = None
            if not trouble:
                break
            told.retries[trouble] += 1
            if time.perf_counter() - begin > GIVE_UP_S or trouble.startswith("status 4"):
                told.wrong.append(f"request {turn}: {trouble}")
                return
            await asyncio.sleep(0.2)
        told.latency_s.append(time.perf_counter() - begin)
        _check(job, turn, head, body, told)
        again = b"\r\nidempotency-replayed: true\r\n" in head
        (told.replayed if again else told.fresh)[lived] += 1
        told.answer_bytes += len(body)
        told.packet_bytes += len(job.packets[which])
        with done.get_lock():
            done.value += 1
    if line is not None:
        line[1].close()
        with contextlib.suppress(OSError):
            await line[1].wait_closed()


def _check(job: Job, turn: int, head: bytes, body: bytes, told: Told) -> None:
    told.finished.append(turn)
    if f"\r\nx-request-id: load-{turn}\r\n".encode() not in head:
        told.wrong.append(f"request {turn}: another request's answer")
    elif differs(json.loads(body), job.expected[turn % len(job.packets)]):
        told.wrong.append(f"request {turn}: {body[:200]!r}")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
