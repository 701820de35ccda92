"""Beside server.py: every refusal as a problem document (RFC 9457) that leaks nothing.   used by: app.py, guard.py

The type names the error, urn:splitcodec:PacketChecksum for instance. What goes wrong inside is logged and never told.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from splitcodec.edge.settings import complaints
from splitcodec.errors import (
    EdgeBusy,
    EdgeRefusal,
    EdgeUnready,
    IdempotencyKey,
    IdempotencyMismatch,
    RateExceeded,
    SplitcodecError,
    TokenRefused,
)
from splitcodec.wire.problem import MEDIA_TYPE, status_of

_log = logging.getLogger("splitcodec.edge")

# of what is refused for the server's own sake; the others have theirs over every carrier (wire/problem.py)
_STATUS: dict[type[EdgeRefusal], int] = {
    IdempotencyKey: 400,
    TokenRefused: 401,
    IdempotencyMismatch: 422,
    RateExceeded: 429,
    EdgeBusy: 503,
    EdgeUnready: 503,
}


def problem(status: int, *, detail: str, error: type[SplitcodecError] | None = None) -> Response:
    """Return a problem document."""
    document = {
        "type": f"urn:splitcodec:{error.__name__}" if error else "about:blank",
        "title": error.__name__ if error else HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return Response(json.dumps(document), status_code=status, media_type=MEDIA_TYPE)


def refusal(error: SplitcodecError) -> Response:
    """Return the problem document of a refusal; one that is the server's own fault is logged instead of told."""
    status = _STATUS.get(type(error), 500) if isinstance(error, EdgeRefusal) else status_of(error)
    if status == 500:
        _log.error("%s: %s", type(error).__name__, error)
        return problem(500, detail="the edge cannot run this bundle; its log says why", error=type(error))
    response = problem(status, detail=str(error), error=type(error))
    if isinstance(error, EdgeRefusal) and error.retry_after_s is not None:
        response.headers["retry-after"] = str(error.retry_after_s)
    if status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def add_problems(app: FastAPI) -> None:
    """Let the application answer every error with a problem document; the reason is left in `request.state`."""

    @app.exception_handler(SplitcodecError)
    async def refused(request: Request, error: SplitcodecError) -> Response:
        request.state.refusal = type(error).__name__
        return refusal(error)

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> Response:
        response = problem(error.status_code, detail=str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return problem(422, detail=complaints(error.errors()))


class BodyTooLarge:
    """Let the 413 of FastAPI's body limit say what a packet is, on the path that takes packets."""

    def __init__(self, app: ASGIApp, *, path: str, max_body_bytes: int) -> None:
        self._app = app
        self._path = path
        detail = f"a body of more than {max_body_bytes} bytes; a packet is smaller, send one at a time"
        self._problem = problem(413, detail=detail)
        self._problem.headers["connection"] = "close"  # the rest of the body is not read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope.get("path") != self._path:
            await self._app(scope, receive, send)
            return
        replaced = False

        async def send_problem(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 413:
                replaced = True
                await self._problem(scope, receive, send)
            elif not replaced:
                await send(message)

        await self._app(scope, receive, send_problem)
