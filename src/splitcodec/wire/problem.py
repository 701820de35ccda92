"""What comes back over a link when there is no answer: a problem document (RFC 9457), also without HTTP its status.

Its title names the refusal: what an edge refuses for the packet's own sake is told from what its setup is to blame for.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, NamedTuple

from splitcodec.errors import (
    AnswerTooLarge,
    LinkDown,
    LinkError,
    LinkGarbled,
    LinkRefused,
    PacketBundle,
    PacketError,
    PacketVersion,
    SettingsError,
    SplitcodecError,
    TaskError,
)

MEDIA_TYPE = "application/problem+json"
_MAY_PASS = frozenset({401, 403, 408, 409, 425, 429})
_LOG_IN = frozenset({401, 403})
_DOWN = frozenset({502, 503, 504})
_OF_THE_SETUP = frozenset(
    {one.__name__ for one in (PacketBundle, PacketVersion, TaskError)}
    | {one.phrase for one in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)}  # a path that no edge has
    | {HTTPStatus.BAD_REQUEST.phrase}  # no HTTP: whatever lies between has spoilt it, for a packet it has a name
)


class Told(NamedTuple):
    """What a problem document says, "" for what it does not say; `reason`, its title, names the refusal."""

    status: int | None = None
    detail: str = ""
    reason: str = ""


def may_pass(error: LinkError) -> bool:
    """Return whether the same packet may be answered later: a token renewed, a queue emptied, an edge set right.

    An edge without the packet's bundle or task refuses every packet that waits; none of them is at fault.
    """
    if not isinstance(error, LinkRefused) or error.status is None:
        return True
    return error.status in _MAY_PASS or error.status >= 500 or error.reason in _OF_THE_SETUP


def of_all(error: SplitcodecError) -> bool:
    """Return whether an edge refuses for what is no packet's own: a token, a path, a bundle or a task it has not."""
    if not isinstance(error, LinkRefused):
        return False
    return error.status in _LOG_IN or error.reason in _OF_THE_SETUP - {HTTPStatus.BAD_REQUEST.phrase}


def dump_problem(error: SplitcodecError, *, brief: bool = False) -> bytes:
    """Return the problem document of an edge's refusal; `brief` for a slow radio: title and status alone.

    What went wrong inside is not told to the stranger who asked.
    """
    status = status_of(error)
    inside = status >= 500 and not isinstance(error, LinkError)
    detail = "the edge failed; its log says why" if inside else " ".join(str(error).split())[:500]
    title = type(error).__name__
    if isinstance(error, LinkRefused) and error.reason:
        title = error.reason  # what the server behind a bridge calls it
    document = {"title": title, "status": status}
    return json.dumps(document if brief else {**document, "detail": detail}, separators=(",", ":")).encode()


def told_by(data: bytes) -> Told:
    """Return what a problem document says; nothing of what is none."""
    try:
        got: Any = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return Told()
    if not isinstance(got, dict):
        return Told()
    status, detail, title = got.get("status"), got.get("detail"), got.get("title")
    known = isinstance(status, int) and not isinstance(status, bool) and 400 <= status < 600
    reason = _line(title)[:100]
    return Told(status if known else None, (_line(detail) or reason)[:500], reason)


def parse_problem(data: bytes, *, place: str) -> LinkError:
    """Return the error that a problem document stands for; LinkGarbled if it is none."""
    status, detail, reason = told_by(data)
    if status is None:
        return LinkGarbled(f"{place} sent neither an answer nor a problem document; is this an edge?")
    detail = detail or "no reason given"
    if status in _DOWN:
        return LinkDown(f"{place} cannot reach an edge (status {status}, {detail}); start one, or wait")
    return LinkRefused(f"{place} refused the packet ({status}): {detail}", status=status, reason=reason)


def _line(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def status_of(error: SplitcodecError) -> int:
    """Return the status of a refusal, over every carrier; what a server turns away for its own sake is not here."""
    if isinstance(error, LinkRefused) and error.status is not None:
        return error.status
    if isinstance(error, LinkDown):
        return 503
    if isinstance(error, LinkError):
        return 502
    if isinstance(error, PacketError | SettingsError):
        return 400
    if isinstance(error, AnswerTooLarge):
        return 422
    return 404 if isinstance(error, TaskError) else 500
