"""What is wrong whatever the photographs are is said before they are read: that takes minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.wire.bundle import open_bundle, split_device


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Return a folder of one picture that cannot be read; who reads it says so."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no picture")
    return tmp_path / "photos"


@pytest.fixture
def half(tiny_folder: Path, tmp_path: Path) -> Path:
    return split_device(open_bundle(tiny_folder), tmp_path / "half").path


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["contexts", "HALF"], "tiny@1 is the device's half; contexts are for both"),
        (["contexts", "TINY", "--like", "nosuch"], "nosuch: no such folder or zip"),
        (["contexts", "TINY", "--like", "TINY"], "tiny@1 has no contexts"),
        (["contexts", "TINY", "--start", "TINY"], "tiny@1 has no contexts"),
        (["contexts", "TINY", "--like", "efficientnet-lite0"], "their latents cannot mean the same"),
        (["contexts", "TINY", "--start", "efficientnet-lite0"], "contexts to begin with: 10 levels"),
        (["levels", "HALF", "--bytes", "60"], "tiny@1 is the device's half; levels are for both"),
        (["quantise", "HALF"], "tiny@1 is the device's half, whose loss cannot be measured"),
        (["quantise", "TINY", "--name", "My Bundle"], "name is 'My Bundle'"),
        (["calibrate", "-b", "TINY", "--name", "My Bundle"], "name is 'My Bundle'"),
    ],
)
def test_before_photographs_are_read(
    words: list[str], says: str, broken: Path, half: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    if words[0] in ("contexts", "quantise"):
        pytest.importorskip("torch")
    places = {"TINY": str(tiny_folder), "HALF": str(half)}
    given = [places.get(word, word) for word in words]
    done = CliRunner().invoke(app, [*given, "--photos", str(broken), "-o", str(tmp_path / "out")])
    assert says in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_learning_without_torch_is_refused_before(
    broken: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch", "splitcodec.training.contexts"):
        monkeypatch.setitem(sys.modules, name, None)
    done = CliRunner().invoke(app, ["contexts", str(tiny_folder), "--photos", str(broken), "-o", str(tmp_path / "out")])
    assert "install it with: pip install 'splitcodec[train]'" in str(done.exception)
