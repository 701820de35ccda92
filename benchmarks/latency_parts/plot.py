"""The report as a picture: time to the answer over the link's rate, and what computing takes on either shore."""

from __future__ import annotations

from typing import Any

from latency_parts.show import labelled
from splitcodec.evaluation.drawing import COOL, DARK, WARM, dress, figure, plain_numbers, png

_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "p")
_WAYS = {
    ("fp32", False): ("-", "o"),
    ("fp32", True): ("--", "s"),
    ("int8", False): ("-.", "^"),
    ("int8", True): (":", "v"),
}
_TOGETHER = ("-", "*")  # several tasks of one packet
_COLOURS = {"ours": WARM, "codec": COOL, "rival": DARK, "device": ("#555555", "#999999")}
_STAGES = {  # on the device dark, at the edge light
    "preprocess": "#5c6f82",
    "network": "#30638e",
    "encoder": "#d1495b",
    "coding": "#f08a24",
    "decode": "#f3c98b",
    "tail": "#c9d6df",
}


def plot(report: dict[str, Any]) -> bytes:
    """Return a PNG: a row per carrier, in it a panel per device (this one, slower ones); and one of the stages.

    Raises MissingExtra.
    """
    blocks = report["blocks"]
    carriers = list(dict.fromkeys(block["carrier"] for block in blocks))
    wide = len(blocks) // len(carriers)
    high = max(4.6 * len(carriers), 2.6 + 0.42 * len(report["strategies"]))  # a bar and its two-line name each
    drawn_on = figure(5.2 * (wide + 1) + 2.2, high)
    grid = drawn_on.add_gridspec(len(carriers), wide + 1)
    lines = [drawn_on.add_subplot(grid[row, column]) for row in range(len(carriers)) for column in range(wide)]
    bars = drawn_on.add_subplot(grid[:, wide])
    for axes, block in zip(lines, blocks, strict=True):
        _lines(axes, report, block)
    _bars(bars, report)
    handles, names = lines[0].get_legend_handles_labels()
    drawn_on.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return png(drawn_on)


def _lines(axes: Any, report: dict[str, Any], block: dict[str, Any]) -> None:
    rates = [link["kbit_per_s"] for link in report["links"]]
    count: dict[str, int] = {}
    for strategy, row in zip(report["strategies"], block["rows"], strict=True):
        kind = strategy["kind"]
        ours, hollow = kind == "ours", not strategy["claim"]
        if ours:  # a colour for each bundle, a line and a marker for each way to run it
            place = list(report["bundles"]).index(strategy["bundle"])
            alone = len(strategy["tasks"]) == 1
            line, marker = _WAYS[strategy["encoder"], strategy["coder"] == "plain"] if alone else _TOGETHER
        else:
            place = count[kind] = count.get(kind, -1) + 1
            line = "--" if hollow or kind == "device" else "-"
            marker = "" if kind == "device" else _MARKERS[place % len(_MARKERS)]
        colour = _COLOURS[kind][place % len(_COLOURS[kind])]
        axes.plot(
            rates,
            list(row["total_ms"].values()),
            color=colour,
            linewidth=1.8 if ours else 1.3,
            linestyle=line,
            marker=marker,
            markersize=9 if marker == "*" else 5,
            markerfacecolor="white" if hollow else colour,
            label=labelled(strategy),
            zorder=4 if ours else 3,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(rates, [link["name"].replace(" ", "\n") for link in report["links"]])
    axes.minorticks_off()
    plain_numbers(axes.yaxis)
    axes.set_xlabel(
        "link (log scale), round trip " + ", ".join(f"{link['rtt_ms']:g}" for link in report["links"]) + " ms"
    )
    axes.set_ylabel("picture to answer, ms (log scale)")
    dress(axes, title=f"{block['label']}, teacher - {report['rates']['within']:g} points")


def _bars(axes: Any, report: dict[str, Any]) -> None:
    strategies = list(reversed(report["strategies"]))
    seen: set[str] = set()
    for place, strategy in enumerate(strategies):
        left = 0.0
        for shore in ("device_ms", "edge_ms"):
            for stage, ms in strategy[shore].items():
                away = shore == "edge_ms"
                name = f"{stage}, {'edge' if away else 'device'}"
                axes.barh(
                    place,
                    ms,
                    left=left,
                    color=_STAGES[stage],
                    hatch="///" if away else None,
                    edgecolor="white",
                    linewidth=0.4,
                    label=None if name in seen else name,
                )
                seen.add(name)
                left += ms
    axes.set_yticks(range(len(strategies)), [_broken(labelled(one)) for one in strategies], fontsize=8)
    axes.set_xlabel("ms, without the link")
    axes.legend(loc="center right", bbox_to_anchor=(1.0, _room(strategies)), frameon=False, fontsize=8)
    dress(axes, title="computing, measured here")


def _room(strategies: list[dict[str, Any]]) -> float:
    """Return the height, as a share, of the middle of the longest run of short bars: there is room beside them."""
    ends = [sum(sum(strategy[shore].values()) for shore in ("device_ms", "edge_ms")) for strategy in strategies]
    best, start = (0, 0), 0
    for place, end in enumerate([*ends, max(ends)]):
        if end > max(ends) / 2:
            best, start = max(best, (place - start, start)), place + 1
    length, start = best
    return (start + length / 2) / len(ends)


def _broken(text: str) -> str:
    """Return a name on two lines where it is long."""
    head, comma, tail = text.partition(", ")
    return f"{head},\n{tail}" if comma and len(text) > 24 else text
