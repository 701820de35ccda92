"""The edge behind HTTP: POST a packet, get an answer.   around: edge/answer.py   asked by: device/link.py

    POST /v1/answer?tasks=classify&top=5    body: one raw packet, any content type
    GET  /v1/bundle                         the bundles that are loaded
    GET  /healthz, /readyz                  for supervisors

Every refusal is a problem document (RFC 9457) whose type names the error, urn:splitcodec:PacketChecksum for instance.
Whatever goes wrong inside is logged here and never told to the stranger who asked.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any, final

from splitcodec.edge.answer import Edge
from splitcodec.errors import MissingExtra, PacketError, SettingsError, SplitcodecError, TaskError
from splitcodec.wire.answer import dump_answer

try:
    import uvicorn
    from fastapi import FastAPI, Query, Request, Response
    from fastapi.concurrency import run_in_threadpool
    from fastapi.exceptions import RequestValidationError
    from pydantic import Field, ValidationError
    from pydantic_settings import BaseSettings, SettingsConfigDict
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn.config import LOGGING_CONFIG
except ModuleNotFoundError as error:
    raise MissingExtra(f"the server needs {error.name}; install it with: pip install 'splitcodec[edge]'") from None

_log = logging.getLogger("splitcodec.edge")


@final
class Settings(BaseSettings):
    """What the server can be told, each also as an environment variable: SPLITCODEC_PORT=9000, say.

    `max_body_bytes` bounds a packet, `concurrency` the packets that are answered at the same time (the others wait),
    `threads` goes to ONNX Runtime (none: its choice).
    """

    model_config = SettingsConfigDict(env_prefix="SPLITCODEC_", frozen=True)

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=65_535)
    max_body_bytes: int = Field(default=65_536, ge=13)
    concurrency: int = Field(default=2, ge=1)
    threads: int | None = Field(default=None, ge=1)


def read_settings(options: Mapping[str, object] | None = None) -> Settings:
    """Return the settings: `options` before the environment before the defaults; an option that is None is left out.

    Raises SettingsError naming what is wrong.
    """
    given: dict[str, Any] = {name: value for name, value in (options or {}).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(f"server settings: {_complaints(error.errors())}") from None


def create_app(edge: Edge, settings: Settings) -> FastAPI:
    """Return the web application around an opened edge."""
    app = FastAPI(title="splitcodec edge", version="1")
    app.add_middleware(_BodyTooLarge, max_body_bytes=settings.max_body_bytes)
    _add_problems(app)
    places = asyncio.Semaphore(settings.concurrency)

    @app.post("/v1/answer", max_body_size=settings.max_body_bytes, openapi_extra=_PACKET_BODY)
    async def answer(
        request: Request,
        tasks: Annotated[str | None, Query(max_length=500, description="comma-separated; none: classify")] = None,
        top: Annotated[int, Query(ge=1, le=1000, description="number of guesses")] = 5,
    ) -> Response:
        """Answer one packet."""
        try:
            packet = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is left to read it
        wanted = None if tasks is None else [task.strip() for task in tasks.split(",")]
        async with places:
            found = await run_in_threadpool(edge.answer, packet, tasks=wanted, top=top)
        return Response(dump_answer(found), media_type="application/json")

    @app.get("/v1/bundle")
    def bundle() -> list[dict[str, Any]]:
        """List the bundles that are loaded."""
        return [
            {
                "bundle": one.ident,
                "fingerprint": one.fingerprint.hex(),
                "levels": one.manifest.levels,
                "default_level": one.manifest.default_level,
                "tasks": list(one.manifest.tasks),
                "classes": len(one.manifest.classes),
                "max_symbols": one.manifest.max_symbols,
            }
            for one in edge.bundles
        ]

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        """Say that packets can be answered: an `Edge` has opened and run its graphs before it gets here."""
        return {"status": "ready"}

    return app


def serve(
    edge: Edge,
    settings: Settings,
    *,
    announce: Callable[[str], None] | None = None,
    extend: Callable[[FastAPI], None] | None = None,
) -> None:
    """Serve until interrupted; `announce` is called with the URL once connections are taken. All logs go to stderr.

    `extend` may add routes to the application before it starts. Raises SettingsError if host and port cannot be
    listened on.
    """
    logs = copy.deepcopy(LOGGING_CONFIG)
    logs["handlers"]["access"]["stream"] = "ext://sys.stderr"
    app = create_app(edge, settings)
    if extend is not None:
        extend(app)
    listener = _listen(settings.host, settings.port)
    try:
        if announce is not None:
            announce(_url(listener))
        _server(app, log_config=logs, access_log=True).run(sockets=[listener])
    finally:
        listener.close()


@final
class BackgroundServer:
    """A server in a thread of this process, for the demo and for tests.

    with BackgroundServer(create_app(edge, settings)) as server:
        http(server.url)

    Port 0 takes any free one. Raises SettingsError if it cannot listen or does not start.
    """

    def __init__(self, app: FastAPI, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = _listen(host, port)
        self.url = _url(self._listener)
        self.port: int = self._listener.getsockname()[1]
        self._server = _server(app, log_config=None, access_log=False)
        self._thread = threading.Thread(target=self._run, name="splitcodec edge", daemon=True)

    def __enter__(self) -> BackgroundServer:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise SettingsError(f"the server at {self.url} did not start; the log above says why")
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._listener.close()


def _server(app: FastAPI, *, log_config: dict[str, Any] | None, access_log: bool) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        log_config=log_config,
        access_log=access_log,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SettingsError(f"cannot listen on {host}:{port} ({reason}); choose another host or port") from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


_PACKET_BODY = {
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}
}


def _problem(status: int, *, detail: str, error: type[SplitcodecError] | None = None) -> Response:
    document = {
        "type": f"urn:splitcodec:{error.__name__}" if error else "about:blank",
        "title": error.__name__ if error else HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return Response(json.dumps(document), status_code=status, media_type="application/problem+json")


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(SplitcodecError)
    async def refused(_: Request, error: SplitcodecError) -> Response:
        for kind, status in ((PacketError, 400), (SettingsError, 400), (TaskError, 404)):
            if isinstance(error, kind):
                return _problem(status, detail=str(error), error=type(error))
        _log.error("%s: %s", type(error).__name__, error)
        return _problem(500, detail="the edge cannot run this bundle; its log says why", error=type(error))

    @app.exception_handler(HTTPException)
    async def plain(_: Request, error: HTTPException) -> Response:
        response = _problem(error.status_code, detail=str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _problem(422, detail=_complaints(error.errors()))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        return _problem(500, detail="the edge failed; its log says why")  # uvicorn logs it


def _complaints(errors: Any) -> str:
    told = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}, got {one['input']!r:.60}" for one in errors]
    return "; ".join(told)[:500]


@final
class _BodyTooLarge:
    """Turn the plain 413 of FastAPI's body limit into a problem document."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        detail = f"a body of more than {max_body_bytes} bytes; a packet is smaller, send one at a time"
        self._problem = _problem(413, detail=detail)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        replaced = False

        async def send_problem(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 413:
                replaced = True
                await self._problem(scope, receive, send)
            elif not replaced:
                await send(message)

        await self._app(scope, receive, send_problem)
