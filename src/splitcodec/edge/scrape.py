"""Beside metrics.py: what /metrics says, read back and told in a few numbers.   asked by: `splitcodec top`"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from splitcodec.errors import LinkGarbled

_SAMPLE = re.compile(r"(splitcodec_\w+|process_\w+)(?:\{([^}]*)\})? ([0-9.eE+-]+|[+-]?Inf|NaN)")
_LABEL = re.compile(r'(?<!\w)(\w+)="((?:[^"\\]|\\.)*)"')
_LARGEST = 1e18
_BEGAN = "process_start_time_seconds"
STAGES = ("read", "queue", "decode", "decoder", "tail", "backbone", "detect", "segment", "total")
"""What is timed, in the order in which it is shown."""

Labels = tuple[tuple[str, str], ...]


@final
@dataclass(frozen=True, slots=True)
class Scrape:
    """The samples of one look at /metrics, and when it was (seconds, any clock that does not jump)."""

    when: float
    samples: Mapping[tuple[str, Labels], float]

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.samples.items() if found == name and wanted <= set(has))

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return a metric's samples, summed by one label."""
        found: dict[str, float] = {}
        for (one, labels), value in self.samples.items():
            if one == name and (key := dict(labels).get(label)) is not None:
                found[key] = found.get(key, 0.0) + value
        return found


def parse_metrics(text: str, *, when: float) -> Scrape:
    """Return the samples in Prometheus' text format. Raises LinkGarbled where there is none of ours."""
    samples: dict[tuple[str, Labels], float] = {}
    for line in text.splitlines():
        if (match := _SAMPLE.fullmatch(line.strip())) and abs(value := _number(match[3])) <= _LARGEST:
            samples[match[1], tuple(_LABEL.findall(match[2] or ""))] = value
    if not any(name == "splitcodec_ready" for name, _ in samples):
        raise LinkGarbled("no metrics of an edge; check the address, and that `splitcodec serve` is running there")
    return Scrape(when, samples)


def summary(now: Scrape, before: Scrape | None = None) -> dict[str, Any]:
    """Return the numbers of an edge: since `before`, or (none) since it started.

    Of an edge that began anew since, all that it did counts. Rates are per second (None without `before`), stages in
    milliseconds: mean, and the bound below which 95 % lie (read off the histogram, None above its last bound), memory
    in bytes.
    """
    past = before or Scrape(now.when, {})
    if now.sum(_BEGAN) != past.sum(_BEGAN):
        past = Scrape(past.when, {})
    seconds = now.when - past.when

    def grown(name: str, **labels: str) -> float:
        return now.sum(name, **labels) - past.sum(name, **labels)

    def rate(name: str, **labels: str) -> float | None:
        return round(grown(name, **labels) / seconds, 3) if seconds > 0 else None

    def grown_by(name: str, label: str) -> dict[str, int]:
        earlier = past.by(name, label)
        return {key: int(value - earlier.get(key, 0)) for key, value in sorted(now.by(name, label).items())}

    batches = grown("splitcodec_batch_size_count")
    refusals = grown_by("splitcodec_refusals_total", "reason")
    return {
        "ready": now.sum("splitcodec_ready") == 1,
        "seconds": round(seconds, 3) if before else None,
        "answers": grown_by("splitcodec_answers_total", "bundle"),
        "answers_per_s": rate("splitcodec_answers_total"),
        "requests": grown_by("splitcodec_requests_total", "status"),
        "requests_per_s": rate("splitcodec_requests_total"),
        "refusals": {reason: count for reason, count in refusals.items() if count},
        "replays": int(grown("splitcodec_replays_total")),
        "received_bytes": int(grown("splitcodec_received_bytes_total")),
        "sent_bytes": int(grown("splitcodec_sent_bytes_total")),
        "batch_mean": round(grown("splitcodec_batch_size_sum") / batches, 2) if batches else None,
        "queue_depth": int(now.sum("splitcodec_queue_depth")),
        "batches_running": int(now.sum("splitcodec_batches_running")),
        "stages_ms": {stage: _stage(now, past, stage) for stage in STAGES},
        "cpu_s": round(grown("process_cpu_seconds_total"), 2),
        "memory_bytes": int(now.sum("process_resident_memory_bytes")),
    }


def _stage(now: Scrape, past: Scrape, stage: str) -> dict[str, float | None]:
    name = "splitcodec_stage_seconds"
    count = now.sum(f"{name}_count", stage=stage) - past.sum(f"{name}_count", stage=stage)
    total = now.sum(f"{name}_sum", stage=stage) - past.sum(f"{name}_sum", stage=stage)
    bounds: list[tuple[float, float]] = []
    for (found, labels), value in now.samples.items():
        if found == f"{name}_bucket" and ("stage", stage) in labels:
            bounds.append((_number(dict(labels).get("le", "")), value - past.samples.get((found, labels), 0.0)))
    bounds.sort()
    p95 = next((bound for bound, below in bounds if count and below >= 0.95 * count), math.inf)
    return {
        "count": int(count),
        "mean": round(1000 * total / count, 3) if count else None,
        "p95_below": round(1000 * p95, 3) if math.isfinite(p95) else None,
    }


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf
