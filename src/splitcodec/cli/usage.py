"""Words that no command takes: one line and 2, as for all else that is refused.   used by: __init__.py

Typer draws a box of five lines around them, which a log or a script has to take apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, final

from typer import BadParameter
from typer.core import TyperGroup

from splitcodec.errors import SettingsError

_USAGE = BadParameter.__mro__[1]  # what such an error is, in Typer's own Click and in one beside it
_HELP = "NoArgsIsHelpError"  # no error: what `splitcodec` alone prints


@final
class Commands(TyperGroup):
    """The commands. Raises SettingsError for words that they do not take."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Read the words before the command's name."""
        with _in_one_line("splitcodec"):
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        """Read the others, and run the command."""
        with _in_one_line("splitcodec COMMAND"):
            return super().invoke(ctx)


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
