"""Timed strategies -> the report: totals per link, break-even rates, energy, and the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from latency_parts.strategies import Strategy
from latency_parts.timing import Timed
from splitcodec.evaluation.latency import Carrier, Datagrams, Overhead, Radio, Trip, break_even_kbit_per_s

TARGET_KBIT_PER_S = 37.5
TARGET_TIMES = 3.0
NAMES = {Overhead: "HTTP", Datagrams: "UDP"}
INT8_NOTE = "top-1 and bytes are those of the fp32 encoder at this level; what INT8 loses is measured apart"
TASKS_NOTE = "at the level chosen for classification; the accuracy of other tasks is measured apart"


def strategy_json(timed: Timed) -> dict[str, Any]:
    """Return what was measured of one strategy."""
    one, choice = timed.strategy, timed.strategy.choice
    note = TASKS_NOTE if len(one.tasks) > 1 and choice else INT8_NOTE if one.encoder == "int8" else None
    chosen = (
        {}
        if choice is None
        else {
            "method": choice.method,
            "setting": choice.setting,
            "setting_bytes": choice.bytes_mean,
            "top1": choice.top1,
            "reaches": choice.reaches,
            "trained": choice.trained,
        }
    )
    return {
        "name": one.name,
        "kind": one.kind,
        "bundle": one.bundle,
        "encoder": one.encoder,
        "coder": one.coder,
        "tasks": list(one.tasks),
        **chosen,
        "claim": _claim(one),
        "bytes_mean": round(timed.link_bytes, 1),
        "bytes_mean_here": round(timed.sent_bytes, 1),
        "answer_bytes_mean": round(timed.answer_bytes, 1),
        "answer_bytes_mean_brief": round(timed.brief_bytes, 1),
        "device_ms": _rounded(timed.device_ms),
        "edge_ms": _rounded(timed.edge_ms),
        **({} if note is None else {"note": note}),
    }


def block(
    timed: Sequence[Timed],
    radios: Sequence[Radio],
    *,
    carrier: Carrier,
    slowdown: float,
    watts: Sequence[float],
) -> dict[str, Any]:
    """Return totals, break-even rates and energy of all strategies on a device `slowdown` times as slow as this one.

    `carrier` brings packets and answers. `watts` is the device's power under each strategy.
    """
    trips = {one.strategy.name: one.trip(carrier).slower(slowdown) for one in timed}
    alone = {one.strategy.tasks: one.strategy.name for one in timed if one.strategy.kind == "device"}
    rows = []
    for one, power in zip(timed, watts, strict=True):
        strategy, trip = one.strategy, trips[one.strategy.name]
        rows.append(
            {
                "strategy": strategy.name,
                "device_ms": round(sum(trip.device_ms.values()), 3),
                "edge_ms": round(sum(trip.edge_ms.values()), 3),
                "link_bytes": [trip.up, trip.down],
                "link_ms": {radio.name: round(trip.link_ms(radio), 3) for radio in radios},
                "total_ms": {radio.name: round(trip.total_ms(radio), 3) for radio in radios},
                "break_even_kbit_per_s": _break_even(trip, trips.get(alone.get(strategy.tasks, "")), radios),
                "watts": round(power, 3),
                "energy_mj": {radio.name: round(trip.energy_mj(radio, watts=power), 3) for radio in radios},
            }
        )
    label = "measured here" if slowdown == 1 else f"device times {slowdown:g}: modelled"
    name = NAMES[type(carrier)]
    return {"carrier": name, "device_slowdown": slowdown, "label": f"over {name}, {label}", "rows": rows}


def target(first: Sequence[Timed], radios: Sequence[Radio], *, carrier: Carrier, main: str) -> dict[str, Any] | None:
    """Return how many times faster than the best image codec at equal accuracy ours is on the slowest kind of link.

    None where that link is not among `radios`. Codecs that do not reach the accuracy do not count.
    """
    radio = next((one for one in radios if one.kbit_per_s == TARGET_KBIT_PER_S), None)
    if radio is None:
        return None
    totals = {one.strategy.name: one.trip(carrier).total_ms(radio) for one in first if _counts(one.strategy)}
    codecs = {one.strategy.name: totals[one.strategy.name] for one in _of("codec", first) if _counts(one.strategy)}
    ours = [one for one in _of("ours", first) if _counts(one.strategy) and one.strategy.tasks == ("classify",)]
    best = min(codecs, key=lambda name: codecs[name], default=None)
    default = next((one.strategy.name for one in ours if one.strategy.bundle == main), None)
    quickest = min((one.strategy.name for one in ours), key=lambda name: totals[name], default=None)

    def times(name: str | None) -> float | None:
        return None if name is None or best is None else round(codecs[best] / totals[name], 3)

    return {
        "carrier": NAMES[type(carrier)],
        "link": asdict(radio),
        "at_least": TARGET_TIMES,
        "best_codec": best,
        "best_codec_ms": None if best is None else round(codecs[best], 3),
        "ours": default,
        "times_faster": times(default),
        "ours_quickest": quickest,
        "times_faster_quickest": times(quickest),
        "met": (found := times(default)) is not None and found >= TARGET_TIMES,
    }


def _break_even(trip: Trip, alone: Trip | None, radios: Sequence[Radio]) -> dict[str, float | None]:
    """Return the break-even rate at no round trip, and at every link's."""
    if alone is None or not trip.up:
        return {}
    rtts = sorted({0.0, *(radio.rtt_ms for radio in radios)})
    rates = {rtt: break_even_kbit_per_s(trip, alone, rtt_ms=rtt) for rtt in rtts}
    return {f"{rtt:g}": None if rate is None else round(rate, 1) for rtt, rate in rates.items()}


def _counts(strategy: Strategy) -> bool:
    return strategy.choice is not None and strategy.choice.reaches


def _claim(strategy: Strategy) -> bool:
    """Say whether something may be claimed against, or of, a strategy at equal accuracy."""
    choice = strategy.choice
    return choice is None or (choice.reaches and not choice.undertrained)


def _of(kind: str, timed: Sequence[Timed]) -> list[Timed]:
    return [one for one in timed if one.strategy.kind == kind]


def _rounded(ms: dict[str, float]) -> dict[str, float]:
    return {stage: round(spent, 4) for stage, spent in ms.items()}
