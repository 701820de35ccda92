"""The edge behind HTTP, all of it.   inside: settings, app, listen   asked by: device/link.py

    serve(Edge("efficientnet-lite0"), read_settings({"port": 8080}))

docs/server.md is for those who run it, docs/security.md says what is guarded and what is not.
"""

from __future__ import annotations

import logging
import logging.config
import os
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

from splitcodec.edge.answer import Edge
from splitcodec.edge.app import create_app
from splitcodec.edge.listen import BackgroundServer, run_app
from splitcodec.edge.logs import config as log_config
from splitcodec.edge.settings import Settings, default_settings, read_settings
from splitcodec.edge.sockets import is_loopback
from splitcodec.errors import SettingsError

if TYPE_CHECKING:  # where they are missing, app.py says so and names the extra
    from fastapi import FastAPI
    from starlette.types import ASGIApp

_log = logging.getLogger("splitcodec.edge")

__all__ = [
    "BackgroundServer",
    "Settings",
    "check_guarded",
    "create_app",
    "default_settings",
    "operator_settings",
    "read_settings",
    "serve",
    "teller",
]


def serve(
    edge: Edge | Callable[[], Edge],
    settings: Settings,
    *,
    announce: Callable[[str], None] | None = None,
    mounts: Mapping[str, ASGIApp] | None = None,
    extend: Callable[[FastAPI], None] | None = None,
    pages: Collection[str] = (),
    ends_process: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; `announce` is called with the URL once packets are answered.

    All logs go to stderr. `mounts` and `pages`: see `create_app`; `extend` may add routes to the application. `edge`
    may be a function that opens one: until it has, /readyz says 503. Returns after SIGTERM, raises KeyboardInterrupt
    after SIGINT; with `ends_process` it ends the process instead where a batch outlasts the drain, or bundles that are
    still being opened do, for Python would wait for that. Raises SettingsError (among others for a public address
    without a token), and whatever kept the bundles from opening.
    """
    check_guarded(settings)
    app = create_app(edge, settings, mounts=mounts, pages=pages)
    if extend is not None:
        extend(app)
    code = 0
    try:
        run_app(app, settings, announce=announce)
    except KeyboardInterrupt:
        code = 130
    if ends_process and app.state.service.busy:
        _log.warning("left while a batch was still being computed, or the bundles opened")
        sys.stdout.flush()
        os._exit(code)
    if code:
        raise KeyboardInterrupt


def operator_settings(options: Mapping[str, object]) -> Settings:
    """Return the settings, as `read_settings`, for a process that does nothing but serve: from here on it logs so.

    Raises SettingsError, as `check_guarded` too.
    """
    logging.config.dictConfig(log_config(str(options.get("log") or os.environ.get("SPLITCODEC_LOG"))))
    settings = read_settings(options)
    check_guarded(settings)
    return settings


def teller(settings: Settings) -> Callable[[str], None]:
    """Return what tells an operator where the server is: a line on stderr, or of the log where its lines are JSON."""
    return _log.info if settings.log == "json" else partial(print, file=sys.stderr, flush=True)


def check_guarded(settings: Settings) -> None:
    """Refuse a public address without a token, unless the settings insist. Raises SettingsError."""
    guarded = settings.tokens is not None or settings.tokens_file is not None
    if not (guarded or settings.insecure or is_loopback(settings.host)):
        raise SettingsError(
            f"host {settings.host} is open to others and no token is set; give --tokens-file FILE or "
            "SPLITCODEC_TOKENS, or --insecure if whoever reaches this address may ask"
        )
