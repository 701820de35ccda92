"""What packagers get: a source distribution whose own tests run, extras that are there, names that are told."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import splitcodec

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_source_distribution_holds_all_that_the_repository_holds() -> None:
    """Without benchmarks and reports its tests could not even be collected."""
    try:
        done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no repository here")
    tracked = {f"/{name.split('/')[0]}" for name in done.stdout.splitlines()}
    assert tracked <= set(PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])


def test_extras_that_texts_name_are_there() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "src").rglob("*.py"), ROOT / "Makefile"]
    named = {
        extra
        for page in pages
        for words in re.findall(r"(?:splitcodec|['\"]\.)\[([a-z,]+)\]", page.read_text(encoding="utf-8"))
        for extra in words.split(",")
    }
    assert {"edge", "train"} <= named <= extras


def test_the_pythons_that_are_promised_are_those_that_are_tried() -> None:
    """Nobody had tried another than 3.11; `make soak-pythons` does, on the runtime, `soak-pythons-all` on all of it."""
    classifiers = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["project"]["classifiers"]), re.M)
    (tried,) = re.findall(r"^PYTHONS \?= (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    (told,) = re.findall(
        r"`python3` \((3\.\d+) to (3\.\d+) are tried\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    assert [f"python{version}" for version in classifiers] == tried.split()
    assert told == (classifiers[0], classifiers[-1])
    assert PROJECT["project"]["requires-python"] == f">={classifiers[0]}"


def test_one_command_runs_all_tests_under_other_pythons() -> None:
    """Training, with PyTorch, had been tried under 3.11 alone; each Python has an environment of its own."""
    if (make := shutil.which("make")) is None or shutil.which("python3") is None:
        pytest.skip("make or python3 is not installed")
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    command = [make, "-n", "soak-pythons-all", "PYTHONS=python0.0 python3"]
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "python0.0 is not here" in said
    assert "python3 -m venv .venv-python3-all" in said
    (tested,) = (line for line in said if "-m pytest" in line and not line.startswith("tried="))
    assert tested.startswith("OMP_NUM_THREADS=1 .venv-python3-all/bin/python -m pytest")
    assert "tests/" not in tested  # all of them
    assert said[-1] == "held under python3"


def test_names_that_are_imported_late_are_told() -> None:
    assert set(splitcodec.__all__) <= set(dir(splitcodec))
    assert (Path(splitcodec.__file__).parent / "py.typed").is_file()
