"""An evaluation as plots: top-1 over bytes, and encoder size x data size x accuracy.   used by: report.py"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from splitcodec.evaluation.bd import NEAREST, WIDEST
from splitcodec.evaluation.drawing import CROWDED, Kind, Style, dress, figure, legend, plain_numbers, png, styles, words
from splitcodec.evaluation.hull import upper_hull
from splitcodec.evaluation.result import FRONTIER, OURS, Corner, Report

_HIGH = 345  # points that the axes are high in `frontier`
_WORST = -15.0  # points below the teacher at the dark end of the colour scale


def curves(report: Report) -> bytes:
    """Return a PNG: top-1 over bytes (log scale), hulls drawn through, ours thick with 95 % intervals as thin bars.

    Undertrained rivals are dashed and hollow. Raises MissingExtra without matplotlib.
    """
    crowded = len(report.methods) > CROWDED
    drawn_on = figure(10 if crowded else 8, 5.6 if crowded else 5.2)
    axes = drawn_on.add_subplot()
    scores = [report.teacher_top1, *(one.top1 for one in report.points)]
    bottom, top = max(min(scores) - 3, -2), min(max(scores) + 6, 104)
    axes.axhline(report.teacher_top1, color="#555555", linewidth=1.2, linestyle=(0, (6, 3)))
    label = f"teacher, uncompressed: {report.teacher_top1:.1f} %"
    axes.annotate(
        label,
        (0.01, report.teacher_top1),
        xytext=(0, 2),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="bottom",
        fontsize=9,
        zorder=5,
    )
    axes.axhspan(report.teacher_top1 - WIDEST, report.teacher_top1 - NEAREST, color="#f3f3f0", zorder=0)
    axes.annotate(
        "BD-rate is taken here",
        (0.99, max(report.teacher_top1 - WIDEST, bottom)),  # words outside the axes would leave no room for these
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=8,
        color="#555555",
    )
    drawn = styles(_kinds(report))
    for method in _drawn(report):
        _curve(axes, report, method=method, style=drawn[method], crowded=crowded)
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("bytes per picture (mean, log scale)")
    axes.set_ylabel("top-1, %")
    dress(axes, title=f"{report.bundle} on {report.images} pictures of {report.data}")
    legend(drawn_on, axes, crowded=crowded)
    return png(drawn_on)


def frontier(report: Report) -> bytes:
    """Return a PNG of the SC2 benchmark's three-way comparison (Matsubara et al. 2022): MACs of the encoder, bytes
    where a method passes 3 points below the teacher, and, as colour, the top-1 that it has there. Methods that do not
    pass there stand where they come nearest, and say so.

    Image codecs stand side by side at the left, for no network runs on the device; methods whose encoder is not known
    are left out. Raises MissingExtra without matplotlib.
    """
    corners = [one for one in report.frontier() if one.macs is not None]
    drawn_on = figure(10, 5.6)
    left, right = drawn_on.subplots(1, 2, sharey=True, width_ratios=(1, 2.6))
    parts = (
        (left, [one for one in corners if one.method in report.codecs]),
        (right, [one for one in corners if one.method not in report.codecs]),
    )
    sizes = [one.bytes for one in corners]
    drawn = None
    macs = [_megamacs(one) for one in parts[1][1]] or [1.0]
    right.set_xscale("log")
    right.set_xlim(min(macs) / 1.6, max(macs) * 1.6)
    for axes, some in parts:
        axes.set_yscale("log")
        axes.set_ylim(min(sizes, default=100.0) / 1.5, max(sizes, default=1000.0) * 1.5)
        for place, one in enumerate(sorted(some, key=lambda one: one.bytes)):
            drawn = _corner(axes, report, one, at=float(place) if axes is left else _megamacs(one))
    _names(right, report, parts[1][1])
    names = [words(one.method) for one in sorted(parts[0][1], key=lambda one: one.bytes)]
    left.set_xticks(range(len(names)), names, rotation=90)
    left.set_xlim(-0.7, max(len(names), 1) - 0.3)
    plain_numbers(left.yaxis)
    left.set_ylabel(f"bytes per picture at teacher - {FRONTIER:g} points (log scale)")
    plain_numbers(right.xaxis)
    right.set_xlabel("MACs of the encoder, millions (log scale)")
    right.annotate("better: down and left", (0.01, 0.015), xycoords="axes fraction", fontsize=8, color="#555555")
    dress(left, title="image codecs (no network)")
    dress(right, title=f"encoders: {report.bundle} on {report.images} pictures of {report.data}")
    right.tick_params(axis="y", left=False)
    if drawn is not None:
        bar = drawn_on.colorbar(drawn, ax=[left, right], pad=0.02, aspect=30)
        bar.set_label(f"top-1 minus teacher, points: -{FRONTIER:g}, or the nearest to it")
    return png(drawn_on)


def _curve(axes: Any, report: Report, *, method: str, style: Style, crowded: bool) -> None:
    points = report.of(method)
    colour, marker = style
    ours, hollow = report.is_ours(method), report.is_undertrained(method)
    hull = upper_hull((one.bytes_mean, one.top1) for one in points)
    line = "--" if hollow else "-"
    axes.plot(
        hull[:, 0], hull[:, 1], color=colour, linewidth=2.4 if ours else 1.2, linestyle=line, zorder=4 if ours else 3
    )
    if ours or not crowded:
        _bars(axes, report, method=method, colour=colour)
    on_hull = {tuple(row) for row in hull.tolist()}
    shown = [one for one in points if ours or not crowded or (one.bytes_mean, one.top1) in on_hull]
    axes.plot(
        [one.bytes_mean for one in shown],
        [one.top1 for one in shown],
        linestyle="none",
        marker=marker,
        markersize=6 if ours else 4.5,
        color=colour,
        markerfacecolor="white" if hollow else colour,
        label=words(_name(report, method)),
        zorder=5 if ours else 4,
    )


def _bars(axes: Any, report: Report, *, method: str, colour: str) -> None:
    bars = [(one, one.top1_ci95) for one in report.of(method) if one.top1_ci95 is not None]
    if bars:
        gaps = [one.top1 - report.teacher_top1 for one, _ in bars]
        lows = [max(gap - ends[0], 0.0) for gap, (_, ends) in zip(gaps, bars, strict=True)]
        highs = [max(ends[1] - gap, 0.0) for gap, (_, ends) in zip(gaps, bars, strict=True)]
        where = [one.bytes_mean for one, _ in bars], [one.top1 for one, _ in bars]
        axes.errorbar(*where, yerr=[lows, highs], fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.55, zorder=2)


def _megamacs(corner: Corner) -> float:
    """Return the place on the logarithmic axis."""
    return max(corner.macs or 0, 1e6) / 1e6


def _corner(axes: Any, report: Report, corner: Corner, *, at: float) -> Any:
    ours = report.is_ours(corner.method)
    return axes.scatter(
        [at],
        [corner.bytes],
        c=[corner.top1 - report.teacher_top1],
        cmap="viridis",
        vmin=_WORST,
        vmax=0.0,
        s=190 if ours else 95,
        marker="o" if ours else "s" if corner.method in report.codecs else "D",
        edgecolors=styles({OURS: "ours"})[OURS].colour if ours else "#333333",
        linewidths=2.2 if ours else 1.0,
        zorder=4 if ours else 3,
    )


def _names(axes: Any, report: Report, corners: Sequence[Corner]) -> None:
    """Write each method's name beside its marker, moved off other names and off the markers beyond it.

    To the marker's right, or, where that would leave the axes, to its left.
    """
    low, high = (math.log(end) for end in axes.get_ylim())
    ends = [math.log(end) for end in axes.get_xlim()]
    turned = {one.method: math.log(_megamacs(one)) > 0.4 * ends[0] + 0.6 * ends[1] for one in corners}
    least = 0.036 * (high - low)
    order = sorted(corners, key=lambda one: one.bytes)
    places = [math.log(one.bytes) for one in order]
    for _ in range(60):
        for k, above in enumerate(order):
            for j, below in enumerate(order[:k]):
                lack = least - (places[k] - places[j])
                if lack > 0 and max(_megamacs(above), _megamacs(below)) <= 6 * min(_megamacs(above), _megamacs(below)):
                    places[k] += lack / 2
                    places[j] -= lack / 2
            for other in order:
                gap = places[k] - math.log(other.bytes)
                beyond = _megamacs(other) / _megamacs(above)
                if 1 < (1 / beyond if turned[above.method] else beyond) <= 6 and abs(gap) < least:
                    places[k] += (least - abs(gap)) * (1 if gap > 0 else -1) / 2
    for one, place in zip(order, places, strict=True):
        axes.annotate(
            words(_name(report, one.method)) + _elsewhere(report, one),
            (_megamacs(one), one.bytes),
            xytext=(-13 if turned[one.method] else 13, _HIGH * (place - math.log(one.bytes)) / (high - low)),
            textcoords="offset points",
            ha="right" if turned[one.method] else "left",
            va="center",
            fontsize=9,
            fontweight="bold" if report.is_ours(one.method) else "normal",
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 8},
            zorder=6,
        )


def _elsewhere(report: Report, corner: Corner) -> str:
    """Return where a method stands that has no such score: its bytes then compare with nothing on that axis."""
    below = corner.top1 - report.teacher_top1
    return "" if abs(below + FRONTIER) < 0.05 else f", at {below:+.1f}"


def _name(report: Report, method: str) -> str:
    """Return a method's label; ours with its bundle, where it is one of several."""
    several = sum(report.is_ours(one) for one in report.methods) > 1
    return f"{method} ({report.bundle})" if method == OURS and several else report.label(method)


def _drawn(report: Report) -> list[str]:
    """Return the methods in the order of the legend: ours, then the others."""
    return sorted(report.methods, key=lambda method: not report.is_ours(method))


def _kinds(report: Report) -> dict[str, Kind]:
    return {
        one: "ours" if report.is_ours(one) else "codec" if one in report.codecs else "rival" for one in report.methods
    }
