"""Beside server.py: what every request passes first and last.   around: app.py   inside: tokens, limits, logs, metrics

First a request id, the bearer token and the client's share of requests; last the security headers, the counters and one
line in the log. Whatever escapes the application becomes a problem document here. Where tokens are set every path needs
one, except the health checks, mounted applications, and GET of pages.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from splitcodec.edge.limits import Buckets, client_of
from splitcodec.edge.logs import REQUEST_ID, facts, request_id
from splitcodec.edge.metrics import Metrics
from splitcodec.edge.problems import problem, refusal
from splitcodec.edge.service import Client, Service
from splitcodec.edge.tokens import Tokens
from splitcodec.errors import SplitcodecError, TokenRefused

_log = logging.getLogger("splitcodec.edge")

HEALTH = ("/healthz", "/readyz")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
}
_HSTS = "max-age=31536000"
_DEVICE = "splitcodec"  # what `device/link.py` calls itself: it shows no page and pays for each byte


@final
class Guard:
    """The outermost layer of the application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: Service,
        tokens: Tokens,
        requests: Buckets,
        metrics: Metrics,
        paths: Collection[str],
        mounts: Collection[str],
        pages: Collection[str] = (),
    ) -> None:
        self._app = app
        self._service = service
        self._tokens = tokens
        self._requests = requests
        self._metrics = metrics
        self._paths = frozenset(paths)
        self._mounts = tuple(mounts)
        self._pages = tuple(pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        headers = Headers(scope=scope)
        device = headers.get("user-agent") == _DEVICE and scope["method"] == "POST"  # which no cache keeps unasked
        one = request_id(headers.get("x-request-id"))
        REQUEST_ID.set(one)
        state = scope.setdefault("state", {})
        status = received = sent = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_guarded(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                https = scope.get("scheme") == "https"
                spared = device and status < 400 and "x-request-id" not in headers  # it asked for no id
                put = MutableHeaders(scope=message)
                self._put_headers(put, None if spared else one, https=https, device=device)
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        try:
            self._admit(scope, headers)
            await self._app(scope, receive_counted, send_guarded)
        except SplitcodecError as error:
            state["refusal"] = type(error).__name__
            await refusal(error)(scope, receive, send_guarded)
        except Exception:
            _log.exception("failed")
            if status:
                raise  # half an answer is out: the connection must go
            await problem(500, detail="the edge failed; its log says why")(scope, receive, send_guarded)
        finally:
            seconds = time.perf_counter() - begin
            self._tell(scope, status=status, received=received, sent=sent, seconds=seconds)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        path = _path(scope)
        if path in HEALTH:
            return
        client = client_of(scope["client"][0] if scope.get("client") else "")
        scope["state"]["client"] = Client(name=client, scope="")
        if self._tokens.required and not self._open(scope["method"], path):
            name = self._tokens.find(headers.get("authorization"))
            if name is None:
                self._requests.take(f"stranger {client}")
                raise TokenRefused("a bearer token is needed: Authorization: Bearer TOKEN")
            scope["state"]["client"] = Client(name=f"{name} {client}", scope=name)
        self._requests.take(scope["state"]["client"].name)
        if path.startswith("/v1/"):
            self._service.check_ready()

    def _open(self, method: str, path: str) -> bool:
        return _root(path, self._mounts) is not None or (method == "GET" and _root(path, self._pages) is not None)

    def _put_headers(self, headers: MutableHeaders, one: str | None, *, https: bool, device: bool) -> None:
        if one is not None:
            headers["x-request-id"] = one
        for name, value in () if device else _HEADERS.items():
            headers.setdefault(name, value)
        if https and not device:
            headers.setdefault("strict-transport-security", _HSTS)
        if self._service.state == "draining":
            headers["connection"] = "close"

    def _tell(self, scope: Scope, *, status: int, received: int, sent: int, seconds: float) -> None:
        path = _path(scope)
        known = path if path in self._paths else _root(path, (*self._mounts, *self._pages)) or "other"
        state = scope["state"]
        reason = state.get("refusal") or (f"http_{status}" if status >= 400 else None)
        if path in HEALTH:
            reason = None  # "not yet" is an answer, not a refusal
        self._metrics.request(path=known, status=status, received=received, sent=sent, refusal=reason)
        if known == "/v1/answer" and status == 200:
            self._metrics.stage("total", seconds)
        target = scope.get("raw_path", b"").decode("ascii", "replace")[:200] or path[:200]
        _log.info(
            "%s %s",
            scope["method"],
            target,
            extra=facts(
                status=status,
                ms=round(1000 * seconds, 2),
                received=received,
                sent=sent,
                client=str(scope["client"][0])[:64] if scope.get("client") else None,
                refusal=reason,
                **state.get("facts", {}),
            ),
        )


def _root(path: str, roots: Collection[str]) -> str | None:
    return next((one for one in roots if path == one or path.startswith(f"{one}/")), None)


def _path(scope: Scope) -> str:
    """Return the path as the application's routes see it: without what a server or a mount put before it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path
