"""What all plots share: each method's colour and marker, a figure without a screen, plain axes, a PNG.

used by: plots.py, task_report.py, benchmarks/latency_parts/plot.py
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from splitcodec.errors import MissingExtra
from splitcodec.evaluation.output import legible

CROWDED = 5  # methods above which the legend goes beside the axes
Kind = Literal["ours", "codec", "rival"]


class Style(NamedTuple):
    """How every plot draws a method."""

    colour: str
    marker: str


# Ours are oranges, darker the larger the encoder; image codecs have hues that stay apart for the colour-blind, shared
# by variants of a codec; other rivals are dark. Markers differ too, so no line is told by its colour alone.
_STYLES = {
    "splitcodec": Style("#d55e00", "o"),
    "efficientnet-lite0": Style("#d55e00", "o"),  # the same by the bundle's name
    "efficientnet-lite0-large": Style("#5c1500", "p"),
    "efficientnet-lite0-medium": Style("#9c3a00", "h"),
    "efficientnet-lite0-tiny": Style("#f5a25d", "8"),
    "jpeg": Style("#332288", "s"),
    "jpeg444": Style("#7a6fd0", "^"),
    "webp": Style("#0b5a2a", "v"),
    "avif": Style("#cc79a7", "P"),
    "jp2": Style("#999933", "<"),
    "jxl": Style("#009e73", ">"),
    "hevc": Style("#0072b2", "s"),
    "hevc444": Style("#56b4e9", "^"),
    "vvc": Style("#777777", "v"),
    "paper": Style("#111111", "D"),
    "paper_published": Style("#444444", "H"),
    "end_to_end": Style("#111111", "d"),
    "reduced": Style("#54436b", "*"),
    "factorized": Style("#8c5a3c", "X"),
    "hyperprior": Style("#5a5a5a", "p"),
}
_SPARE: dict[Kind, tuple[Style, ...]] = {  # of methods that are not in the table, in turn
    "ours": (Style("#d55e00", "o"), Style("#9c3a00", "h"), Style("#5c1500", "p"), Style("#f5a25d", "8")),
    "codec": (Style("#0072b2", "s"), Style("#56b4e9", "^"), Style("#009e73", ">"), Style("#777777", "v")),
    "rival": (Style("#111111", "d"), Style("#8c5a3c", "X"), Style("#54436b", "*"), Style("#5a5a5a", "p")),
}


def styles(kinds: Mapping[str, Kind]) -> dict[str, Style]:
    """Return how each method is drawn: alike in every plot by its name, else by its kind and its place there."""
    known = {method: _STYLES[method] for method in kinds if method in _STYLES}
    others = {kind: [one for one in kinds if kinds[one] == kind and one not in known] for kind in _SPARE}
    spare = {kind: [one for one in some if one not in known.values()] or some for kind, some in _SPARE.items()}
    return known | {
        method: spare[kind][place % len(spare[kind])]
        for kind, some in others.items()
        for place, method in enumerate(some)
    }


def check_plots() -> None:
    """Say now, rather than after hours of measuring, that plots cannot be drawn. Raises MissingExtra."""
    try:
        import matplotlib.figure  # noqa: F401  # only whether it is there
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the plot needs {error.name}; install it with: pip install 'splitcodec[eval]'") from None


def figure(width: float, height: float) -> Any:
    """Return an empty figure of that many inches. Raises MissingExtra without matplotlib."""
    check_plots()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=140, layout="constrained")
    FigureCanvasAgg(made)
    return made


def plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis with 1, 2, 5, 10 and so on."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def words(text: str) -> str:
    """Return a name as matplotlib shows it: "$" begins no formula, and what is no Unicode becomes legible."""
    return legible(text).replace("$", r"\$")


def legend(drawn_on: Any, axes: Any, *, crowded: bool) -> None:
    """Name the curves: in a corner of the axes, or beside them where there are many."""
    if crowded:
        drawn_on.legend(loc="outside right upper", frameon=False, fontsize=9)
    else:
        axes.legend(loc="lower right", frameon=False)


def dress(axes: Any, *, title: str) -> None:
    """Give axes a title, a grid and no frame."""
    axes.set_title(words(title), fontsize=11, loc="left")
    axes.grid(which="major", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def png(made: Any) -> bytes:
    """Return a figure as the bytes of a PNG, the same for the same figure."""
    file = io.BytesIO()
    made.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
