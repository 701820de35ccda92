"""Words that no command takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.errors import BundleNotFound, DataError, SettingsError


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("train recipe.yaml --photos DIR --out", "'--out' / '-o'"),
        ("train recipe.yaml --photos DIR --out=", "'--out' / '-o'"),
        ("train recipe.yaml --out run --photos DIR --photos", "'--photos'"),  # one of several
        ("train", "'RECIPE'"),
        ("train-task recipe.yaml --out run --data", "'--data'"),
        ("evaluate --data DIR --out", "'--out'"),  # which may be left out, but not empty
        ("encode 0.png", "'IMAGE'"),
        ("bundle pack efficientnet-lite0 --out", "'--out' / '-o'"),
        ("watch --url http://127.0.0.1:9", "'DIR'"),
        ("serve --tokens-file", "'--tokens-file'"),
    ],
)
def test_an_empty_word_is_no_path(words: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train --out "$RUN"` without that variable trained into the folder that one was in."""
    monkeypatch.chdir(tmp_path)
    empty = [] if words.endswith("=") else [""]
    with pytest.raises(SettingsError) as refused:
        CliRunner().invoke(app, [*words.split(), *empty], catch_exceptions=False)
    command = " ".join(words.split()[: 2 if words.startswith("bundle") else 1])
    said = f"Invalid value for {named}: it is empty; give a path (the folder that you are in is .); see splitcodec "
    assert str(refused.value) == f"{said}{command} --help"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_word_is_no_bundle(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was whatever lay in the folder that one was in."""
    monkeypatch.chdir(tiny_folder)
    assert CliRunner().invoke(app, ["info", "."]).exit_code == 0
    for words in (["info"], ["encode", "0.png", "-o", str(tmp_path), "-b"], ["serve", "-b"]):
        with pytest.raises(BundleNotFound, match=r"^an empty name: no such folder or zip"):
            CliRunner().invoke(app, [*words, ""], catch_exceptions=False)


def test_a_word_that_is_begun_is_no_command_yet() -> None:
    group: Any = typer.main.get_command(app)
    context = group.make_context("splitcodec", ["trai"], resilient_parsing=True)  # as a shell completes it
    assert group.resolve_command(context, ["trai"])[1] is None


def test_an_option_that_is_no_path_may_be_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        CliRunner().invoke(app, ["evaluate", "--data", str(tmp_path), "--codecs", ""], catch_exceptions=False)
