"""The report as tables on the terminal."""

from __future__ import annotations

from typing import Any

from splitcodec.cli.show import print_table

STAGES = ("preprocess", "encoder", "coding", "link", "decode", "tail")


def show(report: dict[str, Any]) -> None:
    """Print a table per link, stages as measured here; one per modelled device; energy, break-even and the target."""
    strategies = {one["name"]: one for one in report["strategies"]}
    here = [block for block in report["blocks"] if block["device_slowdown"] == 1]
    slower = [block for block in report["blocks"] if block["device_slowdown"] != 1]
    for link, first in ((link, first) for first in here for link in report["links"]):
        rows = sorted(first["rows"], key=lambda row: row["total_ms"][link["name"]])
        print_table(
            f"{link['name']}, round trip {link['rtt_ms']:g} ms, {first['label']}: ms",
            ("strategy", "bytes", *STAGES, "total", "mJ"),
            [
                (
                    labelled(strategies[row["strategy"]]),
                    sent(strategies[row["strategy"]]),
                    *(_cell(ms) for ms in stages(strategies[row["strategy"]], row, link["name"])),
                    _cell(row["total_ms"][link["name"]]),
                    f"{row['energy_mj'][link['name']]:.1f}",
                )
                for row in rows
            ],
        )
    for block in slower:
        print_table(
            f"{block['label']}: ms from picture to answer",
            ("strategy", "device", *(link["name"] for link in report["links"])),
            [
                (
                    labelled(strategies[row["strategy"]]),
                    _cell(row["device_ms"]),
                    *(_cell(ms) for ms in row["total_ms"].values()),
                )
                for row in block["rows"]
            ],
        )
    for block in report["blocks"]:
        rows = [row for row in block["rows"] if row["break_even_kbit_per_s"]]
        if rows:
            print_table(
                f"kbit/s from which on a link beats the device alone, {block['label']}",
                ("strategy", *(f"rtt {rtt} ms" for rtt in rows[0]["break_even_kbit_per_s"])),
                [
                    (
                        labelled(strategies[row["strategy"]]),
                        *(
                            "never" if rate is None else f"{rate:,.0f}"
                            for rate in row["break_even_kbit_per_s"].values()
                        ),
                    )
                    for row in rows
                ],
            )
    for one in report["left_out"]:
        print(f"left out: {one['method']} ({one['reason']})")
    for line in [*target_lines(report), *check_lines(report)]:
        print(line)


def labelled(strategy: dict[str, Any]) -> str:
    """Return a strategy's name with what must be said of it."""
    marks = ["undertrained"] * (strategy.get("trained") == "undertrained")
    marks += ["does not reach the accuracy"] * (strategy.get("reaches") is False)
    return f"{strategy['name']} ({', '.join(marks)})" if marks else str(strategy["name"])


def sent(strategy: dict[str, Any]) -> str:
    """Return the bytes that leave the device."""
    return f"{strategy['bytes_mean']:,.0f}" if strategy["bytes_mean"] else "-"


def stages(strategy: dict[str, Any], row: dict[str, Any], link: str) -> list[float | None]:
    """Return milliseconds per stage; the whole network counts as encoder on the device, and as tail at the edge."""
    device, edge = strategy["device_ms"], strategy["edge_ms"]
    return [
        device["preprocess"],
        device.get("encoder", device.get("network")),
        device.get("coding"),
        row["link_ms"][link] or None,
        edge.get("decode"),
        edge.get("tail", edge.get("network")),
    ]


def target_lines(report: dict[str, Any]) -> list[str]:
    """Return the target in words."""
    found = [one for one in report["targets"] if one is not None]
    return [_target_line(one) for one in found] or ["The target's link, 37.5 kbit/s, was not measured."]


def _target_line(found: dict[str, Any]) -> str:
    if found["times_faster"] is None:
        return "No image codec, or nothing of ours, reaches the accuracy: the target cannot be told."
    quickest = (
        ""
        if found["ours_quickest"] == found["ours"]
        else f"; the fastest of ours, {found['ours_quickest']}, {found['times_faster_quickest']:.2f} times"
    )
    return (
        f"At 37.5 kbit/s, both over {found['carrier']}, {found['ours']} answers {found['times_faster']:.2f} times "
        "as fast as the best image codec, "
        f"{found['best_codec']}{quickest}. Target: {found['at_least']:g} times, "
        f"{'met' if found['met'] else 'missed'}."
    )


def check_lines(report: dict[str, Any]) -> list[str]:
    """Return what the shaped link said, in words."""
    check = report["link_check"]
    if check is None:
        return []
    if "skipped" in check:
        return [f"The link model was not checked: {check['skipped']}."]
    by_link = ", ".join(f"{name} {off:.1f} %" for name, off in check["largest_percent_by_link"].items())
    verdict = "within" if check["agrees"] else "NOT within"
    return [
        "Link model against a link shaped by tc tbf between two network namespaces: off by at most "
        f"{check['largest_percent']:.1f} % over {len(check['rows'])} transfers (HTTP and UDP), "
        f"{verdict} {check['within_percent']:g} % (by link: {by_link})."
    ]


def _cell(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:,.1f}" if ms >= 100 else f"{ms:.2f}"
