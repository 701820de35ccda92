"""Beside server.py: the same application on several processes or machines, by Ray Serve. The only door to Ray.

Each replica opens the bundles and runs `create_app` of its own, so queues, rates, idempotency keys and /metrics are per
replica. Ray's proxy listens in the place of listen.py: heads and connections are its business.
"""

from __future__ import annotations

import ipaddress
import logging.config
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from splitcodec.edge.answer import Edge
from splitcodec.edge.app import create_app
from splitcodec.edge.logs import config as log_config
from splitcodec.edge.server import check_guarded
from splitcodec.edge.settings import Settings
from splitcodec.edge.sockets import listen, tls_context, url_of
from splitcodec.errors import MissingExtra, SettingsError, one_line
from splitcodec.wire.bundle import open_bundle, zoo_folder
from splitcodec.wire.manifest import Manifest
from splitcodec.wire.zoo import bundles_at

try:
    import ray
    from ray import serve
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"--engine ray needs {error.name}; install it with: pip install 'splitcodec[edge,ray]'"
    ) from None

_log = logging.getLogger("splitcodec.edge")

APPLICATION = "splitcodec"


def grow(
    bundles: Sequence[str], settings: Settings, *, replicas: int, announce: Callable[[str], None] | None = None
) -> None:
    """Serve zoo names, folders or zips from `replicas` processes until SIGTERM (returns) or SIGINT (KeyboardInterrupt).

    RAY_ADDRESS names a cluster, each of whose machines has this package, the bundles and the token file in the same
    places, and a proxy that listens; without it a Ray of this process' own is started on this machine, and ended with
    it. A replica that is started again answers with the bundles of the others, or not at all.
    Raises SettingsError, BundleError, GraphError.
    """
    check_guarded(settings)
    if replicas < 1:
        raise SettingsError(f"{replicas} replicas; expected at least 1")
    if settings.trusted_proxies:
        raise SettingsError("trusted_proxies does not reach past Ray's proxy; unset SPLITCODEC_TRUSTED_PROXIES")
    places = [_place(one) for source in bundles for one in bundles_at(source)]
    address = os.environ.get("RAY_ADDRESS")
    settings, url = _placed(settings, alone=not address)
    opened = _tried(places, settings)
    threads = settings.threads or 1
    with _told():
        if address:
            ray.init(address=address, namespace=APPLICATION, log_to_driver=False)
        else:
            room = max(os.cpu_count() or 1, replicas * threads)
            ray.init(
                address="local", namespace=APPLICATION, num_cpus=room, include_dashboard=False, log_to_driver=False
            )
    ended = _Ended()  # after init, which has an answer to SIGTERM of its own: it aborts
    try:
        with _told():
            serve.start(proxy_location="EveryNode", http_options=_http(settings))
            deployment = serve.deployment(
                serve.ingress(_builder(places, opened, settings))(),
                name="edge",
                num_replicas=replicas,
                ray_actor_options={"num_cpus": threads},
                max_ongoing_requests=settings.max_queue + settings.workers * settings.max_batch,
                max_queued_requests=settings.max_queue,
                graceful_shutdown_timeout_s=settings.drain_s,
                health_check_period_s=2,
            )
            serve.run(deployment.bind(), name=APPLICATION, route_prefix="/")
        if announce is not None:
            announce(url)
        ended.wait()
        serve.delete(APPLICATION)
    finally:
        if not address:
            serve.shutdown()
        ray.shutdown()
        ended.forget()
    if ended.interrupted:
        raise KeyboardInterrupt


def _builder(bundles: Sequence[str], opened: Sequence[Manifest], settings: Settings) -> Callable[[], FastAPI]:
    """Return what each replica calls once; Ray takes it apart and sends it there, so it names only what it needs."""

    def build() -> FastAPI:
        logging.config.dictConfig(log_config(settings.log))
        return create_app(_same(bundles, opened, settings), settings)

    return build


def _same(bundles: Sequence[str], opened: Sequence[Manifest], settings: Settings) -> Edge:
    """Return the edge of bundles that are as they were when the server started. Raises SettingsError."""
    edge = Edge(*bundles, threads=settings.threads or 1, max_symbols=settings.max_symbols)
    for place, before, now in zip(bundles, opened, edge.bundles, strict=True):
        if now.manifest != before:
            raise SettingsError(
                f"{place} has changed since the server started: a replica that starts again would answer otherwise "
                "than the rest; put it back, or start the server again"
            )
    return edge


def _tried(bundles: Sequence[str], settings: Settings) -> list[Manifest]:
    """Do once what each replica will do, so that it is refused here and by name; return the manifests."""
    tls_context(settings)
    create_app(Edge, settings)  # which reads tokens, and opens nothing by itself
    edge = Edge(*bundles, threads=settings.threads or 1, max_symbols=settings.max_symbols)
    return [one.manifest for one in edge.bundles]


@contextmanager
def _told() -> Iterator[None]:
    """Raise SettingsError for what keeps Ray from starting."""
    try:
        yield
    except Exception as error:  # Ray's errors have no common base but this
        raise SettingsError(
            f"Ray does not start the server: {one_line(error, most=300)}; its logs are in /tmp/ray/session_latest/logs"
        ) from error


def _place(bundle: str | Path) -> str:
    """Return what names a bundle in every folder: a name of the zoo with its version, or a path."""
    opened = open_bundle(bundle)
    return opened.ident if opened.path.parent == zoo_folder() else str(opened.path.resolve())


def _placed(settings: Settings, *, alone: bool) -> tuple[Settings, str]:
    """Return the settings with a port that is free and files that are found from any folder, and the URL.

    Ray's proxy listens on one address. Of a name (`alone`: where no other machine looks it up) that is the first of
    IPv4, if it has one.
    """
    listeners = listen(settings.host, settings.port)
    one = listeners[0] if _is_address(settings.host) else min(listeners, key=lambda it: it.family != socket.AF_INET)
    url, (host, port, *_) = url_of(one, tls=settings.tls_cert is not None), one.getsockname()
    host = host if alone and not _is_address(settings.host) else settings.host
    for one in listeners:
        one.close()
    files = {
        name: path.resolve()
        for name in ("tls_cert", "tls_key", "tokens_file")
        if (path := getattr(settings, name)) is not None
    }
    return settings.model_copy(update={"host": host, "port": port, **files}), url


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _http(settings: Settings) -> dict[str, Any]:
    tls = {"ssl_certfile": str(settings.tls_cert), "ssl_keyfile": str(settings.tls_key)} if settings.tls_cert else {}
    return {
        "host": settings.host,
        "port": settings.port,
        "keep_alive_timeout_s": settings.keep_alive_s,
        "request_timeout_s": settings.body_timeout_s + settings.drain_s,
        **tls,
    }


class _Ended:
    """Waits for SIGTERM or SIGINT. SIGHUP, which would end the process and Ray with all requests, says what it can."""

    def __init__(self) -> None:
        self.interrupted = False
        self._event = threading.Event()
        self._asked = False
        answers: dict[str, Callable[[int, object], None]] = {
            "SIGTERM": self._told,
            "SIGINT": self._told,
            "SIGHUP": self._hung_up,
        }
        known = {getattr(signal, name): answer for name, answer in answers.items() if hasattr(signal, name)}
        self._before = {one: signal.signal(one, answer) for one, answer in known.items()}

    def wait(self) -> None:
        """Wait, without end."""
        while not self._event.wait(1.0):
            if self._asked:
                self._asked = False
                _log.info("replicas read a tokens file again by themselves; for bundles and TLS files start anew")

    def forget(self) -> None:
        """Give the signals back."""
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _told(self, number: int, _: object) -> None:
        self.interrupted = number == signal.SIGINT
        self._event.set()

    def _hung_up(self, _: int, __: object) -> None:
        self._asked = True
