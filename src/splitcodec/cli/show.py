"""What all commands share: options, JSON, tables, progress on stderr, and doing the others when one fails."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from splitcodec.errors import MissingExtra, SettingsError, SplitcodecError, TaskError
from splitcodec.wire.answer import GUESSES, LEAST_SCORE, MOST_GUESSES

if TYPE_CHECKING:
    from splitcodec.training.distill import Progress as Stage
    from splitcodec.wire.bundle import Bundle

DEFAULT_BUNDLE = "efficientnet-lite0"

BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="A zoo name, a folder or a .zip.")]
BundleOption = Annotated[
    str, typer.Option("--bundle", "-b", metavar="B", help="A zoo name (name or name@version), a folder or a .zip.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
CodingOption = Annotated[
    int | None,
    typer.Option("--coding", min=0, metavar="C", help="0: by channel, 2: by context. Default: 2 if the bundle has it."),
]
LevelOption = Annotated[
    int | None,
    typer.Option("--level", "-l", metavar="N", help="Rate level: 0 costs the fewest bytes. Default: the bundle's own."),
]
TopOption = Annotated[
    int | None,
    typer.Option("--top", min=1, max=MOST_GUESSES, metavar="K", help=f"Guesses to ask for ({GUESSES}); one is least."),
]
ScoreOption = Annotated[
    float | None,
    typer.Option("--score", min=0, max=1, metavar="S", help=f"Least score of boxes to ask for ({LEAST_SCORE})."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=1024, metavar="N", help="Threads for the network. Default: all cores."),
]
PicturesAtATimeOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=1024, metavar="N", help="Pictures at a time. Default: one per core."),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds to wait for an answer.")]
EncoderOption = Annotated[
    str,
    typer.Option("--encoder", metavar="E", help="fp32, int8, or tuned: what `splitcodec tune` chose here, else fp32."),
]

NewNameOption = Annotated[
    str | None, typer.Option("--name", metavar="NEW", help="The new bundle's name; else that of the one it is made of.")
]
NewVersionOption = Annotated[
    int | None, typer.Option("--version", min=1, metavar="N", help="Its version; else that of the one it is made of.")
]

_MOST = 1e9  # of any unit; waits of more seconds overflow
_WIDEST = 100_000  # characters of a table that is written to a file
T = TypeVar("T")
R = TypeVar("R")


def checked_encoder(text: str) -> Literal["fp32", "int8", "tuned"]:
    """Return the value of --encoder. Raises SettingsError."""
    if text not in ("fp32", "int8", "tuned"):
        raise SettingsError(f"--encoder {text}; expected fp32, int8 or tuned")
    return cast(Literal["fp32", "int8", "tuned"], text)


def task_names(text: str) -> list[str]:
    """Return the value of --tasks. Raises SettingsError for none, or for what is no text."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or not text.isprintable():
        raise SettingsError(f"--tasks {text!r}; expected names with commas between them, such as classify,detect")
    return names


def check_tasks(bundle: Bundle, names: Sequence[str]) -> None:
    """Refuse a task that the bundle does not list. One that lists none does not say what an edge answers.

    Raises TaskError.
    """
    known = bundle.manifest.tasks
    if unknown := [name for name in names if known and name not in known]:
        raise TaskError(f"--tasks {unknown[0][:40]!r}; {bundle.ident} has {', '.join(known)}, give some of these")


def check_finite(options: Mapping[str, float | None]) -> None:
    """Refuse numbers that are none, or that no wait is as long as. Raises SettingsError."""
    for name, value in options.items():
        if value is not None and not value <= _MOST:  # nor NaN
            raise SettingsError(f"{name} {value}; expected a number of at most {_MOST:,.0f}")


def complain(error: object) -> None:
    """Print one line on stderr, if that takes it: which refusal, and what it says."""
    kind = f"{type(error).__name__}: " if isinstance(error, SplitcodecError) else ""
    with contextlib.suppress(OSError):  # a log on a full disk: the rest is done all the same, the exit code stays
        print(legible("splitcodec: " + kind + " ".join(str(error).split())), file=sys.stderr)


def legible(text: str) -> str:
    """Return text without what a terminal would obey: names of files and labels of servers are other people's."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def print_json(value: Any) -> None:
    """Print JSON alone."""
    print(json.dumps(value, indent=1, allow_nan=False))


def written(bundle: Bundle, out: Path) -> dict[str, str]:
    """Return what --json says of every bundle that a command writes (docs/bundle-format.md, section 6)."""
    return {"bundle": bundle.ident, "path": str(out), "fingerprint": bundle.fingerprint.hex()}


def tell_kept(was: str, made: Bundle) -> None:
    """Say on stdout where a new bundle has the name@version of the one it was made of, and how to give it another."""
    if made.ident == was:
        print(f"It is still called {was}, so logs and answers do not tell the two apart; --name or --version does.")


def finished(run: Path, provenance: Mapping[str, Any] | None, *, command: str) -> bool:
    """Say whether the run that was exported had finished; on stderr too, where it had not."""
    report = (provenance or {}).get("report", {})
    if not report.get("finished"):
        stage = f", {report['stage']}" if "stage" in report else ""
        complain(f"{run} has not finished: exported from its last checkpoint{stage}; `{command}` again goes on with it")
    return bool(report.get("finished"))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> None:
    """Print a table on stdout; the first `left` columns are text, the others are flush right.

    Where stdout is no terminal no cell is broken, so that names of files can be found in it.
    """
    table = Table(header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(legible(str(cell))) for cell in row))  # text, not markup: a box is "[car] 66 %"
    console, head = Console(width=None if sys.stdout.isatty() else _WIDEST), Text(legible(title), style="table.title")
    if not sys.stdout.isatty():
        console.width = max(console.measure(one).maximum for one in (table, head))
    console.print(head)  # the table's own breaks at its edge
    console.print(table)


@contextlib.contextmanager
def progress(*, every_s: float = 30.0) -> Iterator[Progress]:
    """Show a progress bar on stderr; where that is no terminal, one plain line every `every_s` seconds and no other."""
    console = Console(stderr=True)
    console.soft_wrap = not console.is_terminal  # a log's lines are broken by whoever reads it
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # else even an empty bar ends in a blank line
    )
    if console.is_terminal:
        with bar:
            yield bar
        return
    done = threading.Event()

    def tell() -> None:
        while not done.wait(every_s):
            for task in bar.tasks[-1:]:
                print(_plain(task), file=sys.stderr, flush=True)

    telling = threading.Thread(target=tell, name="progress", daemon=True)
    telling.start()
    try:
        yield bar
    finally:
        done.set()
        telling.join()


def counter(bar: Progress, what: str, total: int | None = None) -> Callable[[int, int], None]:
    """Return what takes (done, of how many) and shows it in the bar under a name."""
    task = bar.add_task(what, total=total, note="")
    return lambda done, of: bar.update(task, completed=done, total=of)


def stage_counter(bar: Progress) -> Callable[[Stage], None]:
    """Return what takes how far a training is, and shows each of its stages in the bar."""
    tasks: dict[str, TaskID] = {}

    def tell(now: Stage) -> None:
        if now.message:
            bar.console.print(f"{now.stage}: {now.message}")
            return
        if now.stage not in tasks:
            tasks[now.stage] = bar.add_task(now.stage, total=now.of_images, note="")
        sizes = " ".join(f"{size:.2f}" for size in now.kilobytes)
        sizes = f"kB {sizes}, " if sizes else ""  # a task, and a stage of kind latents, has none
        note = f"loss {now.loss:.3f}, {sizes}{now.images_per_s:.0f} images/s"
        bar.update(tasks[now.stage], completed=now.images, note=note)

    return tell


def _plain(task: Task) -> str:
    of = "" if task.total is None else f"/{task.total:,.0f}"
    note = task.fields.get("note")
    return f"{task.description}: {task.completed:,.0f}{of}" + (f", {note}" if note else "")


def each(
    items: Sequence[T],
    do: Callable[[T], R],
    *,
    what: str,
    failed: Callable[[T, SplitcodecError], R] | None = None,
    of_all: Callable[[SplitcodecError], bool] = lambda _: False,
) -> tuple[list[R], int]:
    """Do all items, also when some are refused; complain of those. Returns the results and the number of failures.

    What is refused has no result, or, in its place, what `failed` makes of it. After a refusal that the others would
    meet as well (`of_all`), they are not tried, and count as refused.
    """
    done: list[R] = []
    failures = 0
    with progress() as bar:
        task = bar.add_task(what, total=len(items), note="")
        for place, item in enumerate(items):
            try:
                done.append(do(item))
            except SplitcodecError as error:
                complain(type(error)(f"{_named(item)}: {error}" if str(item) not in str(error) else str(error)))
                alike = items[place:] if of_all(error) else [item]
                failures += len(alike)
                if failed is not None:
                    done += [failed(one, error) for one in alike]
                if len(alike) > 1:
                    complain(f"the same would be said of the other {len(alike) - 1}, which were not tried")
                    break
            bar.advance(task)
    return done, failures


def problem(error: SplitcodecError) -> dict[str, dict[str, str]]:
    """Return what --json says of an item in place of its answer: which refusal, and what it says."""
    return {"error": {"type": type(error).__name__, "detail": " ".join(str(error).split())}}


def leave(failures: int) -> None:
    """Leave with 2 if something failed."""
    if failures:
        raise typer.Exit(2)


def guesses(answer: Any, *, top: int = 3) -> str:
    """Return the best guesses of an answer as text; of boxes those that are likely right, which `--draw` draws."""
    from splitcodec.device.overlay import SHOWN

    answers = answer["answers"]
    words = [f"{g['label'].split(',')[0]} {100 * g['p']:.0f} %" for g in answers.get("classify", [])[:top]]
    likely = [one for one in answers.get("detect", []) if one["score"] >= SHOWN]
    words += [f"[{one['label']}] {100 * one['score']:.0f} %" for one in likely[:top]]
    words += ["no objects"] if "detect" in answers and not likely else []
    words += [
        f"{one['label']} on {100 * one['share']:.0f} %" for one in answers.get("segment", {}).get("classes", [])[:top]
    ]
    return legible(", ".join(words))


def _named(item: object) -> str:
    return str(item) if isinstance(item, str | Path) else type(item).__name__


@contextlib.contextmanager
def training_room() -> Iterator[None]:
    """Refuse a command whose imports, inside, are of a training room that is not installed. Raises MissingExtra."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(f"training needs {error.name}; install it with: pip install 'splitcodec[train]'") from None
