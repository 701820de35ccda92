"""Mutated packets and bundles by the thousand: runs what `make soak` runs and writes down the outcomes.

python benchmarks/mutations.py --out reports/mutations.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from splitcodec.evaluation.machine import commit, machine

ROOT = Path(__file__).parent.parent
RUNS = {
    "packets": [
        "tests.hostile.mutate --bundle tests/data/tiny --count 800000 --seed 1",
        "tests.hostile.mutate --bundle efficientnet-lite0 --count 200000 --seed 1",
    ],
    "answers": ["tests.hostile.mutate --bundle efficientnet-lite0 --count 5000 --seed 11 --answer"],
    "bundles": ["tests.hostile.mutate_bundles --bundle tests/data/tiny --count 20000 --seed 2"],
}


def main() -> int:
    """Run all and write; fails as soon as one run fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/mutations.json"))
    options = parser.parse_args()
    told: dict[str, object] = {
        "command": "python benchmarks/mutations.py",
        "commit": commit(),
        "machine": machine(),
    }
    for name, commands in RUNS.items():
        told[name] = [_run(command) for command in commands]
    options.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


def _run(command: str) -> object:
    print(command, file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
