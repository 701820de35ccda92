"""Beside server.py: what the server logs, as text or as one JSON object a line, always to stderr.

A record of a request carries its id, which the client may choose (X-Request-Id) and always gets back. Nothing of a
client reaches a line unescaped.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, final

REQUEST_ID: ContextVar[str] = ContextVar("splitcodec_request_id", default="")
_ID = re.compile(r"[0-9A-Za-z_.-]{1,64}")
_FACTS = "splitcodec"  # the attribute of a record that holds its facts


def request_id(came: str | None) -> str:
    """Return the client's own id if it is 1 to 64 letters, digits, '_', '-' and '.', else a new one."""
    return came if came and _ID.fullmatch(came) else uuid.uuid4().hex


def facts(**values: object) -> dict[str, Any]:
    """Return what `Logger.info(..., extra=...)` takes to put named values into a record."""
    return {_FACTS: values}


@final
class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, request_id, and the facts of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if one := REQUEST_ID.get():
            line["request_id"] = one
        line.update(getattr(record, _FACTS, {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@final
class TextLines(logging.Formatter):
    """Time, level, message, and the facts of the record as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        when = datetime.fromtimestamp(record.created).astimezone().isoformat(sep=" ", timespec="milliseconds")
        told = [when, record.levelname, record.getMessage()]
        given: dict[str, Any] = getattr(record, _FACTS, {})
        told += [f"{name}={_word(value)}" for name, value in given.items() if value not in (None, "")]
        if one := REQUEST_ID.get():
            told.append(f"id={one}")
        text = " ".join(_printable(part) for part in told)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


@final
class Rarely(logging.Filter):
    """Lets asyncio say in one line, every ten seconds, that a connection cannot be taken.

    It tries as often as connections may wait, and says so each time with a traceback: 2,048 of them a second.
    """

    def __init__(self, *, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._next = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is logged; shorten it if it is that one."""
        if not record.getMessage().startswith("socket.accept() out of system resource"):
            return True
        if (now := self._clock()) < self._next:
            return False
        self._next = now + self._every_s
        why = record.exc_info[1] if record.exc_info else None
        record.msg = "no more connections can be taken (%s); raise that limit (ulimit -n), or lower max_connections"
        record.args, record.exc_info = (getattr(why, "strerror", None) or why,), None
        return True


def config(kind: str) -> dict[str, Any]:
    """Return the dictionary for `logging.config.dictConfig`; `kind` is "text" or "json"."""
    formatter = JsonLines if kind == "json" else TextLines
    loggers = ("splitcodec", "uvicorn", "uvicorn.error")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": formatter}},
        "filters": {"rarely": {"()": Rarely}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "lines"}},
        "loggers": {
            name: {
                "handlers": [] if name == "uvicorn.error" else ["stderr"],
                "level": "INFO",
                "propagate": name == "uvicorn.error",
            }
            for name in loggers
        }
        | {"asyncio": {"handlers": ["stderr"], "level": "WARNING", "propagate": False, "filters": ["rarely"]}},
    }


def _word(value: object) -> str:
    """Return a value such that it ends where it ends: proxies hand on whatever a client calls itself."""
    text = str(value)
    return json.dumps(text) if set(text) & set(' ="') else text


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
