from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from splitcodec.evaluation import machine


def test_the_machine_is_named_in_json() -> None:
    found = json.loads(json.dumps(machine.machine()))
    assert found["cores"] >= 1
    assert found["packages"]["numpy"]


def test_there_is_no_commit_outside_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = shutil.copy(machine.__file__, tmp_path / "machine.py")
    monkeypatch.setattr(machine, "__file__", str(copy))
    assert machine.commit() is None


def test_the_commit_of_a_checkout_is_found_and_its_changes_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    copy = Path(shutil.copy(machine.__file__, tmp_path / "machine.py"))
    person = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for arguments in (["init", "-q"], ["add", "machine.py"], [*person, "commit", "-q", "--no-verify", "-m", "x"]):
        subprocess.run([git, "-C", str(tmp_path), *arguments], check=True, capture_output=True)
    monkeypatch.setattr(machine, "__file__", str(copy))
    commit = machine.commit()
    assert commit is not None
    assert len(commit) == 40
    copy.write_text("changed")
    assert machine.commit() == f"{commit}-dirty"


def test_without_git_there_is_no_commit_and_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/nowhere/git")
    assert machine.commit() is None
