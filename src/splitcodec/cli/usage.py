"""Words that no command takes: one line and 2, as for all else that is refused.   used by: __init__.py

Typer draws a box of five lines around them, which a log or a script has to take apart.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final, get_args, get_type_hints

from typer import BadParameter
from typer.core import TyperGroup

from splitcodec.errors import SettingsError

_USAGE = BadParameter.__mro__[1]  # what such an error is, in Typer's own Click and in one beside it
_HELP = "NoArgsIsHelpError"  # no error: what `splitcodec` alone prints


@final
class Commands(TyperGroup):
    """The commands. Raises SettingsError for words that they do not take, an empty one in place of a path included."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Read the words before the command's name."""
        with _in_one_line("splitcodec"):
            return super().make_context(*arguments, **more)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, and see to it that it takes no empty path."""
        found = super().resolve_command(ctx, args)
        if found[1] is not None:  # a word that a shell would complete
            _refuse_empty_paths(found[1])
        return found

    def invoke(self, ctx: Any) -> Any:
        """Read the others, and run the command."""
        with _in_one_line("splitcodec COMMAND"):
            return super().invoke(ctx)


def _refuse_empty_paths(command: Any) -> None:
    """Make a command, and those below it, refuse an empty word where a path is expected.

    What a shell makes of a variable that is not set, `--out "$OUT"`, would be the current directory.
    """
    for below in getattr(command, "commands", {}).values():
        _refuse_empty_paths(below)
    hints = get_type_hints(inspect.unwrap(command.callback)) if command.callback is not None else {}
    for parameter in command.params:
        if _is_path(hints.get(parameter.name)):
            parameter.process_value = _refusing(parameter.process_value)


def _is_path(hint: Any) -> bool:
    return hint is Path or any(map(_is_path, get_args(hint)))


def _refusing(process: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def processed(ctx: Any, value: Any) -> Any:
        if value == "" or (isinstance(value, list | tuple) and "" in value):
            raise BadParameter("it is empty; give a path (the folder that you are in is .)")
        return process(ctx, value)

    return processed


@contextlib.contextmanager
def _in_one_line(command: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not isinstance(error, _USAGE) or type(error).__name__ == _HELP:
            raise
        at = getattr(error, "ctx", None)
        said = error.format_message().rstrip(".").replace(": Value error, ", ": ")  # type: ignore[attr-defined]  # `_USAGE` has it
        raise SettingsError(f"{said}; see {command if at is None else at.command_path} --help") from None
