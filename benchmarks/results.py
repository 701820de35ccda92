"""Writes docs/results.md, docs/load.md and the marked blocks of README.md and docs/ out of the files in reports/.

Run by `make results`; pages/blocks.py says which page has which blocks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outcome import exit_code

from latency_parts.page import section as latency_section
from loading.page import page
from pages.ablations import ABLATIONS, PRIOR, ablations, without_prior
from pages.blocks import blocks
from pages.corruptions import corruptions, spoilt
from pages.equal import PAGE as EQUAL
from pages.equal import equal
from pages.first_screen import claim, limits, silence
from pages.marked import with_blocks
from pages.methods import OURS, cost_of, count, is_undertrained, methods, millions, named, signed
from pages.reports import read_report
from pages.rivals import rivals
from pages.shortened import shortened, turned
from pages.tasks import tasks
from pages.yardstick import FIGURES, yardstick
from splitcodec.evaluation.output import write_whole

ROOT = Path(__file__).parent.parent
RATE = Path("reports/rate_accuracy/rd.json")
LATENCY = Path("reports/latency.json")  # may be missing
LEFT_OUT = ("Every setting", "Against the setting nearest in bytes", "Overhead")  # of report.md, in docs/results.md
LOAD, MUTATIONS = Path("reports/load.json"), Path("reports/mutations.json")
COMMAND = (  # of reports that do not say it themselves
    ".venv/bin/splitcodec evaluate --bundle efficientnet-lite0 --data DIR --codecs jpeg,webp,avif"
    " --out reports/rate_accuracy"
)
SAME, ELSEWHERE = "same", "same, cut elsewhere"
TOLD = (1.0, 3.0, 6.0, 10.0)  # README's points below the teacher


def main() -> int:
    """Write them, or with --check say whether they are as they would be; returns the exit code: 0, 1 if not, 2, 130."""
    return exit_code(_write_or_check)


def _write_or_check() -> int:
    rate, load, mutations, latency = (read_report(ROOT / path) for path in (RATE, LOAD, MUTATIONS, LATENCY))
    limited = [*limits(rate, latency, load), *spoilt(ROOT)]
    first = {"claim": claim(rate), "results": summary(rate).splitlines(), "limits": limited}
    marked = {"README.md": first, **blocks(ROOT)}
    wanted = {
        "docs/results.md": results(rate),
        "docs/load.md": page(load, mutations),
        EQUAL: equal(rate),
        **{name: with_blocks(_read(name), lines, name=name) for name, lines in marked.items()},
    }
    stale = [name for name, text in wanted.items() if _read(name) != text]
    if "--check" in sys.argv[1:]:
        print("\n".join(f"{name} does not say what the reports say; run `make results`" for name in stale))
        return 1 if stale else 0
    for name in stale:
        write_whole((ROOT / name).parent, {Path(name).name: wanted[name].encode()})
    return 0


def summary(rate: dict[str, Any]) -> str:
    """Return README's words and table: fewer scores than the report has, and no rows of what nothing is claimed of."""
    undertrained = [name for name in methods(rate) if is_undertrained(rate, name)]
    target = "arena" if "command" in rate else "evaluate"
    drawn = ["In brackets: 95 % intervals over photographs drawn again."] if any(_intervals(rate).values()) else []
    return "\n".join(
        [
            f"Mean bytes per photograph (224 x 224 pixels) on {rate['images']} ImageNet photographs; one column per",
            f"accuracy: so many points of top-1 below the uncompressed teacher's {rate['teacher_top1']:.1f} %; "
            "a dash: not reached.",
            f"Bold: ours; `{OURS}` is the default bundle, `{rate['bundle']}`. MACs: multiply-accumulates of the",
            f"encoder. The same network answers behind every method{_but(rate)}.",
            "",
            summary_table(rate, below=TOLD, silent=False),
            "",
            f"BD-rate: how many per cent more bytes `{OURS}` takes than that method at equal accuracy, on average;",
            f"negative is fewer. BD-accuracy: how many points more `{OURS}` scores at equal bytes, on average.",
            *drawn,
            *silence(undertrained),
            "",
            "To repeat this:",
            f"`make {target} DATA=DIR{_points(rate)}`; [docs/results.md](docs/results.md) has more, and the machine,",
            "[reports/rate_accuracy/report.md](reports/rate_accuracy/report.md) every setting with its interval.",
        ]
    )


def _but(rate: dict[str, Any]) -> str:
    """Return the words that except methods which are not known to answer with the very network of ours."""
    costs = {name: cost for name, cost in rate.get("encoders", {}).items() if not cost.get("ours")}
    names = [
        name
        for name, cost in costs.items()
        if cost.get("teacher") not in (SAME, ELSEWHERE) and named(rate, name) == name
    ]
    return f", but for {', '.join(names)}: theirs is not known, or its tail was tuned" if names else ""


def _points(rate: dict[str, Any]) -> str:
    """Return the variable of make that names the files of points; earlier reports tell their names alone."""
    names = re.findall(r" --points (\S+)", rate.get("command", ""))
    places = [name if (ROOT / name).exists() else f"reports/{Path(name).name}" for name in names]
    return f" POINTS={' '.join(places)}" if len(places) == 1 else f" POINTS='{' '.join(places)}'" if places else ""


def summary_table(rate: dict[str, Any], *, below: Sequence[float] | None = None, silent: bool = True) -> str:
    """Return a row per method: encoder, bytes at equal scores, BD-rate and BD-accuracy of ours against it.

    `below` are the scores, in points below the teacher (None: all), `silent` whether rivals are in it that nothing is
    claimed against.
    """
    rows = [one for one in rate["bytes_at_equal_score"] if below is None or -one["top1_minus_teacher"] in below]
    encoders = bool(rate.get("encoders"))
    head = ["method", *(["MACs"] if encoders else []), *(f"-{-row['top1_minus_teacher']:g}" for row in rows)]
    lines = [[*head, "BD-rate", "BD-accuracy"], ["---"] + ["---:"] * (len(head) + 1)]
    for method in methods(rate):
        percent = signed(rate["bd_rate"].get(method), 0, " %") + _within(_intervals(rate).get(method))
        points = rate.get("bd_accuracy", {}).get(method)
        label = named(rate, method)
        marked = label != method
        if marked and not silent:
            continue
        lines.append(
            [
                f"**{label}**" if method == OURS or cost_of(rate, method).get("ours") else label,
                *([millions(cost_of(rate, method).get("macs"))] if encoders else []),
                *(count(row["bytes"].get(method)) for row in rows),
                "" if method == OURS else "no claim" if marked else percent,
                "" if method == OURS else "" if marked else signed(points, 1),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def results(rate: dict[str, Any]) -> str:
    """Return docs/results.md."""
    report = (ROOT / RATE.parent / "report.md").read_text(encoding="utf-8")
    body = re.sub(r"\]\((\w+\.png)\)", rf"](../{RATE.parent.as_posix()}/\1)", report)
    body = body.replace("\n## ", "\n### ").replace("# ", "## ", 1)
    body = turned(shortened(body, left_out=LEFT_OUT))
    figures, prior, runs, latency = map(_report_if_any, (Path(FIGURES), PRIOR, ABLATIONS, LATENCY))
    return "\n".join(
        [
            "# Results",
            "",
            "Generated by `make results` from the files in `reports/`; never edited by hand.",
            "",
            f"Command: `{rate.get('command', COMMAND)}` (commit {rate['commit']}).",
            f"Every setting, paired differences and BD-rates between all: [{RATE.parent.name}/report.md]"
            f"(../{RATE.parent.as_posix()}/report.md).",
            "",
            *rivals(rate),
            body.rstrip(),
            "",
            *(yardstick(rate, figures) if figures else []),
            *corruptions(ROOT),
            *tasks(ROOT),
            *(without_prior(prior) if prior else []),
            *(ablations(runs, rate) if runs else []),
            *(latency_section(latency) if latency else []),
        ]
    )


def _intervals(rate: dict[str, Any]) -> dict[str, list[float] | None]:
    """Return the ends of BD-rate's interval per method; nothing for reports from before it was told."""
    found: dict[str, list[float] | None] = rate.get("bd_rate_interval", {})
    return found


def _within(interval: list[float] | None) -> str:
    return "" if interval is None else f" [{signed(interval[0], 0)}, {signed(interval[1], 0)}]"


def _report_if_any(path: Path) -> Any:
    return read_report(ROOT / path) if (ROOT / path).exists() else None


def _read(name: str) -> str:
    path = ROOT / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
