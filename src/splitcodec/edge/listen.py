"""Beside server.py: time-outs and signals, by uvicorn.   runs: app.py   inside: sockets.py

A connection must send each request's head within a time, and connections are bounded. SIGTERM drains: /readyz turns 503
at once, what was let in is answered, new packets are refused, and after a moment (so that balancers look away) the
process ends with 0. SIGINT does the same without that moment. SIGHUP reads tokens, bundles and TLS files again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import logging.config
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, final

from splitcodec.edge.logs import config as log_config
from splitcodec.edge.logs import facts
from splitcodec.edge.outgoing import OneWrite
from splitcodec.edge.settings import Settings
from splitcodec.edge.sockets import is_loopback, listen, renew, tls_context, url_of
from splitcodec.errors import MissingExtra, SettingsError
from splitcodec.wire.problem import MEDIA_TYPE

try:
    import h11
    import uvicorn
    from fastapi import FastAPI
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ModuleNotFoundError as error:
    raise MissingExtra(f"the server needs {error.name}; install it with: pip install 'splitcodec[edge]'") from None

_log = logging.getLogger("splitcodec.edge")
_uvicorn_log = logging.getLogger("uvicorn.error.http")
_uvicorn_log.setLevel(logging.ERROR)  # what it warns of names nobody, and advises to install what is not wanted
_LARGEST_HEAD = 32_768


def run_app(app: FastAPI, settings: Settings, *, announce: Callable[[str], None] | None = None) -> None:
    """Serve an application from `create_app` until SIGTERM (returns) or SIGINT (raises KeyboardInterrupt).

    Raises SettingsError for a place that cannot be listened on or TLS files that do not load, and whatever kept the
    bundles from opening.
    """
    logging.config.dictConfig(log_config(settings.log))
    context = tls_context(settings)
    # over TLS connections are not known to uvicorn, nor bounded by it, before they have shaken hands
    most = None if context is None else 2 * settings.max_connections
    listeners = listen(settings.host, settings.port, most=most)
    try:
        url = url_of(listeners[0], tls=context is not None)
        server = _Server(app, settings, context=context, announce=lambda: announce(url) if announce else None)
        if context is None and not is_loopback(settings.host) and not settings.insecure:
            _log.warning("tokens travel in clear text: give --tls-cert and --tls-key, or stand behind a proxy with TLS")
        server.run(sockets=listeners)
    finally:
        for one in listeners:
            one.close()
    if app.state.service.failure is not None:
        raise app.state.service.failure
    if server.interrupted:
        raise KeyboardInterrupt


@final
class BackgroundServer:
    """A server in a thread of this process, for the demo and for tests.

    with BackgroundServer(create_app(edge, settings)) as server:
        http(server.url)

    Port 0 takes any free one. Raises SettingsError if it cannot listen or does not start.
    """

    def __init__(self, app: FastAPI, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listeners = listen(host, port)
        self.url = url_of(self._listeners[0])
        self.port: int = self._listeners[0].getsockname()[1]
        self._server = _Server(app, app.state.settings, context=None, announce=bool)
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
            self._server.run(sockets=self._listeners)
        finally:
            for one in self._listeners:
                one.close()


@final
class _Server(uvicorn.Server):
    """uvicorn's server with our own answer to signals: its own ends a drained process with -15."""

    def __init__(
        self, app: FastAPI, settings: Settings, *, context: ssl.SSLContext | None, announce: Callable[[], object]
    ) -> None:
        def protocol(*args: Any, **options: Any) -> _Connection:
            return _Connection(*args, settings=settings, refused=app.state.metrics.refusal, **options)

        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,  # type: ignore[arg-type]  # uvicorn takes any callable, its types a class
                loop="asyncio",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=settings.trusted_proxies,
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=max(1, round(settings.drain_s)),
                h11_max_incomplete_event_size=_LARGEST_HEAD,
                ssl_context_factory=(lambda *_: context) if context is not None else None,
            )
        )
        self._app = app
        self._settings = settings
        self._context = context
        self._announce = announce
        self._saying: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None
        self.interrupted = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Answer signals while the server runs, in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        answers: dict[str, Callable[[], None]] = {
            "SIGTERM": lambda: self._stop(linger_s=self._settings.linger_s),
            "SIGINT": self._interrupt,
            "SIGHUP": self._reload,
        }
        known = {getattr(signal, name): answer for name, answer in answers.items() if hasattr(signal, name)}
        try:
            for one, answer in known.items():
                loop.add_signal_handler(one, answer)
        except NotImplementedError:  # no such thing on Windows: there uvicorn's own ways must do
            with super().capture_signals():
                yield
            return
        try:
            yield
        finally:
            for one in known:
                loop.remove_signal_handler(one)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then say so once packets are answered."""
        loop = asyncio.get_running_loop()
        if self.config.ssl is not None:  # uvicorn passes no time for the handshake on, and asyncio's is a minute
            patient = partial(loop.create_server, ssl_handshake_timeout=self._settings.head_timeout_s)
            loop.create_server = patient  # type: ignore[method-assign]  # of this loop alone
        await super().startup(sockets)
        self._saying = loop.create_task(self._say())

    async def on_tick(self, counter: int) -> bool:
        """Do as uvicorn does every 0.1 s; stop too if the bundles could not be opened."""
        return await super().on_tick(counter) or self._app.state.service.failure is not None

    async def _say(self) -> None:
        await self._app.state.service.opened()
        if self._app.state.service.failure is None:
            self._announce()

    def _reload(self) -> None:
        self._app.state.tokens.reload()
        self._app.state.service.renew()
        if self._context is None:
            return
        try:
            renew(self._context, self._settings)
        except (SettingsError, OSError) as error:
            _log.error("TLS files not read again, the old ones stay in use: %s", error)
        else:
            _log.info("TLS files read again: %s", self._settings.tls_cert)

    def _interrupt(self) -> None:
        self.interrupted = True
        self._stop(linger_s=0)

    def _stop(self, *, linger_s: float) -> None:
        if self._end is not None:
            self.should_exit = self.force_exit = True
            return
        self._app.state.service.drain()
        _log.info("draining: new packets are refused, those that came are answered")
        self._end = asyncio.get_running_loop().create_task(self._linger(linger_s))

    async def _linger(self, linger_s: float) -> None:
        await asyncio.sleep(linger_s)
        self.should_exit = True


class _Connection(H11Protocol):
    """uvicorn's connection, bounded in number and in the time that a request's head may take."""

    def __init__(self, *args: Any, settings: Settings, refused: Callable[[str], object], **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _uvicorn_log
        self._refused = refused
        self._head_timeout_s = settings.head_timeout_s
        self._max_connections = settings.max_connections
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for the first request; turn away what is too many."""
        together = OneWrite(transport, self.loop, patience_s=self.timeout_keep_alive)
        super().connection_made(together)  # type: ignore[arg-type]  # as good as a transport
        if (one := transport.get_extra_info("socket")) is not None:
            # asyncio leaves this out for sockets whose protocol is 0, as those of `socket.create_server` are: head and
            # body of an answer then lie 40 ms apart, until the client acknowledges the head
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self._max_connections:
            self._refuse(503, f"{self._max_connections} connections are open, and no more are taken", retry=True)
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request whose head is complete ends the wait for it."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget_head()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def _watch_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_head()
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self._head_timeout_s, self._head_late)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(408, f"no request within {self._head_timeout_s:g} s")

    def _refuse(self, status: int, detail: str, *, retry: bool = False) -> None:
        # Below the application: no guard has seen this, so it is said, counted and logged here; it ends.
        self._forget_head()
        self._refused(reason := f"http_{status}")
        client = self.client[0] if self.client else None
        _log.info("no request: %s", detail, extra=facts(status=status, client=client, refusal=reason))
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            phrase = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}[status]
            document = {"type": "about:blank", "title": phrase, "status": status, "detail": detail}
            body = json.dumps(document).encode()
            head = [
                f"HTTP/1.1 {status} {phrase}",
                f"content-type: {MEDIA_TYPE}",
                f"content-length: {len(body)}",
                *(["retry-after: 1"] if retry else []),
                "connection: close",
            ]
            self.transport.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        self.transport.close()
