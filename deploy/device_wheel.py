"""Build the wheel for devices: the same code, and of each bundle of the zoo only the device's half.

    python deploy/device_wheel.py --out dist        # make wheel-device

Heads, decoders and tails, nine tenths of the zoo, stay away; encoders and tables are the same files, so packets and
fingerprints are too. Golden vectors are the same as well, but their pictures lie there once for all bundles.
`splitcodec serve`, `demo` and `evaluate` say on such an install that they need the whole bundle. The version ends in
`+device`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from splitcodec.cli.show import complain
from splitcodec.errors import OutputError, SplitcodecError
from splitcodec.evaluation.golden import PICTURES, apart
from splitcodec.wire.archive import GRAPHS
from splitcodec.wire.bundle import open_bundle, split_device, zoo_names
from splitcodec.wire.zoo import store_shared

ROOT = Path(__file__).parent.parent
ZOO = Path("src/splitcodec/zoo")
VERSION = Path("src/splitcodec/__init__.py")
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "LICENSES.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and name the wheel; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        wheel = build(options.out)
    except SplitcodecError as error:
        complain(error)
        return 2
    print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB")
    return 0


def build(out: Path) -> Path:
    """Build the wheel into a folder and return its path. Raises OutputError."""
    with tempfile.TemporaryDirectory() as folder:
        tree, made = Path(folder) / "tree", Path(folder) / "dist"
        shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
        for name in NEEDED:
            shutil.copy2(ROOT / name, tree / name)
        halve(tree / ZOO)
        version = tree / VERSION
        version.write_text(re.sub(r'(?m)^(__version__ = "[^"+]+)"', r'\1+device"', version.read_text("utf-8")), "utf-8")
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(made), str(tree)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OutputError(f"no wheel was built: {' '.join((done.stderr or done.stdout).split())[-300:]}")
        (wheel,) = made.glob("*.whl")
        try:
            out.mkdir(parents=True, exist_ok=True)
            return Path(shutil.copy2(wheel, out / wheel.name))
        except OSError as error:
            raise OutputError(f"cannot write to {out}: {error.strerror or error}; free some space") from error


def halve(zoo: Path) -> None:
    """Replace every bundle of a zoo's folder by its device's half; of what they shared only golden pictures stay."""
    halves = zoo / ".halves"
    for ident in zoo_names(zoo):
        half = split_device(apart(open_bundle(ident, zoo=zoo)), halves / ident)
        sha256 = half.manifest.files[PICTURES].sha256
        store_shared(half.read(PICTURES), halves, name=PICTURES, sha256=sha256)
        (halves / ident / PICTURES).unlink()
        shutil.rmtree(zoo / ident)
    shutil.rmtree(zoo / GRAPHS)
    for folder in halves.iterdir():
        folder.rename(zoo / folder.name)
    halves.rmdir()


if __name__ == "__main__":
    sys.exit(main())
