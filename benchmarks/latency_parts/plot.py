"""The report as a picture: time to the answer over the link's rate, and what computing takes on either shore."""

from __future__ import annotations

from typing import Any

from latency_parts.show import labelled
from splitcodec.evaluation.drawing import Kind, Style, dress, figure, plain_numbers, png, styles

_STAGES = {  # on the device dark, at the edge light
    "preprocess": "#5c6f82",
    "network": "#30638e",
    "encoder": "#d1495b",
    "coding": "#f08a24",
    "decode": "#f3c98b",
    "tail": "#c9d6df",
}


_DEVICE = (Style("#555555", ""), Style("#999999", ""))  # no link: level lines
_KINDS: dict[str, Kind] = {"ours": "ours", "codec": "codec"}  # what else there is is a rival


def plot(report: dict[str, Any]) -> bytes:
    """Return a PNG: a panel per device (this one, slower ones) over the first carrier, and one of the stages.

    Of ours the lines are fp32 with the compiled coder and, of the first bundle, several tasks; the bars INT8 too. The
    tables have all, and the other carrier. Raises MissingExtra.
    """
    carrier = report["blocks"][0]["carrier"]
    blocks = [block for block in report["blocks"] if block["carrier"] == carrier]
    shown = [one for one in report["strategies"] if one.get("coder") != "plain"]
    drawn_on = figure(4.4 * len(blocks) + 3.2, max(5.6, 1.6 + 0.4 * len(shown)))  # a bar and its two-line name each
    *lines, bars = drawn_on.subplots(1, len(blocks) + 1, width_ratios=(*(4.4 for _ in blocks), 3.4))
    for axes, block in zip(lines, blocks, strict=True):
        _lines(axes, report, block)
        if axes is not lines[0]:
            axes.sharey(lines[0])
    lines[0].set_ylabel("picture to answer, ms (log scale)")
    _bars(bars, shown)
    handles, names = lines[0].get_legend_handles_labels()
    drawn_on.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    return png(drawn_on)


def _in_lines(report: dict[str, Any], strategy: dict[str, Any]) -> bool:
    """Say whether a strategy has a line: ways to run one encoder lie within a line's width of each other."""
    if strategy["kind"] != "ours":
        return True
    if len(strategy["tasks"]) > 1:
        return bool(strategy["bundle"] == next(iter(report["bundles"])))
    return bool(strategy["encoder"] == "fp32" and strategy["coder"] != "plain")


def _styles(report: dict[str, Any]) -> dict[str, Style]:
    """Return colours and markers by a strategy's name, as the other plots have them for its bundle or codec."""
    named = {one["name"]: _method(one) for one in report["strategies"] if one["kind"] != "device"}
    kinds = {_method(one): _KINDS.get(one["kind"], "rival") for one in report["strategies"] if one["kind"] != "device"}
    found = styles(kinds)
    device = [one["name"] for one in report["strategies"] if one["kind"] == "device"]
    return {name: found[method] for name, method in named.items()} | {
        name: _DEVICE[place % len(_DEVICE)] for place, name in enumerate(device)
    }


def _method(strategy: dict[str, Any]) -> str:
    """Return what the other plots call it: a bundle's name without its version, a codec's or a rival's name."""
    if strategy["kind"] == "ours":
        return str(strategy["bundle"]).partition("@")[0]
    return str(strategy["name"]).partition(",")[0]


def _lines(axes: Any, report: dict[str, Any], block: dict[str, Any]) -> None:
    rates = [link["kbit_per_s"] for link in report["links"]]
    drawn = _styles(report)
    for strategy, row in zip(report["strategies"], block["rows"], strict=True):
        if not _in_lines(report, strategy):
            continue
        kind, (colour, marker) = strategy["kind"], drawn[strategy["name"]]
        ours, hollow, several = kind == "ours", not strategy["claim"], len(strategy["tasks"]) > 1
        axes.plot(
            rates,
            list(row["total_ms"].values()),
            color=colour,
            linewidth=2.2 if ours else 1.3,
            linestyle="--" if kind == "device" or (hollow and not ours) else ":" if several else "-",
            marker="*" if ours and several else marker,
            markersize=9 if ours and several else 6 if ours else 5,
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
    dress(axes, title=f"{block['label']}, teacher - {report['rates']['within']:g} points")


def _bars(axes: Any, shown: list[dict[str, Any]]) -> None:
    strategies = list(reversed(shown))
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
