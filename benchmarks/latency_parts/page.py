"""What reports/latency.json becomes: a section of docs/results.md.   used by: benchmarks/results.py"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from latency_parts.show import STAGES, check_lines, labelled, sent, stages, target_lines

PLOT = "../reports/latency.png"


def section(report: dict[str, Any]) -> list[str]:
    """Return the lines of the section."""
    machine, heads, rates = report["machine"], report["overhead"], report["rates"]
    carrier = report["blocks"][0]["carrier"]
    here = [block for block in report["blocks"] if block["device_slowdown"] == 1 and block["carrier"] == carrier]
    answer = "one guess" if report["guesses"] == 1 else f"{report['guesses']} guesses"
    slowest = report["links"][0]
    return [
        "## End-to-end latency",
        "",
        f"From a picture's file to its answer ({answer}), every method at {rates['within']:g} points below the",
        f"teacher's {rates['teacher_top1']:.1f} % top-1: with the bytes that its hull has there, on the",
        f"{rates['images']} photographs that this was measured on, and the time of its cheapest setting that is as",
        "good (for several tasks: the bytes of that setting on the photographs that were timed).",
        f"Computing is measured on {report['photographs']} photographs:",
        f"{_cores(report['cores'])}; of every stage the median over",
        f"photographs of the fastest of {report['turns']} turns. The link is modelled: its round trip, and the bytes",
        "both ways at its rate. Every method is carried in two ways, its answers shortened in both. HTTP: heads of "
        f"{heads['request_head_bytes']} and {heads['response_head_bytes']} bytes",
        f"(counted on loopback) and {heads['segment_overhead_bytes']} bytes of TCP and IP per segment; the connection",
        f"stays open. UDP (`udp://`): frames of at most {heads['datagram_bytes']} bytes with",
        f"{heads['datagram_overhead_bytes']} around each, {heads['udp_request_bytes']} bytes that say what is wanted.",
        "",
        *target_lines(report),
        *check_lines(report),
        "",
        f"Command: `{report['command'].partition(' --out ')[0]}` (commit {report['commit']}; {machine['cpu']}, "
        f"{machine['cores']} core(s), load average {(report['load_average'] or ['not known'])[0]}).",
        "",
        f"![from picture to answer]({PLOT})",
        "",
        "`constriction` is the compiled entropy coder, `plain` the same in Python, which the later tables leave out.",
        "In the table of stages the whole network stands under encoder where the device runs it, under tail where the",
        "edge does.",
        "",
        *(line for block in here for line in _stages(report, block, slowest)),
        *(line for block in report["blocks"] for line in _totals(report, block)),
        *_break_even(report),
        *(line for block in here for line in _energy(report, block)),
        *_left_out(report),
    ]


def _stages(report: dict[str, Any], block: dict[str, Any], link: dict[str, Any]) -> list[str]:
    table = _table(
        ("strategy", "setting", "bytes", "top-1 %", *(f"{name}, ms" for name in STAGES), "total, ms"),
        (
            (
                labelled(strategy),
                strategy.get("setting", "-"),
                sent(strategy),
                f"{strategy['top1']:.1f}" if "top1" in strategy else f"{report['rates']['teacher_top1']:.1f}",
                *(_ms(value) for value in stages(strategy, row, link["name"])),
                _ms(row["total_ms"][link["name"]]),
            )
            for strategy, row in zip(report["strategies"], block["rows"], strict=True)
        ),
    )
    return [f"### Stages at {link['name']}, round trip {link['rtt_ms']:g} ms, {block['label']}", "", *table, ""]


def _rows(report: dict[str, Any], block: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return strategies with their rows, without those of the plain coder, which differ by its milliseconds alone."""
    both = zip(report["strategies"], block["rows"], strict=True)
    return [(strategy, row) for strategy, row in both if strategy.get("coder") != "plain"]


def _totals(report: dict[str, Any], block: dict[str, Any]) -> list[str]:
    return [
        f"### Picture to answer in ms, {block['label']}",
        "",
        *_table(
            ("strategy", "on the device", *(f"{one['name']} ({one['rtt_ms']:g} ms)" for one in report["links"])),
            (
                (labelled(strategy), _ms(row["device_ms"]), *(_ms(value) for value in row["total_ms"].values()))
                for strategy, row in _rows(report, block)
            ),
        ),
        "",
    ]


def _break_even(report: dict[str, Any]) -> list[str]:
    """Return the tables, without the strategies that no rate makes faster than the device alone."""
    lines = []
    for block in report["blocks"]:
        told = [
            (labelled(strategy), row["break_even_kbit_per_s"])
            for strategy, row in _rows(report, block)
            if row["break_even_kbit_per_s"]
        ]
        rows = [(name, rates) for name, rates in told if any(rate is not None for rate in rates.values())]
        if told:
            lines += [f"### Break-even against the device alone in kbit/s, {block['label']}", ""]
        if rows:
            lines += [
                "The rate from which on a link is faster, per round trip; never: no rate is enough.",
                "Not listed: what is faster at none.",
                "",
                *_table(
                    ("strategy", *(f"{rtt} ms" for rtt in rows[0][1])),
                    (
                        (name, *("never" if rate is None else f"{rate:,.0f}" for rate in rates.values()))
                        for name, rates in rows
                    ),
                ),
                "",
            ]
        elif told:
            lines += ["No rate makes any of them faster than this device alone.", ""]
    return lines


def _energy(report: dict[str, Any], block: dict[str, Any]) -> list[str]:
    costs = ", ".join(f"{one['uj_per_byte']:g}" for one in report["links"])
    power = report["power"]
    return [
        f"### Energy per answer in millijoules, {block['label']}",
        "",
        f"The device's processor ({power['source']}, {power['device_watts']:g} W) and its radio (stated, not measured:",
        f"{costs} uJ per byte, both ways); waiting is not counted.",
        "",
        *_table(
            ("strategy", *(one["name"] for one in report["links"])),
            (
                (labelled(strategy), *(f"{value:,.1f}" for value in row["energy_mj"].values()))
                for strategy, row in _rows(report, block)
            ),
        ),
        "",
    ]


def _left_out(report: dict[str, Any]) -> list[str]:
    notes = dict.fromkeys(one["note"] for one in report["strategies"] if "note" in one)
    lines = [f"- left out: {one['method']} ({one['reason']})" for one in report["left_out"]]
    lines += [f"- {note}" for note in notes]
    return [*lines, ""] if lines else []


def _cores(cores: dict[str, Any]) -> str:
    if cores["shared"]:
        return "device and edge in turns on the same core, one thread each"
    return f"the device on one thread of a core of its own, the edge on {cores['edge']} other(s)"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    ruled = "|---|" + "---:|" * (len(head) - 1)
    return [f"| {' | '.join(head)} |", ruled, *(f"| {' | '.join(row)} |" for row in rows)]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
