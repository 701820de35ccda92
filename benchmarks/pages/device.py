"""Blocks of docs/device.md and docs/raspberry-pi.md: budgets, contexts, INT8, installed size.   used by: blocks.py"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pages.marked import table

BUDGET = (
    "at most",
    "bytes, mean",
    "bytes, most",
    "top-1, %",
    "minus teacher",
    "not forced, %",
    "side in pixels, mean",
    "refused",
)
SHARES = {
    "INT8, by channel": "encode int8, constriction",
    "INT8, by context": "encode int8, constriction, by context",
    "fp32, by channel": "encode fp32, constriction",
    "fp32, by context": "encode fp32, constriction, by context",
}


def budget(report: Mapping[str, Any]) -> list[str]:
    """Return what limits in bytes cost, out of reports/budget/budget.json."""
    return [
        f"`{report['bundle']}`, {report['photographs']} photographs of `{report['data']}`, top-1 of the uncompressed "
        f"teacher {report['teacher_top1']:.1f} %:",
        "",
        *table(BUDGET, map(budget_row, report["budgets"]), left=0),
    ]


def budget_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one limit's cells."""
    gap = one["minus_teacher"]
    return (
        f"{one['max_bytes']:,}",
        f"{one['bytes_mean'] or 0:,.0f}",
        f"{one['bytes_most'] or 0:,}",
        f"{one['top1']:.1f}",
        f"{gap[0]:+.1f} [{gap[1]:+.1f}, {gap[2]:+.1f}]",
        f"{one['untouched']:.0f}",
        f"{one['side_mean'] or 0:.0f}",
        str(one["refused"]),
    )


def contexts(encode: Mapping[str, Any], learned: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what coding by context saves and takes: reports/encode.json, and what each bundle's manifest says.

    `learned` is `provenance.contexts` of the manifests, by the bundles' names with their versions.
    """
    kept_out = " or ".join(
        f"{count:,}" for count in sorted({one["held_out"]["photographs"] for one in learned.values()})
    )
    rows = [(f"`{ident}`", _saved(learned.get(ident)), *_coding(one["ms"])) for ident, one in encode["bundles"].items()]
    head = ("bundle", "bytes against coding by channel, over the levels", "coding by channel, ms", "by context, ms")
    return [
        *table(head, rows),
        "",
        f"Bytes: on {kept_out} photographs that the networks did not learn from, as `splitcodec contexts` wrote it "
        "into the bundle's manifest (`provenance`).",
        "Milliseconds at the default level: encoding in fp32 less the encoder alone, on one thread of an "
        f"{encode['machine']['cpu']} (`benchmarks/encode.py`, `reports/encode.json`).",
    ]


def int8(
    encode: Mapping[str, Any],
    losses: Mapping[str, Mapping[str, Any]],
    *,
    elsewhere: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """Return what INT8 loses and saves: reports/encode.json, and the reports of benchmarks/int8.py by their paths.

    `elsewhere` has reports of encoding on other processors, by their paths.
    """
    lost = {report["bundle"].partition("@")[0]: _lost(path, report) for path, report in losses.items()}
    rows = []
    for ident, one in encode["bundles"].items():
        has = any(name.startswith("encode int8") for name in one["ratios"])
        told = lost.get(ident.partition("@")[0], "not measured") if has else "ships without"
        shares = (one["ratios"].get(name, {}).get("of_network") for name in SHARES.values())
        rows.append((f"`{ident}`", told, *("-" if share is None else f"{share:.3f}" for share in shares)))
    return [
        "What encoding takes, as a share of the whole network's time, at the default level, on one thread of an "
        f"{_processor(encode)}: `benchmarks/encode.py`, `reports/encode.json`. The default's target is 1/6, 0.167.",
        "",
        *table(("bundle", "agreement lost, points", *SHARES), rows, left=2),
        "",
        "Agreement with the teacher on photographs kept out, at equal bytes, with its 95 % interval: "
        "`benchmarks/int8.py`.",
        *(line for path, report in (elsewhere or {}).items() for line in ("", _elsewhere(path, report))),
    ]


def _elsewhere(path: str, report: Mapping[str, Any]) -> str:
    """Return the shares of the network's time on another processor, coded by channel."""
    stages = {"INT8": SHARES["INT8, by channel"], "fp32": SHARES["fp32, by channel"]}
    told = []
    for ident, one in report["bundles"].items():
        shares = {name: one["ratios"][stage]["of_network"] for name, stage in stages.items() if stage in one["ratios"]}
        told.append(f"`{ident}` " + " and ".join(f"{share:.3f} ({name})" for name, share in shares.items()))
    return f"On one thread of an {_processor(report)}, by channel: {', '.join(told)} (`{path}`)."


def _processor(report: Mapping[str, Any]) -> str:
    """Return a processor's name and how fast it is: some differ much and are called the same."""
    network = [one["ms"]["network"] for one in report["bundles"].values()]
    return f"{report['machine']['cpu']} that takes {min(network):.1f} ms for the network"


def providers(report: Mapping[str, Any]) -> list[str]:
    """Return what the graphs take on other execution providers, out of reports/providers.json."""
    stages = {"encoder": "encoder, fp32", "encoder_int8": "encoder, INT8", "decoder": "decoder", "tail": "tail"}
    found = report["providers"]
    titles = ("provider", *(f"{stages[one]}, ms" for one in found["cpu"]["ms"]), "packets as cpu's", "guesses as cpu's")
    rows = [
        (
            f"`{name}`",
            *(f"{ms:.2f}" for ms in one["ms"].values()),
            f"{one['packets_equal']['encoder']:.0f} % (INT8 {one['packets_equal']['encoder_int8']:.0f} %)",
            f"{one['guesses_equal']:.0f} %",
        )
        for name, one in found.items()
    ]
    return [
        f"`{report['bundle']}`, ONNX Runtime {report['runtime']}, {report['machine']['cpu']}, one thread; "
        f"{report['photographs']} photographs at every level (`benchmarks/providers.py`, `reports/providers.json`):",
        "",
        *table(titles, rows),
    ]


def still(report: Mapping[str, Any]) -> list[str]:
    """Return how far scenes move by what is no change and by what is one, out of reports/still.json."""
    least = report["least"]
    titles = (
        "between two pictures of one scene",
        "change, median",
        "1 to 99 %",
        f"sent at {least}",
        "symbols that differ",
    )
    rows = [
        (
            name,
            f"{one['change']['p50']:.2f}",
            f"{one['change']['p1']:.2f} to {one['change']['p99']:.2f}",
            f"{one['taken']:.0f} %",
            f"{one['differ']:.0f} %",
        )
        for name, one in report["cases"].items()
    ]
    return [
        f"`{report['bundle']}`, {report['photographs']} photographs, each taken twice with noise of 2 of 255 and as a",
        "JPEG of quality 90 (`benchmarks/still.py`, `reports/still.json`):",
        "",
        *table(titles, rows),
        *_camera(report.get("camera")),
    ]


def _camera(report: Mapping[str, Any] | None) -> list[str]:
    """Return what a real camera saw, if one was at hand."""
    if report is None:
        return []
    still, moving = (report["places"][name] for name in ("still", "moving"))
    return [
        "",
        f"A real camera over a street that people cross ({report['pictures']} pictures, each against the one "
        f"{report['apart']} later; the film is named in `benchmarks/still.py`): of {still['count']:,} places where "
        f"nothing moved 99 % changed by less than {still['change']['p99']:.2f}, of {moving['count']:,} where a quarter "
        f"of the pixels or more did, 99 % by more than {moving['change']['p1']:.2f} and half by more than "
        f"{moving['change']['p50']:.2f}. So 0.6 is on the safe side of noise there, and 0.3 would see more.",
    ]


def footprint(report: Mapping[str, Any]) -> list[str]:
    """Return what the device's half takes once it is installed, out of reports/footprint.json."""
    runs = report["runs"]
    rows = [
        ("the wheel", report.get("wheel_mb")),  # not in reports from before it was weighed
        ("installed", report["installed_mb"]),
        ("installed with `--no-compile`", report["without_byte_code_mb"]),
        ("the same once every command has run", report["in_use_mb"]),
        ("peak memory of encoding, with `constriction`", runs["constriction"]["peak_mb"]),
        ("peak memory of encoding, with the plain coder", runs["plain"]["peak_mb"]),
    ]
    return [
        *table(("what", "MB"), [(name, f"{size:.0f}") for name, size in rows if size is not None]),
        "",
        f"Measured on {report['machine']['system']} (`benchmarks/footprint.py`, `reports/footprint.json`); other "
        "processors have wheels of other sizes.",
    ]


def _saved(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "-"
    changes: Sequence[float] = one["held_out"]["change_percent"]
    return f"{max(changes):+.1f} to {min(changes):+.1f} %"


def _coding(ms: Mapping[str, float]) -> tuple[str, str]:
    alone = ms["encoder fp32 alone"]
    whole = (ms.get(SHARES["fp32, by channel"]), ms.get(SHARES["fp32, by context"]))
    by_channel, by_context = ("-" if one is None else f"{one - alone:.2f}" for one in whole)
    return by_channel, by_context


def _lost(path: str, report: Mapping[str, Any]) -> str:
    low, high = report["interval"]
    photographs, version = report["photographs"], report["bundle"].partition("@")[2]
    of = f"{len(report['levels'])} levels, {photographs:,} photographs"
    loss = round(report["loss"], 2) + 0.0  # no -0.00
    return f"{loss:.2f} [{low:.2f}, {high:.2f}], {of}, `@{version}` (`{path}`)"
