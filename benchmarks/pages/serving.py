"""Blocks of docs/deploy.md and docs/server.md: how much of the server, and what tasks cost.   used by: blocks.py"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pages.marked import table
from splitcodec.edge.settings import default_settings
from splitcodec.errors import DataError

ALL = "classify,detect,segment"


def sizing(
    report: Mapping[str, Any], *, metrics: str, cost: Mapping[str, Any], latency: Mapping[str, Any]
) -> list[str]:
    """Return what a core answers, and what a request takes.

    `report` is reports/load.json and `metrics` reports/load_metrics.txt of the same run; `cost` is
    reports/task_cost.json, `latency` reports/latency.json, which counted the heads of the device's link.
    """
    load, alone, heads = report["load"], report["one_at_a_time"]["ms"]["batcher"], latency["overhead"]
    rate, queue = load["per_server_cpu_s"], default_settings().max_queue
    rows = [
        ("requests per second and core, saturated", f"{rate:.0f}"),
        ("the same in symbols, as `symbols_per_s` counts them", f"{round(rate * _symbols(metrics), -4):,.0f}"),
        ("cores for 1,000 requests a second at 70 % load", f"{1000 / rate / 0.7:.0f}"),
        (f"a full queue (`--max-queue {queue}`) on one core", f"{queue / rate:.1f} s"),
        ("one request alone, processor time", f"{alone['server_cpu_ms']:.0f} ms"),
        (f"a crop asked `{ALL}`, processor time", f"{_of_crop(cost):.1f} times that of `classify`"),
        ("memory of one process", f"{load['memory_mb']['highest']:.0f} MB"),
        ("bytes in: mean packet over all levels", f"{load['packet_bytes_mean']:,.0f}"),
        ("bytes out: mean answer (top 5)", f"{load['answer_bytes_mean']:,.0f}"),
        ("bytes of HTTP heads, in and out, of the device's own link", f"{heads['request_head_bytes']}, {_out(heads)}"),
        ("network in for 1,000 requests a second, bodies alone", f"{load['packet_bytes_mean'] * 8 / 1000:.1f} Mbit/s"),
    ]
    return table(("what", "measured"), rows)


def cost(report: Mapping[str, Any]) -> list[str]:
    """Return what tasks cost against classification, out of reports/task_cost.json."""
    least, most = _range(report, "detect")
    segment, three = (
        f"{low:.1f} to {high:.1f}" for (low, _), (high, _) in (_range(report, tasks) for tasks in ("segment", ALL))
    )
    return [
        f"With `{report['bundle']}`, in processor time on one thread against classification of the same packet, "
        f"`detect` took {least[0]:.1f} ({least[1]} places) to {most[0]:.1f} times ({most[1]}),",
        f"`segment` {segment}, all three {three} (`benchmarks/task_cost.py`, `reports/task_cost.json`).",
    ]


def _range(report: Mapping[str, Any], tasks: str) -> tuple[tuple[float, str], tuple[float, str]]:
    """Return the smallest and the largest ratio to classification, each with its grid."""
    found = [(float(one["times_classify"][tasks]), str(one["grid"])) for one in report["grids"]]
    return min(found), max(found)


def _of_crop(report: Mapping[str, Any]) -> float:
    """Return the ratio of the smallest grid, which is a crop's."""
    ratio: float = report["grids"][0]["times_classify"][ALL]
    return ratio


def _symbols(metrics: str) -> float:
    """Return the symbols of a packet, on average, that a server counted. Raises DataError."""
    total, packets = (
        re.search(rf"^splitcodec_{name} (\S+)$", metrics, re.M) for name in ("symbols_total", "packet_bytes_count")
    )
    if total is None or packets is None:
        raise DataError(
            "reports/load_metrics.txt: the server's metrics do not say how many symbols came in how many packets; "
            "have benchmarks/load.py write it again"
        )
    return float(total[1]) / float(packets[1])


def _out(heads: Mapping[str, Any]) -> str:
    return str(heads["response_head_bytes"])
