"""What a packet costs the edge by what is asked of it: processor time on one thread against its classification.

    python benchmarks/task_cost.py [--bundle B] --out reports/task_cost.json

The demo's photographs are sent as a crop and, letterboxed, at --sides; each packet is answered for every set of tasks
in turns, so that a busy moment hits all of them. Of each the median over pictures of the fastest turn counts, in
processor time (`time.process_time`: what other programs take is not counted).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outcome import exit_code

from report import at_least_one, pictures_of, ready, write
from splitcodec.cli.show import print_table
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import SettingsError
from splitcodec.wire.bundle import Bundle, open_bundle
from splitcodec.wire.packet import unpack


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--sides", default="384,704", metavar="N,...", help="longest sides in pixels of letterboxes")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("reports/task_cost.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    at_least_one("--turns", options.turns)
    ready(options.out)
    report = measure(open_bundle(options.bundle), sides=_sides(options.sides), turns=options.turns)
    write(report, options.out, name="task_cost.py", options=options)
    rows = [
        (one["grid"], tasks, f"{ms:.1f}", f"{one['times_classify'][tasks]:.2f}")
        for one in report["grids"]
        for tasks, ms in one["ms"].items()
    ]
    print_table(f"{report['bundle']}, one thread", ("places", "tasks", "ms", "times classify"), rows)


def measure(bundle: Bundle, *, sides: Sequence[int], turns: int) -> dict[str, Any]:
    """Return the report. Raises SettingsError for a bundle with no task beside classification."""
    others = [task for task in bundle.manifest.tasks if task != "classify"]
    if not others:
        raise SettingsError(f"{bundle.ident} has no task beside classification; give a bundle that has")
    asked = [("classify",), *((task,) for task in others), ("classify", *others)]
    device, edge = Device(bundle, threads=1), Edge(bundle, threads=1)
    pictures = pictures_of(None, most=5)
    grids: dict[tuple[int, int], list[bytes]] = {}
    for picture in pictures:
        packets = [device.encode(picture), *(device.encode(picture, fit="letterbox", side=side) for side in sides)]
        for packet in packets:
            found = unpack(packet)
            grids.setdefault((found.rows, found.cols), []).append(packet)
    rows = []
    for grid, packets in sorted(grids.items(), key=lambda item: item[0][0] * item[0][1]):
        best = [{tasks: float("inf") for tasks in asked} for _ in packets]
        for _ in range(turns):
            for packet, least in zip(packets, best, strict=True):
                for tasks in asked:
                    begin = time.process_time()
                    edge.answer(packet, tasks=tasks)
                    least[tasks] = min(least[tasks], 1000 * (time.process_time() - begin))
        ms = {",".join(tasks): statistics.median(least[tasks] for least in best) for tasks in asked}
        rows.append(
            {
                "grid": f"{grid[0]} x {grid[1]}",
                "packets": len(packets),
                "ms": {tasks: round(value, 3) for tasks, value in ms.items()},
                "times_classify": {tasks: round(value / ms["classify"], 3) for tasks, value in ms.items()},
            }
        )
    return {"bundle": bundle.ident, "turns": turns, "grids": rows}


def _sides(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",") if one.strip()]
    except ValueError:
        raise SettingsError(f"--sides {text!r}; expected numbers of pixels, such as 384,704") from None


if __name__ == "__main__":
    sys.exit(main())
