"""An evaluation on disk: rd.json, rd.png, frontier.png, report.md.   before: rate.py   plots: plots.py"""

from __future__ import annotations

import json
from pathlib import Path

from splitcodec.evaluation.bd import FEWEST, NEAREST, WIDEST, Delta
from splitcodec.evaluation.output import legible, write_whole
from splitcodec.evaluation.plots import curves, frontier
from splitcodec.evaluation.resampled import DRAWS
from splitcodec.evaluation.result import FRONTIER, OURS, TEACHER, EncoderCost, Report
from splitcodec.evaluation.tables import count, gap, millions, signed, size, table


def write_report(report: Report, folder: str | Path) -> list[Path]:
    """Write rd.json, rd.png, frontier.png and report.md into `folder` and return their paths.

    Each file appears whole or not at all.
    Raises OutputError, MissingExtra without matplotlib.
    """
    files = {
        "rd.json": (json.dumps(report.to_json(), indent=1) + "\n").encode(),
        "rd.png": curves(report),
        "frontier.png": frontier(report),
        "report.md": markdown(report).encode(),
    }
    return write_whole(folder, files)


def markdown(report: Report) -> str:
    """Return the report as Markdown tables."""
    sections = (
        *(_title, _undertrained, _foreign, _encoders, _frontier, _settings, _equal_score),
        *(_bd, _matrix, _nearest, _kin, _overhead, _measured),
    )
    return legible("\n".join(line for section in sections for line in section(report)))


def _title(report: Report) -> list[str]:
    return [
        f"# {report.bundle}: top-1 against bytes",
        "",
        f"{report.images} pictures of `{report.data}`; top-1 of the uncompressed teacher: {report.teacher_top1:.2f} %.",
        "",
        "![top-1 over bytes](rd.png)",
        "",
    ]


def _undertrained(report: Report) -> list[str]:
    """Return the words that go with the label, where a method bears it."""
    names = [one for one in report.methods if report.is_undertrained(one)]
    if not names:
        return []
    return [
        f"Undertrained, so no claim is made against them: {', '.join(names)}. They were trained here, but as far as",
        "their runs say the loss on held-out photographs still fell, and they do not save 40 % against HEVC.",
        "",
    ]


def _foreign(report: Report) -> list[str]:
    """Return the words that go with the label of methods that answer with another network."""
    names = [one for one in report.methods if report.is_foreign(one)]
    if not names:
        return []
    return [
        f"Another network: {', '.join(names)}. Head and tail are neither ours nor made of our weights, so the codec is",
        "not all that differs. No claim is made against it.",
        "",
    ]


def _encoders(report: Report) -> list[str]:
    """Return what encoders cost."""
    head = ("method", "MACs", "parameters", "bytes", "images seen", "by one model", "training, processor minutes")
    rows = [
        (
            report.label(method),
            millions(cost.macs),
            count(cost.parameters),
            count(cost.bytes),
            count(cost.images_seen) + (f" ({len(cost.bundles)} runs)" if len(cost.bundles) > 1 else ""),
            count(cost.images_each),
            _minutes(cost),
            cost.trained,
            "ours" if cost.ours and cost.teacher is None else cost.teacher or "not known",
        )
        for method, cost in report.encoders.items()
    ]
    return [
        "## Encoders",
        "",
        "Of a method of several bundles, one per rate, the largest encoder counts, and the training of all of them (a",
        "run that others began from counts once). Where processor time was not counted, minutes are those of the clock",
        "(wall), on machines that differ.",
        "",
        *table((*head, "state", "network"), rows),
        "",
    ]


def _frontier(report: Report) -> list[str]:
    """Return where encoders' costs lead: the SC2 benchmark's three-way comparison."""
    rows = [
        (
            report.label(one.method),
            "none" if one.method in report.codecs else millions(one.macs),
            f"{one.bytes:,.0f}",
            f"{one.top1 - report.teacher_top1:+.2f}",
        )
        for one in report.frontier()
    ]
    return [
        "## Encoder size, data size, accuracy",
        "",
        f"Bytes where a hull passes {FRONTIER:g} points below the teacher, or at the nearest score that it has.",
        "",
        "![encoder size, data size, accuracy](frontier.png)",
        "",
        *table(("method", "encoder MACs", "bytes", "top-1 minus teacher"), rows),
        "",
    ]


def _settings(report: Report) -> list[str]:
    rows = [
        (
            report.label(one.method),
            one.setting,
            f"{one.bytes_mean:,.0f}",
            "" if one.payload_mean is None else f"{one.payload_mean:,.0f}",
            f"{one.top1:.2f}",
            gap(one.top1 - report.teacher_top1, one.top1_ci95),
            "" if one.encode_ms is None else f"{one.encode_ms:.1f}",
        )
        for method in report.methods
        for one in report.of(method)
    ]
    return [
        "## Every setting",
        "",
        "Differences from the teacher are paired, with bootstrap 95 % intervals (10,000 resamples).",
        "",
        *table(("method", "setting", "bytes", "payload", "top-1 %", "minus teacher", "encode ms"), rows),
        "",
    ]


def _equal_score(report: Report) -> list[str]:
    rows = [
        (
            f"{row.below_teacher:g}",
            f"{row.top1:.2f}",
            *(size(row.bytes_of[one], row.interval_of[one]) for one in report.methods),
        )
        for row in report.equal_score
    ]
    return [
        "## Bytes at equal score",
        "",
        "Read off the upper hulls by linear interpolation; a dash where a hull does not reach. In brackets 95 %",
        f"intervals over {DRAWS:,} draws of the pictures, the same for every method and for the teacher, whose score",
        "varies with them; none where an end lies beyond the hull, for it does not reach the score in those draws, and",
        "for methods read from a file.",
        "",
        *table(("below teacher", "top-1 %", *(report.label(one) for one in report.methods)), rows),
        "",
    ]


def _bd(report: Report) -> list[str]:
    """Return ours against every method, by which curves, and why there is no figure where there is none."""
    rows = [
        (
            report.label(name),
            _rate(found.rate),
            _rate(found.payload),
            signed(found.accuracy.value, "", found.accuracy.interval),
            "-" if (span := found.rate.span) is None else f"{span[0]:.1f} to {span[1]:.1f}",
            found.rate.method or "-",
        )
        for name, found in report.bd.items()
    ]
    reasons = {
        f"- {report.label(name)}, {what}: {delta.reason}."
        for name, found in report.bd.items()
        for what, delta in zip(("bytes", "payload", "top-1"), found, strict=True)
        if delta.reason is not None
    }
    return [
        "## BD-rate and BD-accuracy",
        "",
        f"Bytes of {OURS} against each method over equal scores, from {WIDEST:g} to {NEAREST:g} points below the",
        "teacher or as much of that as both hulls cover (the column scores); log bytes. Negative: fewer bytes.",
        f"Payload: the same without headers and container. BD-accuracy: points of top-1 that {OURS} scores more at",
        "equal bytes, on average over the bytes (log) that both hulls cover. Curves are piecewise cubic (PCHIP) where",
        f"both have {FEWEST} points or more, else straight lines from point to point. In brackets 95 % intervals over",
        "the same draws of the pictures; hulls, curves, and the scores and bytes that they cover, vary with them.",
        "",
        *table(("against", "bytes", "payload", "top-1", "scores, %", "curves"), rows),
        "",
        *(["No figure:", "", *sorted(reasons), ""] if reasons else []),
    ]


def _matrix(report: Report) -> list[str]:
    """Return BD-rates of every bundle against every method, where there is more than one."""
    if len(report.bd_rate_matrix) < 2:
        return []
    return [
        "BD-rate of every method with an encoder (rows) against every method (columns):",
        "",
        *table(
            ("bytes of", *(report.label(one) for one in report.methods)),
            (
                (report.label(method), *(_rate(row[one]) if one in row else "" for one in report.methods))
                for method, row in report.bd_rate_matrix.items()
            ),
        ),
        "",
    ]


def _rate(found: Delta) -> str:
    return signed(found.value, " %", found.interval)


def _nearest(report: Report) -> list[str]:
    rows = [
        (
            one.a,
            f"{one.bytes_a:,.0f}",
            report.label(one.method_b) + one.b.removeprefix(one.method_b),
            size(one.bytes_b),
            gap(one.top1, (one.low, one.high)),
        )
        for one in report.contrasts
        if one.b != TEACHER
    ]
    head = ("ours", "bytes", "theirs", "bytes", "top-1 difference")
    return ["## Against the setting nearest in bytes", "", *table(head, rows), ""]


def _kin(report: Report) -> list[str]:
    """Return our other bundles' levels against what is not ours, a row each; nothing where there are no others."""
    rivals = list(dict.fromkeys(one.method_b for one in report.contrasts_of_kin))
    rows: dict[str, list[str]] = {}
    for one in report.contrasts_of_kin:  # of a level, one per rival, in their order
        row = rows.setdefault(one.a, [one.a, f"{one.bytes_a:,.0f}"])
        row.append(f"{gap(one.top1, (one.low, one.high))} at {size(one.bytes_b)}")
    if not rows:
        return []
    return [
        "Our other bundles, against each rival's setting nearest in bytes: top-1 difference, and its bytes.",
        "",
        *table(("level", "bytes", *(report.label(one) for one in rivals)), rows.values()),
        "",
    ]


def _overhead(report: Report) -> list[str]:
    return [
        "## Overhead",
        "",
        "Mean of packet bytes minus the ideal code length under the integer tables.",
        "",
        *table(("level", "bytes"), [(name, f"{extra:.2f}") for name, extra in report.overhead_bytes.items()]),
        "",
    ]


def _measured(report: Report) -> list[str]:
    return [
        "## How it was measured",
        "",
        *(f"- {note}" for note in report.notes),
        *(f"- left out: {name} ({reason})" for name, reason in report.skipped),
        f"- machine: {json.dumps(report.machine)}",
        f"- commit: {report.commit or 'not known (no checkout)'}; {report.seconds:.0f} s",
        "",
    ]


def _minutes(cost: EncoderCost) -> str:
    """Return how long the training took: processors, and accelerators by name; else by the clock, which it says."""
    if cost.processor_seconds is None:
        return "-" if cost.seconds is None else f"{cost.seconds / 60:,.0f} (wall)"
    held = (f" + {seconds / 60:,.0f} of {name}" for name, seconds in cost.device_seconds.items())
    return f"{cost.processor_seconds / 60:,.0f}{''.join(held)}"
