"""How the scripts in benchmarks/ end: interrupted, or with nowhere to write to; one line each, and no half a report."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = {  # what measures, and what has to be given
    "ablations": ("measure", ["--data", "none"]),
    "browser": ("_measure", ["--data", "none"]),
    "budget": ("measure", ["--data", "none"]),
    "coder": ("measure", []),
    "corruptions": ("measure", ["--data", "none"]),
    "encode": ("measure", []),
    "footprint": ("measure", []),
    "int8": ("_measure", ["--photos", "none"]),
    "large_pictures": ("Device", []),
    "latency": ("lineup", ["--bundles", "BUNDLE", "--rates", "RATES"]),
    "learned_codecs": ("load", ["none", "--data", "none"]),
    "load": ("open_bundle", []),
    "mutations": ("_run", []),
    "providers": ("measure", []),
    "published": ("measure", ["--python", sys.executable]),
    "other_processor": ("measure", ["--python", sys.executable]),
    "own_classes": ("_measure", ["--photos", "none"]),
    "rate_accuracy": ("evaluate", ["--data", "none"]),
    "screenshots": ("take", []),
    "still": ("measure", ["--data", "none"]),
    "task_cost": ("measure", []),
}
FOLDERS = ("rate_accuracy", "screenshots")  # those that write several files

Run = Callable[..., int]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def run(load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_folder: Path) -> Run:
    """Return a function that runs a benchmark in an empty folder, its measuring replaced; an interrupt fails."""
    rates = tmp_path / "rd.json"
    rates.write_text('{"images": 1, "teacher_top1": 50, "points": []}')
    here = {"BUNDLE": str(tiny_folder), "RATES": str(rates)}
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(name: str, measuring: Callable[..., object], *words: str) -> int:
        script = load(name)
        attribute, needed = SCRIPTS[name]
        monkeypatch.setattr(script, attribute, measuring)
        told = [*(here.get(word, word) for word in needed), *words]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *told])
        try:
            code: int = script.main() if name == "load" else script.main(told)
        except KeyboardInterrupt:
            pytest.fail("the interrupt came through")
        return code

    return run


def interrupted(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


def no_measuring(*_: object, **__: object) -> Any:
    raise AssertionError("measured")


def test_every_benchmark_is_tried_here() -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("*.py") if "def main(" in path.read_text(encoding="utf-8")}
    assert scripts - {"results", "plots"} == set(SCRIPTS)  # those measure nothing


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_interrupt_is_one_line_and_130(name: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, interrupted) == 130
    assert capsys.readouterr().err.splitlines()[-1:] == ["interrupted"]
    assert [path for path in Path().rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("name", "place"),
    [(name, place) for name in SCRIPTS for place in ("taken/x.json", *(() if name in FOLDERS else ("folder", "")))],
)
def test_nowhere_to_write_is_said_before_measuring(
    run: Run, name: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").touch()
    Path("folder").mkdir()
    assert run(name, no_measuring, "--out", place) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("splitcodec: OutputError: ")


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_interrupt_while_a_benchmark_imports_is_one_line(name: str, tmp_path: Path) -> None:
    for large in ("numpy", "torch", "PIL"):  # whatever comes first: outcome.py has to come before it
        (tmp_path / f"{large}.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode in (130, -signal.SIGINT)  # a shell says 130 of either
    assert done.stderr == "interrupted\n"


def test_an_interrupt_while_compiled_code_is_loaded_is_one_line(
    load: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What loads it says ImportError, because of a KeyboardInterrupt."""
    (tmp_path / "numpy.py").write_text("raise ImportError('initialization failed') from KeyboardInterrupt()")
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "coder.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")

    def work() -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    assert load("outcome").exit_code(work) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "a/b"), "splitcodec: a/b: No such file or directory; mend"),
        (OSError("odd"), "splitcodec: the system: odd; mend"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    error: OSError, line: str, load: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert load("outcome").exit_code(work) == 2
    assert capsys.readouterr().err.startswith(line)


def test_nobody_need_read_what_a_benchmark_prints() -> None:
    words = "import sys; sys.path.insert(0, sys.argv[1]); from outcome import exit_code; print('ready', flush=True)"
    words += "; sys.stdin.read(); sys.exit(exit_code(lambda: print('x' * 9)))"
    command = [sys.executable, "-c", words, BENCHMARKS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"ready\n"
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 2


def test_a_process_of_a_benchmark_does_not_hear_the_terminal(load: Callable[[str], ModuleType]) -> None:
    outcome = load("outcome")
    blocked = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with outcome.deaf():
        process = subprocess.Popen([sys.executable, "-c", blocked], stdout=subprocess.PIPE)
    assert process.communicate(timeout=60)[0] == b"True\n"
    handler, reached = signal.getsignal(signal.SIGINT), False

    def start() -> None:
        nonlocal reached
        with outcome.deaf():
            os.kill(os.getpid(), signal.SIGINT)
            reached = True

    with pytest.raises(KeyboardInterrupt):
        start()
    assert reached
    assert signal.getsignal(signal.SIGINT) is handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
