"""Accuracy within a byte budget: the bytes and top-1 that `--max-bytes N --force-fit` gives on labelled photographs.

    python benchmarks/budget.py --data DIR [--bundle B] --out reports/budget/budget.json

DIR holds photographs as `evaluate` takes them. Every packet is made by the device within its limit and answered by the
edge; "untouched" are packets that fitted without force. `make results` turns the report into docs/device.md's table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outcome import exit_code

import numpy as np

from pages.device import BUDGET, budget_row
from report import at_least_one, ready, write
from splitcodec.cli.show import complain, print_table, progress
from splitcodec.device.client import Device
from splitcodec.device.image import load_picture
from splitcodec.edge.answer import Edge
from splitcodec.errors import BudgetTooSmall, DataError, PictureError, SettingsError
from splitcodec.evaluation.labels import labelled_pictures
from splitcodec.evaluation.paired import difference
from splitcodec.wire.packet import SMALLEST

BUDGETS = "222,500,1000"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--budgets", default=BUDGETS, metavar="N,...")
    parser.add_argument("--most", type=int, metavar="N", help="photographs")
    parser.add_argument("--out", type=Path, default=Path("reports/budget/budget.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    ready(options.out)
    report = measure(options)
    write(report, options.out, name="budget.py", options=options)
    title = f"{report['bundle']}, {report['photographs']} photographs"
    print_table(title, BUDGET, [budget_row(one) for one in report["budgets"]])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the report. Photographs that cannot be read are left out, and complained of."""
    at_least_one("--most", options.most)
    budgets = _budgets(options.budgets)
    device, edge = Device(options.bundle, threads=1), Edge(options.bundle, threads=1)
    labelled = labelled_pictures(options.data, device.bundle.manifest)[: options.most]
    found: dict[int, list[tuple[int, bool, bool, int]]] = {most: [] for most in budgets}
    teacher = []
    with progress() as bar:
        task = bar.add_task("encoding", total=len(labelled), note="")
        for one in labelled:
            bar.advance(task)
            try:
                picture = load_picture(one.path)
            except PictureError as error:
                complain(error)
                continue
            teacher.append(_top(edge.picture_answer(device.crop(picture), top=1)) == one.index)
            for most in budgets:
                found[most].append(_one(device, edge, picture, most=most, label=one.index))
    if not teacher:
        raise DataError(f"none of {len(labelled)} photographs in {options.data} can be read; give others")
    teacher_n = np.array(teacher)
    return {
        "bundle": device.bundle.ident,
        "data": options.data.name,
        "photographs": len(teacher),
        "teacher_top1": 100 * float(teacher_n.mean()),
        "budgets": [_summary(most, rows, teacher_n) for most, rows in found.items()],
    }


def _budgets(text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        found = []
    if not found or min(found) < SMALLEST:
        raise SettingsError(f"--budgets {text!r:.60}; expected numbers of bytes with commas, each at least {SMALLEST}")
    return found


def _one(device: Device, edge: Edge, picture: Any, *, most: int, label: int) -> tuple[int, bool, bool, int]:
    """Return bytes (0 where nothing fits), whether the answer is right, whether nothing was forced, and the side."""
    try:
        encoded = device.encode_timed(picture, max_bytes=most, force_fit=True)
    except BudgetTooSmall:
        return 0, False, False, 0
    assert len(encoded.packet) <= most
    right = _top(edge.answer(encoded.packet, tasks=["classify"], top=1)) == label
    untouched = encoded.side == device.bundle.manifest.crop and encoded.dropped == 0
    return len(encoded.packet), right, untouched, encoded.side


def _summary(most: int, rows: list[tuple[int, bool, bool, int]], teacher_n: Any) -> dict[str, Any]:
    sent = [row for row in rows if row[0]]
    gap = difference(np.array([row[1] for row in rows]), teacher_n)
    return {
        "max_bytes": most,
        "bytes_mean": float(np.mean([row[0] for row in sent])) if sent else None,
        "bytes_most": max((row[0] for row in sent), default=None),
        "top1": 100 * float(np.mean([row[1] for row in rows])),
        "minus_teacher": list(gap),
        "untouched": 100 * float(np.mean([row[2] for row in rows])),
        "side_mean": float(np.mean([row[3] for row in sent])) if sent else None,
        "refused": len(rows) - len(sent),
    }


def _top(answer: Any) -> int:
    return int(answer["answers"]["classify"][0]["index"])


if __name__ == "__main__":
    sys.exit(main())
