"""What comes back over links other than HTTP when there is no answer: a problem document (RFC 9457), HTTP's status."""

from __future__ import annotations

import json
from typing import Any

from splitcodec.errors import (
    LinkDown,
    LinkError,
    LinkGarbled,
    LinkRefused,
    PacketError,
    SettingsError,
    SplitcodecError,
    TaskError,
)

MEDIA_TYPE = "application/problem+json"
_MAY_PASS = frozenset({401, 403, 408, 409, 425, 429})
_DOWN = frozenset({502, 503, 504})


def may_pass(status: int | None) -> bool:
    """Return whether a refusal may end by itself: a token that is renewed, a queue that empties, a server mended."""
    return status is None or status in _MAY_PASS or status >= 500


def dump_problem(error: SplitcodecError, *, brief: bool = False) -> bytes:
    """Return the problem document of an edge's refusal; `brief` for a slow radio: title and status alone.

    What went wrong inside is not told to the stranger who asked.
    """
    status = _status(error)
    inside = status >= 500 and not isinstance(error, LinkError)
    detail = "the edge failed; its log says why" if inside else " ".join(str(error).split())[:500]
    document = {"title": type(error).__name__, "status": status}
    return json.dumps(document if brief else {**document, "detail": detail}, separators=(",", ":")).encode()


def parse_problem(data: bytes, *, place: str) -> LinkError:
    """Return the error that a problem document stands for; LinkGarbled if it is none."""
    try:
        got: Any = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        got = None
    status = got.get("status") if isinstance(got, dict) else None
    if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status < 600:
        return LinkGarbled(f"{place} sent neither an answer nor a problem document; is this an edge?")
    detail = " ".join(str(got.get("detail") or got.get("title") or "no reason given").split())[:500]
    if status in _DOWN:
        return LinkDown(f"{place} cannot reach an edge (status {status}, {detail}); start one, or wait")
    return LinkRefused(f"{place} refused the packet ({status}): {detail}", status=status)


def _status(error: SplitcodecError) -> int:
    if isinstance(error, LinkRefused) and error.status is not None:
        return error.status
    if isinstance(error, LinkDown):
        return 503
    if isinstance(error, LinkError):
        return 502
    if isinstance(error, PacketError | SettingsError):
        return 400
    return 404 if isinstance(error, TaskError) else 500
