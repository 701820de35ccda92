"""What all plots share: a figure without a screen, plain axes, a PNG.   used by: plots.py, benchmarks/latency.py"""

from __future__ import annotations

import io
from typing import Any

from splitcodec.errors import MissingExtra
from splitcodec.evaluation.output import legible

CROWDED = 5  # methods above which the legend goes beside the axes
# colours of ours (warm), of image codecs (cool), of other rivals (dark): legible on white, also in print
WARM = ("#d1495b", "#f08a24", "#8f1d4f", "#e377a8")
COOL = ("#30638e", "#2e933c", "#7d5ba6", "#00a5c4", "#8a9a1f", "#5c6f82", "#b06fd0", "#0b4f6c", "#9bb53c")
DARK = ("#111111", "#8c5a3c", "#b07d12", "#54436b", "#5a5a5a")


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
