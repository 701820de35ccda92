"""Ctrl-C at any moment of a command: one line on stderr, 130, no traceback."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from splitcodec.cli.interrupts import came_of_interrupt

import pytest

from tests.cli.test_cli import run

BECAUSE = "raise ImportError('initialization failed') from KeyboardInterrupt()"  # so compiled code has it


@pytest.mark.parametrize("large", ["typer", "rich"])
def test_while_the_commands_are_imported(large: str, tmp_path: Path) -> None:
    (tmp_path / f"{large}.py").write_text("raise KeyboardInterrupt")
    done = run("--help", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode in (130, -signal.SIGINT)  # a shell says 130 of either
    assert (done.stdout, done.stderr) == ("", "interrupted\n")


@pytest.mark.parametrize("interrupt", ["raise KeyboardInterrupt", BECAUSE])
@pytest.mark.parametrize("large", ["numpy", "onnxruntime"])
def test_while_a_command_imports_what_it_needs(large: str, interrupt: str, tiny_folder: Path, tmp_path: Path) -> None:
    """It was a traceback that ended in an ImportError, and 1."""
    (tmp_path / f"{large}.py").write_text(interrupt)
    done = run("encode", "no.jpg", "-b", tiny_folder, env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_what_came_of_an_interrupt() -> None:
    def raised(inner: BaseException) -> BaseException:
        try:
            try:
                raise inner
            except BaseException:
                raise SystemExit(130)  # noqa: B904 - what is tried here is an exception with a context alone
        except SystemExit as error:
            return error

    assert came_of_interrupt(KeyboardInterrupt())
    assert came_of_interrupt(raised(KeyboardInterrupt()))
    assert not came_of_interrupt(raised(OSError(os.strerror(2))))
    assert not came_of_interrupt(SystemExit(130))
    assert not came_of_interrupt(None)
