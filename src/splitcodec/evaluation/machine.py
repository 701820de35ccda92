"""Where and with what a number was measured.   used by: rate.py, versions.py"""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from splitcodec.ahead import cores
from splitcodec.session import processor, runtime_version

_PACKAGES = ("splitcodec", "numpy", "onnxruntime", "constriction", "pillow")


def machine() -> dict[str, object]:
    """Return processor, cores, system, and the versions of Python and of the packages that matter."""
    versions = {name: package_version(name) for name in _PACKAGES} | {"onnxruntime": runtime_version()}
    return {
        "cpu": processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name, found in versions.items() if found},
    }


def commit() -> str | None:
    """Return the commit of the checkout that this code runs from, with "-dirty" if it was changed; None outside."""
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)  # not some other repository around an environment
        return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = [shutil.which("git") or "git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def package_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
