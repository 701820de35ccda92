"""The command line: parse, call, print. Every other room is imported inside the command that needs it.

Progress and logs go to stderr, results to stdout; `--json` prints JSON alone. Exit codes: 0 done, 2 refused or failed,
130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys

from splitcodec.cli.interrupts import INTERRUPTED, came_of_interrupt, say_interrupted

import typer

from splitcodec.cli import (
    arena,
    bridge,
    bundles,
    classes,
    contexts,
    device,
    edge,
    models,
    published,
    quantise,
    tasks,
    top,
    watch,
)
from splitcodec.cli.show import complain
from splitcodec.cli.usage import Commands
from splitcodec.errors import SplitcodecError, one_line

app = typer.Typer(
    name="splitcodec",
    cls=Commands,
    help="Send what the model needs, not the picture: packets of features from a weak device, answers from the edge.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for room in (edge, bridge, top, device, watch, models, published, tasks, bundles, quantise, contexts, classes, arena):
    room.add_to(app)


@app.callback(invoke_without_command=True)
def _top(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from splitcodec import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; every refusal becomes one line on stderr and exit code 2, an interrupt one line and 130."""
    # before NumPy is loaded: matrices here are small, and threads for them would spin beside ONNX Runtime's
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us (2>&-): no file of ours may take its number
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be of the terminal's letters
    try:
        app(prog_name="splitcodec")
    except BaseException as error:
        sys.exit(_ended(error))


def _ended(error: BaseException) -> int | str | None:
    """Say why a command ended, unless that is said already; return its exit code. Raises what is a fault of ours."""
    if came_of_interrupt(error):  # typer's own exit because of one, too
        say_interrupted()
        return INTERRUPTED
    if isinstance(error, SystemExit):  # 1: nobody reads stdout any more, or a question was not answered
        return 2 if error.code == 1 else error.code
    if isinstance(error, SplitcodecError):
        complain(error)
    elif isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif _lacks_memory(error):
        complain(
            f"not enough memory ({one_line(error)}); training takes less with a smaller stageN.batch or "
            "data.memory_mb, other commands with fewer --threads or smaller pictures"
        )
    elif isinstance(error, OSError):
        complain(f"{error.filename or 'the system'}: {error.strerror or error}; mend that and try again")
    else:
        raise error
    return 2


def _lacks_memory(error: BaseException) -> bool:
    """Say whether Python, NumPy or PyTorch, on a processor or a GPU, found no memory; imports none of them."""
    names = {one.__name__ for one in type(error).__mro__}
    return bool({"MemoryError", "OutOfMemoryError"} & names) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
