"""The edge server under load, on this machine: latency, throughput against raw ONNX Runtime, memory, kill -9.

    python benchmarks/load.py --requests 20000 --clients 64 --cores 0 --out reports/load.json

Starts `splitcodec serve` as a process and generators as others, sends packets of several photographs at all levels, and
holds every answer against the in-process path. Raw ONNX Runtime runs the same graphs before and after, on the same
cores. Ends with 1 if an answer was lost, wrong or crossed. `make results` turns the report into docs/load.md.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from outcome import exit_code

import numpy as np
from PIL import Image

from loading.clients import Generators, Job, Told, ask, differs
from loading.options import check, command, parsed
from loading.raw import Raw
from loading.servers import Served, Unbatched, cpu_s, free_port, get, logged, resident_bytes, scrape
from report import save
from splitcodec import Device, Edge
from splitcodec.ahead import cores
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.edge.decoder import Decoder
from splitcodec.edge.scrape import Scrape, summary
from splitcodec.errors import DataError, OutputError
from splitcodec.evaluation.machine import commit, machine
from splitcodec.evaluation.output import write_whole
from splitcodec.wire.bundle import open_bundle
from splitcodec.wire.packet import unpack

SETTLED = 1000  # answers after which memory must stay as it is
_UNLIMITED = ("--requests-per-s", "0", "--symbols-per-s", "0")


def main() -> int:
    """Measure, write and print; returns the exit code: 0, 1 for a wrong answer, 2 for what is refused, 130."""
    options = parsed(__doc__)
    return exit_code(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> int:
    check(options)
    bundle = open_bundle(options.bundle)
    edge = Edge(bundle, threads=1)
    device = Device(bundle, threads=1, coding=options.coding)
    packets = _packets(device)
    expected: list[dict[str, Any]] = [dict(edge.answer(packet)) for packet in packets]
    _check_apart(expected)
    decoder = Decoder(bundle, threads=1)
    latents = [decoder.latent_chw(decoder.symbols(one), one.level) for one in map(unpack, packets)]
    raw = Raw(bundle, latents, threads=tuple(sorted({1, cores()})))
    job = Job(free_port(), packets, expected, requests=options.requests, clients=options.clients)
    with logged() as log:
        raw.round(seconds=options.raw_seconds / 2)
        loaded, metrics = _load(job, options, log)
        raw.round(seconds=options.raw_seconds / 2)
        alone = _one_at_a_time(job, options, log)
        killed = _killed(job, options, log)
    report = {
        "command": command(options),
        "commit": commit(),
        "machine": machine(),
        "load_average": [round(one, 1) for one in os.getloadavg()],
        "bundle": bundle.ident,
        "packets": len(packets),
        "coding": device.coding,
        "load": loaded,
        "raw": raw.rows(),
        "ratio": _ratios(loaded, raw.rows()),
        "one_at_a_time": alone,
        "killed": killed,
    }
    save(report, options.out)
    write_whole(options.out.parent, {f"{options.out.stem}_metrics.txt": metrics})
    print(json.dumps({name: report[name] for name in ("load", "ratio", "one_at_a_time", "killed")}, indent=1))
    wrong = [*loaded["wrong"], *killed["wrong"]]
    print("\n".join(wrong) or "every answer came, and was the right one", file=sys.stderr)
    return 1 if wrong or killed["doubled"] else 0


def _packets(device: Device) -> list[bytes]:
    """Return packets of every shipped photograph and its mirror image, at all levels."""
    packets = []
    for photograph in PHOTOGRAPHS:
        with Image.open(io.BytesIO(photograph.read())) as opened:
            picture = opened.convert("RGB")
        for one in (picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
            packets += [device.encode(one, level=level) for level in range(device.bundle.manifest.levels)]
    return packets


def _check_apart(expected: list[dict[str, Any]]) -> None:
    """See to it that an answer to another packet would be noticed. Raises DataError."""
    for one, other in combinations(expected, 2):
        if not differs(one, other):
            raise DataError("two packets have the same answer: crossed answers would not be seen; take another bundle")


def _server(port: int, options: argparse.Namespace, log: Path) -> Served:
    sizes = ("--threads", options.threads, "--workers", options.workers, "--max-batch", options.max_batch)
    return Served(port, "-b", options.bundle, *map(str, sizes), *_UNLIMITED, "--log", "json", log=log)


def _load(job: Job, options: argparse.Namespace, log: Path) -> tuple[dict[str, Any], bytes]:
    server = _server(job.port, options, log)
    generators = Generators(job, processes=options.generators)
    generators.go()
    before, cpu = scrape(job.port), cpu_s(server.pid)
    memory: list[tuple[int, int]] = []
    while generators.running:
        memory.append((generators.done.value, resident_bytes(server.pid)))
        time.sleep(0.25)
    spent = cpu_s(server.pid) - cpu
    told = generators.told()
    memory.append((generators.done.value, resident_bytes(server.pid)))  # a short run has ended since the first look
    metrics = get(job.port, "/metrics")
    figures = summary(scrape(job.port), Scrape(before.when, before.samples))
    code = server.stop()
    return {
        **_told(told, job.requests),
        "clients": job.clients,
        "generators": options.generators,
        "server": {"threads": options.threads, "workers": options.workers, "max_batch": options.max_batch},
        "exit_code": code,
        "server_cpu_s": round(spent, 2),
        "per_server_cpu_s": round(job.requests / spent, 2),
        "generator_cpu_s": round(told.cpu_s, 2),
        "memory_mb": _memory_mb(memory, job.requests),
        "batch_mean": figures["batch_mean"],
        "stages_ms": {stage: one["mean"] for stage, one in figures["stages_ms"].items()},
    }, metrics


def _memory_mb(looks: list[tuple[int, int]], requests: int) -> dict[str, float]:
    """Return how memory moved, in looks of (answers until then, bytes), once it should stay as it is."""
    settled = [size for done, size in looks if done >= min(SETTLED, requests // 4)] or [looks[-1][1]]
    return {
        "after_first_thousand": round(settled[0] / 1e6, 1),
        "lowest": round(min(settled) / 1e6, 1),
        "highest": round(max(settled) / 1e6, 1),
        "last": round(settled[-1] / 1e6, 1),
        "moved_percent": round(100 * max(abs(size / settled[0] - 1) for size in settled), 2),
    }


def _told(told: Told, requests: int) -> dict[str, Any]:
    milliseconds = 1000 * np.array(told.latency_s or [np.nan])
    missing = sorted(set(range(requests)) - set(told.finished))
    doubled = len(told.finished) - len(set(told.finished))
    return {
        "requests": requests,
        "answered": len(set(told.finished)),
        "doubled": doubled,
        "wrong": [*told.wrong[:20], *(f"request {turn}: lost" for turn in missing[:20])],
        "retries": dict(told.retries),
        "wall_s": round(told.wall_s, 2),
        "per_s": round(len(told.finished) / told.wall_s, 2),
        "ms": {f"p{share}": round(float(np.percentile(milliseconds, share)), 2) for share in (50, 95, 99, 100)},
        "answer_bytes_mean": round(told.answer_bytes / max(1, len(told.finished)), 1),
        "packet_bytes_mean": round(told.packet_bytes / max(1, len(told.finished)), 1),
    }


def _ratios(loaded: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the server's throughput over raw ONNX Runtime's best, by wall and by processor time."""
    wall, cpu = (max(rows, key=lambda row: float(row[name])) for name in ("per_s", "per_cpu_s"))
    free_s = loaded["wall_s"] - loaded["generator_cpu_s"] / cores()
    return {
        "wall": round(loaded["per_s"] / wall["per_s"], 3),
        "wall_without_generators": round(loaded["answered"] / free_s / wall["per_s"], 3),
        "cpu": round(loaded["per_server_cpu_s"] / cpu["per_cpu_s"], 3),
        "best_by_wall": wall,
        "best_by_cpu": cpu,
    }


def _one_at_a_time(job: Job, options: argparse.Namespace, log: Path) -> dict[str, Any]:
    """Ask the server and the same without its batcher in turns, so that what else the machine does hits both."""
    batched, port = _server(job.port, options, log), free_port()
    plain = Unbatched(port, options.bundle, threads=options.threads, log=log)
    try:
        cpu = [cpu_s(batched.pid), cpu_s(plain.pid)]
        ms = asyncio.run(_turns((job.port, port), job, options.alone))
        spent = [cpu_s(batched.pid) - cpu[0], cpu_s(plain.pid) - cpu[1]]
    finally:
        batched.stop()
        plain.stop()
    told = {
        name: {
            **{f"p{share}": round(float(np.percentile(one, share)), 3) for share in (5, 50, 95)},
            "server_cpu_ms": round(1000 * used / len(one), 3),
        }
        for name, one, used in zip(("batcher", "without"), ms, spent, strict=True)
    }
    adds = {share: round(told["batcher"][share] - told["without"][share], 3) for share in ("p5", "p50")}
    return {"requests": options.alone, "ms": told, "batcher_adds_ms": adds}


async def _turns(ports: tuple[int, int], job: Job, count: int) -> tuple[list[float], list[float]]:
    lines = [await asyncio.open_connection("127.0.0.1", port) for port in ports]
    ms: tuple[list[float], list[float]] = ([], [])
    for turn in range(-20, count):  # the first are for warming up
        for which in (0, 1) if turn % 2 else (1, 0):
            begin = time.perf_counter()
            status, _, body = await ask(*lines[which], job.packets[turn % len(job.packets)], ident="alone")
            spent = 1000 * (time.perf_counter() - begin)
            if status != 200 or differs(json.loads(body), job.expected[turn % len(job.packets)]):
                raise OutputError(f"one at a time: {status} {body[:200]!r}")
            if turn >= 0:
                ms[which].append(spent)
    for _, writer in lines:
        writer.close()
    return ms


def _killed(job: Job, options: argparse.Namespace, log: Path, *, times: int = 2) -> dict[str, Any]:
    """Kill the server under load and start it again; clients ask again under the keys of their packets."""
    keyed = Job(job.port, job.packets, job.expected, options.kill_requests, job.clients, keys="load-")
    server = _server(job.port, options, log)
    generators = Generators(keyed, processes=options.generators)
    generators.go()
    killed_at = []
    for kill in range(times):
        _wait_for(generators, (kill + 1) * options.kill_requests // (times + 1))
        server.kill()
        killed_at.append(generators.done.value)
        with generators.life.get_lock():
            generators.life.value += 1
        server = _server(job.port, options, log)
    told = generators.told()
    figures = scrape(job.port)
    with _again(job.port, keyed, told) as replayed:
        code = server.stop()
    computed = int(figures.sum("splitcodec_answers_total"))
    return {
        **_told(told, options.kill_requests),
        "killed_after": killed_at,
        "exit_code": code,
        "last_life_computed": computed,
        "last_life_answered": told.fresh[times],
        "last_life_replayed": told.replayed[times],
        "asked_again_same_bytes": replayed,
        "doubled": len(told.finished) - len(set(told.finished)) + max(0, computed - told.fresh[times]),
    }


def _wait_for(generators: Generators, count: int) -> None:
    while generators.running and generators.done.value < count:
        time.sleep(0.01)


@contextmanager
def _again(port: int, job: Job, told: Told) -> Iterator[int]:
    """Send the last fifty packets twice more under their keys; yield how many were replayed alike, byte for byte."""

    async def main() -> int:
        line = await asyncio.open_connection("127.0.0.1", port)
        same = 0
        for turn in told.finished[-50:]:
            packet = job.packets[turn % len(job.packets)]
            first, second = [await ask(*line, packet, ident="again", key=f"{job.keys}{turn}") for _ in range(2)]
            same += first[2] == second[2] and all(
                b"\r\nidempotency-replayed: true" in one[1] for one in (first, second)
            )
        line[1].close()
        return same

    yield asyncio.run(main())


if __name__ == "__main__":
    sys.exit(main())
