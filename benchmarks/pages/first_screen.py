"""README's claim, its limits, and what nothing is claimed of.   used by: benchmarks/results.py"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from loading.page import SHARE
from pages.marked import table

OURS = "splitcodec"
AT = 3.0  # points below the teacher of the claim
COMPARED = "docs/results.md#beside-the-papers-published-figures"
CORNERS = "docs/results.md#encoder-size-data-size-accuracy"


def claim(rate: Mapping[str, Any]) -> list[str]:
    """Return bytes of ours and of the best image codec at one score, and BD-rate, out of the arena's report."""
    at = next(one for one in rate["bytes_at_equal_score"] if one["top1_minus_teacher"] == -AT)
    row, within = at["bytes"], at["bytes_interval"]
    codecs = {name: size for name, size in row.items() if name not in rate["encoders"] and size is not None}
    best = min(codecs, key=lambda name: codecs[name])
    reached = {
        f"`{_bundle(cost)}`, {cost['macs'] / 1e6:.0f} M": f"**{row[name]:,.0f}**{_ends(within[name])}"
        for name, cost in sorted(_ours(rate).items(), key=lambda one: float(one[1]["macs"]))
        if row[name] is not None
    }
    told = reached | {f"`{best}`, the best of {len(codecs)} image codecs": f"{row[best]:,.0f}{_ends(within[best])}"}
    low, high = rate["bd_rate_interval"][best]
    least, most = rate["bd_range"][best]
    return [
        f"**Fewer bytes at equal accuracy.** Bytes of a photograph at {AT:g} points of top-1 accuracy below the "
        "uncompressed network, by encoder, with the multiply-accumulates",
        "that it costs the device (in brackets 95 % intervals; none where a curve ends near there):",
        "",
        *table(tuple(told), [tuple(told.values())], left=0),
        "",
        f"On average over accuracies from {least:.1f} to {most:.1f} % (BD-rate) the default, "
        f"`{_bundle(rate['encoders'][OURS])}`, takes {-rate['bd_rate'][best]:.0f} % [{-high:.0f} to {-low:.0f}] fewer "
        f"bytes than `{best}`.",
        f"Measured on {rate['images']} ImageNet photographs, one a class, probably of the training split, so scores",
        "are higher than on the validation split (the teacher's published top-1 there: 75.5 %).",
    ]


def _ends(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" [{' to '.join(f'{math.floor(end + 0.5):,}' for end in interval)}]"


def silence(undertrained: Sequence[str]) -> list[str]:
    """Return the words about rivals that README's table leaves out."""
    if not undertrained:
        return []
    return [
        "",
        f"Not in the table: {', '.join(undertrained)}. These rivals, of the kinds in the SC2 benchmark, were trained "
        "here, but too little to count",
        "(undertrained), so nothing is claimed against them. For the paper's student see "
        f"[its published figures beside ours]({COMPARED}), for the",
        f"benchmark's comparison of encoder size, bytes and accuracy [this plot]({CORNERS}).",
    ]


def limits(rate: Mapping[str, Any], latency: Mapping[str, Any], load: Mapping[str, Any]) -> list[str]:
    """Return where accuracy ends, where sending does not pay, and which targets were missed, out of the reports."""
    nearest = {
        _bundle(cost): rate["teacher_top1"] - max(one["top1"] for one in rate["points"] if one["method"] == name)
        for name, cost in _ours(rate).items()
    }
    first = latency["blocks"][0]
    modelled = max(
        (block for block in latency["blocks"] if block["carrier"] == first["carrier"]),
        key=lambda block: float(block["device_slowdown"]),
    )
    target = next(one for one in latency["targets"] if one is not None and one["carrier"] == first["carrier"])
    ratio, most = load["ratio"]["cpu"], max(load["ratio"]["cpu"], load["ratio"]["wall"])
    return [
        "- **Accuracy ends below the teacher's**: the best level lacks, in points, "
        + ", ".join(f"{below:.1f} with `{name}`" for name, below in nearest.items())
        + ".",
        "- **A fast device needs no server.** The whole classifier takes "
        f"{first['rows'][0]['device_ms']:.1f} ms on one core of the {latency['machine']['cpu']} that was measured; "
        f"a packet takes {_spent(first, latency)} ms to make, "
        f"and sending is faster {_from(first, latency, several=False)} there.",
        f"  On a device {modelled['device_slowdown']:g} times slower (modelled) sending is faster for three tasks "
        "together "
        f"{_from(modelled, latency, several=True)}, for classification alone "
        f"{_from(modelled, latency, several=False)}.",
        f"- **A fast link needs no such packets**: {_sooner(first, latency)}.",
        f"- **Targets**: {target['times_faster']:.2f} times as fast at 37.5 kbit/s as the best image codec, "
        f"the quickest of ours {target['times_faster_quickest']:.2f} times "
        f"(target {target['at_least']:g}: {_met(target['met'])}); the server has {100 * ratio:.0f} % of raw ONNX "
        f"Runtime's throughput per processor time (target {100 * SHARE:.0f}: {_met(most >= SHARE)}).",
    ]


def _from(block: Mapping[str, Any], latency: Mapping[str, Any], *, several: bool) -> str:
    """Return from which rates on a link is faster than the device alone, with the first bundle."""
    name = _strategy(latency, several=several)
    rates = next(row["break_even_kbit_per_s"] for row in block["rows"] if row["strategy"] == name)
    found = {rtt: rate for rtt, rate in rates.items() if rate is not None}
    if not found:
        return "on no link"
    trips = f"round trips of up to {max(found, key=float)} ms"
    return f"from {min(found.values()):,.0f} to {max(found.values()):,.0f} kbit/s on ({trips})"


def _sooner(block: Mapping[str, Any], latency: Mapping[str, Any]) -> str:
    """Return from which link on an image codec's file is answered sooner than a packet of the first bundle."""
    totals = {row["strategy"]: row["total_ms"] for row in block["rows"]}
    ours = totals[_strategy(latency, several=False)]
    codecs = [one["name"] for one in latency["strategies"] if one["kind"] == "codec"]
    for link in latency["links"]:
        best = min(codecs, key=lambda name: float(totals[name][link["name"]]))
        if totals[best][link["name"]] < ours[link["name"]]:
            return (
                f"at {link['name']} a file of {best.partition(',')[0]} is answered sooner "
                f"({totals[best][link['name']]:.0f} ms against {ours[link['name']]:.0f})"
            )
    return "no image codec is answered sooner on the links that were measured"


def _strategy(latency: Mapping[str, Any], *, several: bool) -> str:
    """Return the name of the first bundle's strategy, for classification or for several tasks."""
    names = (
        str(one["name"])
        for one in latency["strategies"]
        if one["kind"] == "ours" and (len(one["tasks"]) > 1) == several and one["bundle"] == latency["bundles"][0]
    )
    return next(names)


def _spent(block: Mapping[str, Any], latency: Mapping[str, Any]) -> str:
    """Return what the ways to make a packet with the first bundle take the device, for classification."""
    ours = {
        one["name"]
        for one in latency["strategies"]
        if one["kind"] == "ours" and len(one["tasks"]) == 1 and one["bundle"] == latency["bundles"][0]
    }
    spent = [float(row["device_ms"]) for row in block["rows"] if row["strategy"] in ours]
    return f"{min(spent):.1f} to {max(spent):.1f}"


def _ours(rate: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: cost for name, cost in rate["encoders"].items() if cost["ours"]}


def _bundle(cost: Mapping[str, Any]) -> str:
    """Return a bundle's name without its version."""
    return str(cost["bundles"][0]).partition("@")[0]


def _met(met: bool) -> str:
    return "met" if met else "missed"
