"""Mutated packets and bundles by the thousand: runs what `make soak` runs and writes down the outcomes.

python benchmarks/mutations.py --out reports/mutations.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from report import save
from splitcodec.cli.show import complain
from splitcodec.errors import OutputError, SplitcodecError
from splitcodec.evaluation.machine import commit, machine
from splitcodec.evaluation.output import made_folder

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
    """Run all and write; returns the exit code: 0, 2 as soon as one run fails, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/mutations.json"))
    options = parser.parse_args()
    told: dict[str, object] = {
        "command": "python benchmarks/mutations.py",
        "commit": commit(),
        "machine": machine(),
    }
    try:
        made_folder(options.out.parent)  # before hours rather than after them
        for name, commands in RUNS.items():
            told[name] = [_run(command) for command in commands]
        save(told, options.out)
    except SplitcodecError as error:
        complain(error)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _run(command: str) -> object:
    print(command, file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise OutputError(f"{command} ended with {done.returncode}; what it says is above")
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
