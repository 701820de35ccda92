"""The bearer token that commands show to an edge: from a file, or from the environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import typer

from splitcodec.errors import SettingsError

_MOST_LETTERS = 1 << 20  # of a token's file

TokenFileOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="File with the bearer token. Default: SPLITCODEC_TOKEN."),
]


def read_token(file: Path | None, *, url: str = "") -> str | None:
    """Return the bearer token in a file (none: that in SPLITCODEC_TOKEN, if any).

    The first line counts that is neither blank nor begins with #. Raises SettingsError, also for a `url` that takes
    none.
    """
    if file is not None and url.lower().startswith(("mqtt://", "mqtts://")):
        raise SettingsError(
            "--token-file: MQTT takes none; give user and password in --url, or SPLITCODEC_MQTT_USERNAME and _PASSWORD"
        )
    if file is None:
        token = os.environ.get("SPLITCODEC_TOKEN", "").strip()
        if any("\udc80" <= one <= "\udcff" for one in token):  # as Python reads bytes that are no text
            raise SettingsError("SPLITCODEC_TOKEN: not UTF-8; set it to text, such as `openssl rand -hex 24` gives")
        return token or None
    try:
        with file.open(encoding="utf-8-sig") as opened:
            text = opened.read(_MOST_LETTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"token file {file}: {reason}; give a file that holds the token") from None
    if len(text) > _MOST_LETTERS:
        raise SettingsError(f"token file {file}: more than {_MOST_LETTERS} letters; give a file that holds the token")
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return line.strip()
    raise SettingsError(f"token file {file} holds no token; put it on a line of its own")


def token_reader(file: Path | None, *, url: str = "") -> Callable[[], str | None]:
    """Return what reads the token anew each time, as `read_token`; a pipe, which may wait for its writer, just once."""
    read = partial(read_token, file, url=url)
    return read if file is None or file.is_file() else cache(read)
