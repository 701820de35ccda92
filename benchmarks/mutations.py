"""Mutated packets and bundles by the thousand: runs what `make soak` runs and writes down the outcomes.

python benchmarks/mutations.py --out reports/mutations.json
"""

from __future__ import annotations

import argparse
import atexit
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from outcome import deaf, exit_code

from report import ready, save
from splitcodec.errors import OutputError
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all and write; returns the exit code: 0, 2 as soon as one run fails, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/mutations.json"))
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run_all(options.out))


def _run_all(out: Path) -> None:
    ready(out)
    told: dict[str, object] = {
        "command": "python benchmarks/mutations.py",
        "commit": commit(),
        "machine": machine(),
    }
    for name, commands in RUNS.items():
        told[name] = [_run(command) for command in commands]
    save(told, out)


def _run(command: str) -> object:
    print(command, file=sys.stderr, flush=True)
    with deaf():
        running = subprocess.Popen([sys.executable, "-m", *command.split()], cwd=ROOT, stdout=subprocess.PIPE)
        atexit.register(running.kill)  # whatever ends the benchmark; does nothing to one that has ended
    told, _ = running.communicate()
    if running.returncode:
        raise OutputError(f"{command} ended with {running.returncode}; what it says is above")
    return json.loads(told)


if __name__ == "__main__":
    sys.exit(main())
