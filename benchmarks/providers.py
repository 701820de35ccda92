"""What runs the graphs, timed against the processor: other execution providers of ONNX Runtime, one after another.

    OTHER/bin/python benchmarks/providers.py --providers openvino --out reports/providers.json

OTHER is an environment whose build of ONNX Runtime has them (docs/device.md). Each runs in a process of its own, cpu
and the others in turns; of each stage the least of the turns' medians counts, on the clock, one thread where the
provider can be told. The demo's photographs are encoded at every level, in fp32 and INT8, and their packets answered:
how many packets and first guesses are those of the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from outcome import exit_code

from report import at_least_one, pictures_of, ready, write
from splitcodec.cli.show import print_table
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import SettingsError
from splitcodec.session import CPU, PROVIDERS, runtime_version
from splitcodec.wire.bundle import open_bundle

STAGES = {"encoder": "encoder, fp32", "encoder_int8": "encoder, INT8", "decoder": "decoder", "tail": "tail"}
REPEATS = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--providers", default="openvino", metavar="NAME,...")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("reports/providers.json"), metavar="FILE")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # what the processes are told
    options = parser.parse_args(arguments)
    if options.alone:
        print(json.dumps(alone(options.bundle)))
        return 0
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    at_least_one("--turns", options.turns)
    ready(options.out)
    others = [name.strip() for name in options.providers.split(",") if name.strip()]
    report = measure(options.bundle, others=others, turns=options.turns)
    write(report, options.out, name="providers.py", options=options)
    rows = [
        (name, *(f"{ms:.2f}" for ms in one["ms"].values()), one["packets_equal"]["encoder"], one["guesses_equal"])
        for name, one in report["providers"].items()
    ]
    stages = report["providers"][CPU]["ms"]
    titles = ("provider", *(f"{STAGES[stage]}, ms" for stage in stages), "packets as cpu, %", "guesses, %")
    print_table(f"{report['bundle']}, ONNX Runtime {report['runtime']}", titles, rows)


def measure(bundle: str, *, others: Sequence[str], turns: int) -> dict[str, Any]:
    """Return the report. Raises SettingsError for a provider that is not there or does not start."""
    names = [CPU, *(name for name in others if name != CPU)]
    came: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(turns):
        for name in names:
            came[name].append(_told(bundle, name))
    base = came[CPU][0]
    return {
        "bundle": open_bundle(bundle).ident,
        "runtime": base["runtime"],
        "turns": turns,
        "photographs": base["photographs"],
        "packets": len(base["guesses"]),
        "providers": {
            name: {
                "runtime": runs[0]["runtime"],
                "ms": {stage: round(min(one["ms"][stage] for one in runs), 3) for stage in base["ms"]},
                "packets_equal": {
                    stage: _share(runs[0]["packets"][stage], packets) for stage, packets in base["packets"].items()
                },
                "guesses_equal": _share(runs[0]["guesses"], base["guesses"]),
                "largest_difference": max(
                    abs(a - b) for a, b in zip(runs[0]["probabilities"], base["probabilities"], strict=True)
                ),
            }
            for name, runs in came.items()
        },
    }


def alone(bundle: str) -> dict[str, Any]:
    """Return what one process measures on whatever its environment names."""
    opened = open_bundle(bundle)
    devices = {"encoder": Device(opened, threads=1)}
    if opened.has("encoder.int8.onnx"):
        devices["encoder_int8"] = Device(opened, encoder="int8", threads=1)
    edge, pictures = Edge(opened, threads=1), pictures_of(None, most=5)
    packets = {
        stage: [device.encode(picture, level=level) for picture in pictures for level in range(opened.manifest.levels)]
        for stage, device in devices.items()
    }
    guesses = [edge.answer(packet)["answers"]["classify"][0] for packet in packets["encoder"]]
    crop = devices["encoder"].crop(pictures[0])
    packet = packets["encoder"][opened.manifest.default_level]
    answered = [edge.answer(packet)["ms"] for _ in range(REPEATS)]
    return {
        "runtime": runtime_version(),
        "photographs": len(pictures),
        "ms": {
            **{stage: _median(partial(device.encoder.latent_chw, crop)) for stage, device in devices.items()},
            **{stage: statistics.median(one[stage] for one in answered) for stage in ("decoder", "tail")},
        },
        "packets": {stage: [one.hex() for one in made] for stage, made in packets.items()},
        "guesses": [guess["index"] for guess in guesses],
        "probabilities": [guess["p"] for guess in guesses],
    }


def _median(work: Callable[[], object]) -> float:
    """Return the median milliseconds of a call."""
    spent = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        work()
        spent.append(1000 * (time.perf_counter() - begin))
    return statistics.median(spent)


def _told(bundle: str, name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--alone", "--bundle", bundle]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {PROVIDERS: name})
    if done.returncode:
        raise SettingsError(f"{name}: {(done.stderr.strip().splitlines() or ['it ended without a word'])[-1]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _share(some: Sequence[object], others: Sequence[object]) -> float:
    """Return how many per cent are equal."""
    return round(100 * sum(a == b for a, b in zip(some, others, strict=True)) / len(others), 2)


if __name__ == "__main__":
    sys.exit(main())
