"""Installed size and peak resident memory of the device half, in an empty environment without extras.

    python benchmarks/footprint.py [--wheel FILE] --out reports/footprint.json

Makes a virtual environment, installs the wheel (none: the one for devices, built for it out of this checkout) with its
base dependencies, weighs the files, and encodes a photograph there, with constriction and in a process that lacks it.
What pip, Python and the environment itself take is not counted. Byte code (`__pycache__`) is told apart: pip makes it
of every module unless it is told `--no-compile`, as docs/raspberry-pi.md does; Python then makes that of the modules it
runs. So the files are weighed as pip leaves them, without byte code, and after the device's commands have all run.
Linux alone, for the peak is the kernel's (ru_maxrss).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from outcome import exit_code

from report import ready, write
from splitcodec.cli.show import print_table
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.errors import MissingExtra, OutputError, SettingsError
from splitcodec.wire.bundle import open_bundle

ROOT = Path(__file__).parent.parent
TARGET_MB = 200.0
_RUN = """
import json, resource, sys
{before}
from splitcodec.device.client import Device
device = Device({bundle!r}, threads=1)
sizes = [len(device.encode({photo!r})) for _ in range(5)]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
heavy = {{"torch", "onnx", "fastapi", "constriction", "httpx"}}
loaded = sorted({{name.partition(".")[0] for name in sys.modules}} & heavy)
print(json.dumps({{"bytes": sizes[-1], "peak_bytes": peak, "plain_coder": device.plain_coder, "loaded": loaded}}))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="default: this checkout")
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--out", type=Path, default=Path("reports/footprint.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _weigh(options))


def _weigh(options: argparse.Namespace) -> None:
    ready(options.out)
    report = measure(options)
    write(report, options.out, name="footprint.py", options=options)
    rows = [(name, f"{size / 1e6:.1f}") for name, size in report["packages"].items()]
    totals = [("the wheel itself", f"{report['wheel_mb']:.1f}"), ("all", f"{report['installed_mb']:.1f}")]
    totals += [("without byte code", f"{report['without_byte_code_mb']:.1f}")]
    totals += [("in use, installed without byte code", f"{report['in_use_mb']:.1f}")]
    print_table("installed, MB", ("package", "MB"), [*rows, *totals])
    peaks = [(name, f"{run['peak_mb']:.1f}") for name, run in report["runs"].items()]
    print_table("peak resident memory of five encodes, MB", ("coder", "MB"), peaks)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the report. Raises SettingsError, BundleError, MissingExtra, OutputError where a command fails."""
    if options.wheel is not None and not options.wheel.is_file():
        raise SettingsError(f"--wheel {options.wheel}: no such file; `make wheel-device` builds one")
    if options.wheel is None:
        open_bundle(options.bundle)  # before an environment is made; a wheel may hold others than this checkout
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "venv"
        try:
            venv.create(place, with_pip=True)
        except subprocess.CalledProcessError:
            raise MissingExtra("no environment can be made, for pip is missing; apt-get install python3-venv") from None
        python = place / "bin" / "python"
        packages = next((place / "lib").glob("python*/site-packages"))
        before = set(packages.iterdir())
        wheel = options.wheel or _device_wheel(Path(folder))
        weight = wheel.stat().st_size / 1e6
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)])
        paths = sorted(set(packages.iterdir()) - before)
        sizes = {path.name: _size(path) for path in paths}
        photo = Path(folder) / "photo.jpg"
        photo.write_bytes(PHOTOGRAPHS[0].read())
        runs = {}
        for name, line in (("constriction", ""), ("plain", "sys.modules['constriction'] = None")):
            code = _RUN.format(before=line, bundle=options.bundle, photo=str(photo))
            runs[name] = json.loads(_run([str(python), "-c", code], cwd=folder))
            runs[name]["peak_mb"] = runs[name].pop("peak_bytes") / 1e6
        for one in [one for path in paths if path.is_dir() for one in path.rglob("__pycache__")]:
            shutil.rmtree(one)
        slim = sum(map(_size, paths)) / 1e6
        _use(python, options.bundle, photo, Path(folder))
        in_use = sum(map(_size, paths)) / 1e6
    whole = sum(sizes.values()) / 1e6
    top = dict(sorted(_by_package(sizes).items(), key=lambda item: -item[1]))
    return {
        "wheel": wheel.name,
        "wheel_mb": weight,
        "installed_mb": whole,
        "without_byte_code_mb": slim,
        "in_use_mb": in_use,
        "packages": top,
        "runs": runs,
        "target_mb": TARGET_MB,
    }


def _use(python: Path, bundle: str, photo: Path, folder: Path) -> None:
    """Run the device's commands once each, so that Python keeps the byte code of what they import."""
    state = {"XDG_STATE_HOME": str(folder / "state"), "HOME": str(folder)}
    nowhere = ("--url", "http://127.0.0.1:9", "--bundle", bundle)  # asking and waiting import all there is to import
    for words, codes in (
        (("info", bundle), {0}),
        (("check", bundle), {0}),
        (("tune", bundle, "--threads", "1"), {0}),
        (("encode", str(photo), "-b", bundle, "-o", str(folder)), {0}),
        (("ask", str(photo), *nowhere, "--retries", "0"), {2}),
        (("watch", str(folder), *nowhere, "--once", "--settle", "0", "--timeout", "1"), {2}),
    ):
        _run([str(python), "-m", "splitcodec.cli", *words], cwd=str(folder), more=state, codes=codes)


def _device_wheel(folder: Path) -> Path:
    """Build the wheel for devices out of this checkout."""
    _run([sys.executable, str(ROOT / "deploy" / "device_wheel.py"), "--out", str(folder)])
    return next(folder.glob("*.whl"))


def _by_package(sizes: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, size in sizes.items():
        plain = name.split("-")[0].removesuffix(".libs").removesuffix(".py").lower()
        plain = {"pil": "pillow"}.get(plain, plain)
        found[plain] = found.get(plain, 0) + size
    return found


def _size(path: Path) -> int:
    return (
        path.stat().st_size if path.is_file() else sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    )


def _run(
    command: list[str], *, cwd: str | None = None, more: Mapping[str, str] | None = None, codes: Collection[int] = (0,)
) -> str:
    environment = {
        "PATH": str(Path(shutil.which("env") or "/usr/bin/env").parent),
        "OMP_NUM_THREADS": "1",
        **(more or {}),
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    if done.returncode not in codes:
        raise OutputError(f"{command[0]} failed: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
