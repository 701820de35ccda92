"""The sections of docs/results.md on what ours would be with a part left out.   used by: benchmarks/results.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pages.methods import OURS, cost_of, count, is_undertrained, millions, named, signed

PRIOR, ABLATIONS = Path("reports/ablation_prior.json"), Path("reports/ablations/rd.json")  # may be missing
PRIOR_COMMAND = f"python benchmarks/ablations.py --data DIR --out {PRIOR.as_posix()}"


def without_prior(body: dict[str, Any]) -> list[str]:
    """Return the section about our latents without the factorized prior."""
    ours = {point["setting"]: point for point in body["ours"]}
    rows = [
        [one["method"], one["setting"], count(one["bytes_mean"]), count(_at(ours, one)), f"{one['top1']:.2f}"]
        for one in body["points"]
    ]
    rates = "; ".join(f"{signed(percent, 1, ' %')} against `{name}`" for name, percent in body["bd_rate"].items())
    return [
        "## Ablation: the factorized prior against none",
        "",
        f"`{body['bundle']}` on {body['images']} pictures of `{body['data']}`: the same latents as 8-bit numbers,",
        "packed by zlib (level 9), with the gains of each level, or quantised uniformly without them. Bytes of our",
        "packets, coded by channel, over equal scores (BD-rate):",
        f"{rates}.",
        "",
        f"Command: `{body.get('command', PRIOR_COMMAND)}` (commit {body['commit']}).",
        "",
        "| without | setting | bytes | our packets | top-1 % |",
        "|---|---|---:|---:|---:|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def ablations(body: dict[str, Any], rate: dict[str, Any]) -> list[str]:
    """Return the section about trainings that leave something out, held against one that does not."""
    shipped, ours, rows = cost_of(rate, OURS), cost_of(body, OURS), []
    for method, cost in body["encoders"].items():
        silent = is_undertrained(body, method)
        rows.append(
            [
                "whole" if method == OURS else named(body, method),
                count(cost.get("images_each")),
                _share(cost.get("images_each"), shipped.get("images_each")),
                *(count(row["bytes"].get(method)) for row in body["bytes_at_equal_score"]),
                "no claim" if silent else signed(body["bd_rate"].get(method), 1, " %"),
            ]
        )
    points = [f"-{-row['top1_minus_teacher']:g}" for row in body["bytes_at_equal_score"]]
    return [
        "## Ablations: second stage, teacher, frozen encoder",
        "",
        f"Short trainings by `recipes/ablations/`. `whole` is `{body['bundle']}`{_macs(ours)} and leaves",
        "nothing out: the teacher's features and soft answers in both stages, the decoder alone in the second. It is",
        f"not the shipped `{rate.get('bundle')}`{_macs(shipped)}; the share is of the pictures that this one has seen,",
        "so differences are those of short trainings. Bytes at points of top-1 below the teacher",
        f"({body['teacher_top1']:.1f} %, {body['images']} pictures of `{body['data']}`), and the bytes of `whole`",
        "against each over equal scores (BD-rate). No claim is made against what is undertrained.",
        "",
        f"Command: `{body['command']}` (commit {body['commit']}).",
        "",
        f"| training | pictures | share | {' | '.join(points)} | BD-rate |",
        f"|---|---:|---:|{'---:|' * (len(points) + 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def _macs(cost: dict[str, Any]) -> str:
    return f" ({millions(cost['macs'])} multiply-accumulates)" if cost.get("macs") else ""


def _share(part: float | None, whole: float | None) -> str:
    return "-" if part is None or not whole else f"{100 * part / whole:.1f} %"


def _at(ours: dict[str, Any], point: dict[str, Any]) -> float | None:
    found = ours.get(point["setting"])
    return None if found is None else found["bytes_mean"]
