"""What a bundle's INT8 encoder loses: agreement with the teacher at equal bytes, on photographs kept out.

    python benchmarks/int8.py --bundle B --photos DIR --photos DIR --out reports/int8.json

Photographs must be none that training or calibration has seen. Both encoders see the same crops, every packet goes
through decoder and tail; the loss is the mean over --levels, with a bootstrap 95 % interval over photographs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outcome import exit_code

from report import at_least_one, ready, write
from splitcodec.cli.show import print_table, progress
from splitcodec.errors import SettingsError
from splitcodec.evaluation.agreement import agreement
from splitcodec.evaluation.calibrate import shuffled
from splitcodec.wire.bundle import Bundle, open_bundle

MOST_LOST = 0.5  # points of agreement
ENOUGH = 2000  # photographs


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--photos", type=Path, action="append", required=True, metavar="DIR", help="repeatable")
    parser.add_argument("--most", type=int, default=ENOUGH, metavar="N", help=f"photographs; default: {ENOUGH}")
    parser.add_argument("--levels", metavar="L,...", help="default: the lowest, the bundle's default, the highest")
    parser.add_argument("--threads", type=int, metavar="N", help="pictures at a time; default: all cores")
    parser.add_argument("--out", type=Path, default=Path("reports/int8.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    at_least_one("--most", options.most)
    at_least_one("--threads", options.threads)
    ready(options.out)
    report = _measure(options)
    told = argparse.Namespace(**{**vars(options), "photos": " --photos ".join(["DIR"] * len(options.photos))})
    write(report, options.out, name="int8.py", options=told)
    _show(report)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    bundle = open_bundle(options.bundle)
    levels = _levels(options.levels, bundle)
    paths, begin = shuffled(options.photos)[: options.most], time.monotonic()
    with progress() as bar:
        task = bar.add_task("measuring", total=len(paths), note="")
        found = agreement(
            bundle,
            paths,
            levels=levels,
            threads=options.threads,
            progress=lambda now, total: bar.update(task, completed=now, total=total),
        )
    body = {**found.to_json(), "skipped": len(found.skipped)}
    return {
        **body,
        "folders": [folder.name for folder in options.photos],
        "seconds": round(time.monotonic() - begin, 1),
        "target": {
            "points_at_most": MOST_LOST,
            "photographs_at_least": ENOUGH,
            "enough_photographs": found.photographs >= ENOUGH,
            "met": found.photographs >= ENOUGH and found.loss <= MOST_LOST,
        },
    }


def _levels(text: str | None, bundle: Bundle) -> list[int]:
    manifest = bundle.manifest
    if text is None:
        return sorted({0, manifest.default_level, manifest.levels - 1})
    try:
        found = [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        found = []
    if not found:
        raise SettingsError(f"--levels {text!r:.60}; expected numbers with commas between them")
    return found


def _show(report: dict[str, Any]) -> None:
    rows = [
        (
            one["level"],
            *(f"{size:,.0f}" for size in one["bytes"]),
            *(f"{share:.2f}" for share in one["agreement"]),
            f"{one['loss']:+.2f}",
        )
        for one in report["levels"]
    ]
    columns = ("level", "fp32 bytes", "INT8 bytes", "fp32 agrees, %", "INT8 agrees, %", "lost")
    print_table(f"{report['bundle']}, {report['photographs']} photographs kept out", columns, rows, left=0)
    low, high = report["interval"]
    print(f"INT8 loses {report['loss']:.2f} points of agreement at equal bytes [{low:.2f}, {high:.2f}].")
    if not report["target"]["enough_photographs"]:
        print(f"That is fewer than the {ENOUGH:,} photographs asked for.")


if __name__ == "__main__":
    sys.exit(main())
