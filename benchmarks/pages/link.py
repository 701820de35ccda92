"""Blocks of docs/device.md and docs/field.md: bytes of answers, and what carries them.   used by: blocks.py"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def answers(load: Mapping[str, Any], latency: Mapping[str, Any]) -> list[str]:
    """Return the bytes of an answer, out of reports/load.json and reports/latency.json."""
    ours = _ours(latency)
    return [
        f"An answer costs bytes as well: five guesses of a classification are {load['load']['answer_bytes_mean']:.0f} "
        f"bytes of JSON on average (`reports/load.json`), {_guesses(latency)} (`--top {latency['guesses']}`, for `ask` "
        f"and `watch`) {ours['answer_bytes_mean']:.0f},",
        f"shortened, as the device's links ask for it, {ours['answer_bytes_mean_brief']:.0f} (`reports/latency.json`; "
        "[field.md](field.md)).",
    ]


def carriers(latency: Mapping[str, Any]) -> list[str]:
    """Return what a link carries beside a packet, out of reports/latency.json."""
    ours = _ours(latency)
    beside = {}
    for block in latency["blocks"]:
        row = next(row for row in block["rows"] if row["strategy"] == ours["name"])
        beside[block["carrier"]] = sum(row["link_bytes"]) - ours["bytes_mean"]
    return [
        f"Beside a packet of {ours['bytes_mean']:,.0f} bytes, UDP puts {beside['UDP']:.0f} bytes on the link, an "
        f"answer of {_guesses(latency)} among them; HTTP over TCP puts {beside['HTTP']:.0f} there, on a connection",
        "that is open already (`reports/latency.json`; [results.md](results.md#end-to-end-latency) has what that is in "
        "time).",
    ]


def _ours(latency: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first of our strategies: the default bundle, classified."""
    strategies: list[Mapping[str, Any]] = latency["strategies"]
    return next(one for one in strategies if one["kind"] == "ours" and one["tasks"] == ["classify"])


def _guesses(latency: Mapping[str, Any]) -> str:
    return "one guess" if latency["guesses"] == 1 else f"{latency['guesses']} guesses"
