"""The options of load.py: which there are, which make no sense, and the command that repeats a run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from report import at_least_one, ready
from splitcodec.errors import SettingsError


def parsed(description: str | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--coding", type=int, help="coding id of the packets; default: the bundle's own")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--generators", type=int, default=2, help="processes that the clients are spread over")
    parser.add_argument("--cores", help="run everything on these cores, for instance 0 or 0,1; default: all")
    parser.add_argument("--threads", type=int, default=1, help="of the server, per graph")
    parser.add_argument("--workers", type=int, default=2, help="of the server")
    parser.add_argument("--max-batch", type=int, default=16, help="of the server")
    parser.add_argument("--raw-seconds", type=float, default=6.0, help="for each setting of raw ONNX Runtime")
    parser.add_argument("--alone", type=int, default=300, help="requests one at a time, for each server")
    parser.add_argument("--kill-requests", type=int, default=3000, help="requests while the server is killed twice")
    parser.add_argument("--out", type=Path, default=Path("reports/load.json"))
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    """Refuse now what would fail after minutes; take the cores. Raises SettingsError, OutputError."""
    counts = ("requests", "clients", "generators", "threads", "workers", "max_batch", "alone", "kill_requests")
    for name in counts:
        at_least_one(f"--{name.replace('_', '-')}", getattr(options, name))
    if not 0 < options.raw_seconds < float("inf"):
        raise SettingsError(f"--raw-seconds {options.raw_seconds}; expected more than 0")
    ready(options.out)
    if options.cores:
        try:
            os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
        except (OSError, ValueError):
            here = ",".join(map(str, sorted(os.sched_getaffinity(0))))
            raise SettingsError(f"--cores {options.cores!r:.60}; this machine has {here}") from None


def command(options: argparse.Namespace) -> str:
    """Return the command without the place of its report."""
    told = {name: value for name, value in vars(options).items() if name != "out" and value is not None}
    return " ".join(
        ["python benchmarks/load.py", *(f"--{name.replace('_', '-')} {value}" for name, value in told.items())]
    )
