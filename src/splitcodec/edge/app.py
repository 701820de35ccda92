"""The edge behind HTTP: POST a packet, get an answer.   around: service.py   served by: listen.py

    POST /v1/answer?tasks=classify&top=5    body: one raw packet, any content type; Idempotency-Key: optional
                                            score=0.3: boxes from that score on
                                            brief=1: the answer's JSON shortened (wire/brief.py)
    GET  /v1/bundle                         the bundles that are loaded
    GET  /healthz, /readyz                  for supervisors
    GET  /metrics                           for Prometheus, and `splitcodec top`

`create_app` is a plain factory of an ASGI application: any server may run it, in as many processes as one likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from typing import Annotated, Any, TypeVar

from splitcodec.edge.answer import Edge
from splitcodec.edge.limits import Buckets
from splitcodec.edge.metrics import CONTENT_TYPE, Metrics
from splitcodec.edge.service import Service
from splitcodec.edge.settings import Settings
from splitcodec.edge.tokens import Tokens
from splitcodec.errors import MissingExtra
from splitcodec.wire.answer import GUESSES, LEAST_SCORE, MOST_GUESSES
from splitcodec.wire.brief import MEDIA_TYPE, shorten

try:
    from fastapi import FastAPI, Header, Query, Request, Response
    from starlette.requests import ClientDisconnect
    from starlette.types import ASGIApp

    from splitcodec.edge.guard import HEALTH, Guard
    from splitcodec.edge.problems import BodyTooLarge, add_problems, problem
except ModuleNotFoundError as error:
    raise MissingExtra(f"the server needs {error.name}; install it with: pip install 'splitcodec[edge]'") from None

T = TypeVar("T")

_ANSWER = "/v1/answer"
_PATHS = (_ANSWER, "/v1/bundle", "/metrics", "/openapi.json", *HEALTH)
_PACKET_BODY = {
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}
}


def create_app(
    edge: Edge | Callable[[], Edge],
    settings: Settings,
    *,
    mounts: Mapping[str, ASGIApp] | None = None,
    pages: Collection[str] = (),
) -> FastAPI:
    """Return the web application around an edge, or around a function that opens one in the background.

    `mounts` are further ASGI applications by path ("/demo"). They pass the guard for rates, headers, logs and metrics,
    but need no token: what must not be open is added to the application as a route of its own. `pages` are paths where,
    and below which, GET needs no token either, for a browser cannot send one before it has the page.
    `app.state.service`, `.metrics`, `.tokens` and `.settings` are for those who run it. Raises SettingsError for tokens
    that cannot be read.
    """
    metrics = Metrics(version=_version())
    service = Service(edge, settings, metrics)
    tokens = Tokens(
        settings.tokens.get_secret_value() if settings.tokens is not None else None, file=settings.tokens_file
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.begin()
        yield
        await service.close()

    app = FastAPI(
        title="splitcodec edge",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to wherever the client's Host header says
        lifespan=lifespan,
    )
    app.state.service = service
    app.state.metrics = metrics
    app.state.tokens = tokens
    app.state.settings = settings
    app.add_middleware(BodyTooLarge, path=_ANSWER, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(
        Guard,
        service=service,
        tokens=tokens,
        requests=Buckets(settings.requests_per_s, what="requests", most=settings.max_clients),
        metrics=metrics,
        paths=_PATHS,
        mounts=tuple(mounts or ()),
        pages=pages,
    )
    add_problems(app)
    _add_answer(app, service, metrics, settings)
    _add_rest(app, service, metrics)
    for path, mounted in (mounts or {}).items():
        app.mount(path, mounted)
        app.add_route(path, _below, methods=["GET"], include_in_schema=False)
    return app


async def _below(request: Request) -> Response:
    """Send a browser from a mount's name to its root, whatever host it calls this."""
    query = f"?{request.url.query}" if request.url.query else ""
    return Response(status_code=307, headers={"location": f"{request.url.path.rpartition('/')[2]}/{query}"})


def _version() -> str:
    try:
        return importlib.metadata.version("splitcodec")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _add_answer(app: FastAPI, service: Service, metrics: Metrics, settings: Settings) -> None:
    @app.post(_ANSWER, max_body_size=settings.max_body_bytes, openapi_extra=_PACKET_BODY)
    async def answer(
        request: Request,
        *,
        tasks: Annotated[str | None, Query(max_length=500, description="comma-separated; none: classify")] = None,
        top: Annotated[int, Query(ge=1, le=MOST_GUESSES, description="number of guesses")] = GUESSES,
        score: Annotated[float, Query(ge=0, le=1, description="least score of boxes")] = LEAST_SCORE,
        brief: Annotated[bool, Query(description="the answer's JSON shortened, as radios get it")] = False,
        idempotency_key: Annotated[str | None, Header(description="1 to 128 letters, digits, '_' and '-'")] = None,
    ) -> Response:
        """Answer one packet."""
        begin = time.perf_counter()
        try:
            async with asyncio.timeout(settings.body_timeout_s):
                packet = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is left to read it
        except TimeoutError:
            late = problem(408, detail=f"the packet did not arrive within {settings.body_timeout_s:g} s; send again")
            late.headers["connection"] = "close"
            return late
        metrics.stage("read", time.perf_counter() - begin)
        wanted = None if tasks is None else [task.strip() for task in tasks.split(",")]
        asking = service.answer(
            packet, client=request.state.client, tasks=wanted, top=top, score=score, key=idempotency_key
        )
        try:  # what has a key is asked for again
            body, again = await (_while_there(request, asking) if idempotency_key is None else asking)
        except ClientDisconnect:
            return Response(status_code=400)
        response = (
            Response(shorten(body), media_type=MEDIA_TYPE) if brief else Response(body, media_type="application/json")
        )
        if again:
            response.headers["idempotency-replayed"] = "true"
            request.state.facts = {"replayed": True}
        return response


async def _while_there(request: Request, asking: Coroutine[Any, Any, T]) -> T:
    """Return what is asked for, unless its client goes: then nobody computes it. Raises ClientDisconnect."""
    answer = asyncio.ensure_future(asking)
    leaving = asyncio.ensure_future(request.receive())  # behind the body there is nothing but the end
    try:
        await asyncio.wait((answer, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        leaving.cancel()


def _add_rest(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/v1/bundle")
    async def bundle() -> list[dict[str, Any]]:
        """List the bundles that are loaded; of several with one fingerprint, one answers."""
        return [
            {
                "bundle": one.ident,
                "fingerprint": one.fingerprint.hex(),
                "answers": service.edge.answers_with(one),
                "levels": one.manifest.levels,
                "default_level": one.manifest.default_level,
                "tasks": list(one.manifest.tasks),
                "classes": len(one.manifest.classes),
                "max_symbols": service.edge.most_symbols(one),
            }
            for one in service.edge.bundles
        ]

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz")
    async def readyz() -> Response:
        """Say that packets are answered: bundles opened and run once, not shutting down."""
        service.check_ready()
        return Response('{"status":"ready"}', media_type="application/json")

    @app.get("/metrics", include_in_schema=False)
    async def measured() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)
