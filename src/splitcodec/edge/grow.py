"""Beside server.py: the same application on several processes or machines, by Ray Serve. The only door to Ray.

Each replica opens the bundles and runs `create_app` of its own, so queues, rates, idempotency keys and /metrics are per
replica. Ray's proxy listens in the place of listen.py: heads, connections and signals are its business.
"""

from __future__ import annotations

import logging.config
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from splitcodec.edge.answer import Edge
from splitcodec.edge.app import create_app
from splitcodec.edge.logs import config as log_config
from splitcodec.edge.server import check_guarded
from splitcodec.edge.settings import Settings
from splitcodec.edge.sockets import listen
from splitcodec.errors import MissingExtra, SettingsError
from splitcodec.wire.bundle import open_bundle

try:
    import ray
    from ray import serve
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"--engine ray needs {error.name}; install it with: pip install 'splitcodec[edge,ray]'"
    ) from None

APPLICATION = "splitcodec"


def grow(
    bundles: Sequence[str], settings: Settings, *, replicas: int, announce: Callable[[str], None] | None = None
) -> None:
    """Serve zoo names, folders or zips from `replicas` processes until SIGTERM (returns) or SIGINT (KeyboardInterrupt).

    RAY_ADDRESS names a cluster, each of whose machines has this package, the bundles and the token file in the same
    places, and a proxy that listens; without it a Ray of this process' own is started on this machine, and ended with
    it. Raises SettingsError, BundleError.
    """
    check_guarded(settings)
    if replicas < 1:
        raise SettingsError(f"{replicas} replicas; expected at least 1")
    if settings.trusted_proxies:
        raise SettingsError("trusted_proxies does not reach past Ray's proxy; unset SPLITCODEC_TRUSTED_PROXIES")
    places = [str(Path(one).resolve()) if Path(one).exists() else one for one in bundles]
    for one in places:
        open_bundle(one)  # refused here rather than in each replica
    settings = _placed(settings)
    address = os.environ.get("RAY_ADDRESS")
    threads = settings.threads or 1
    if address:
        ray.init(address=address, namespace=APPLICATION, log_to_driver=False)
    else:
        room = max(os.cpu_count() or 1, replicas * threads)
        ray.init(address="local", namespace=APPLICATION, num_cpus=room, include_dashboard=False, log_to_driver=False)
    ended = _Ended()  # after init, which has an answer to SIGTERM of its own: it aborts
    try:
        serve.start(proxy_location="EveryNode", http_options=_http(settings))
        deployment = serve.deployment(
            serve.ingress(_builder(places, settings))(),
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
            scheme = "https" if settings.tls_cert else "http"
            announce(f"{scheme}://{settings.host}:{settings.port}")
        ended.wait()
        serve.delete(APPLICATION)
    finally:
        if not address:
            serve.shutdown()
        ray.shutdown()
        ended.forget()
    if ended.interrupted:
        raise KeyboardInterrupt


def _builder(bundles: Sequence[str], settings: Settings) -> Callable[[], FastAPI]:
    """Return what each replica calls once; Ray takes it apart and sends it there, so it names only what it needs."""

    def build() -> FastAPI:
        logging.config.dictConfig(log_config(settings.log))
        edge = Edge(*bundles, threads=settings.threads or 1, max_symbols=settings.max_symbols)
        return create_app(edge, settings)

    return build


def _placed(settings: Settings) -> Settings:
    """Return the settings with a port that is free, and with files that are found from any folder."""
    listeners = listen(settings.host, settings.port)
    port = listeners[0].getsockname()[1]
    for one in listeners:
        one.close()
    files = {
        name: path.resolve()
        for name in ("tls_cert", "tls_key", "tokens_file")
        if (path := getattr(settings, name)) is not None
    }
    return settings.model_copy(update={"port": port, **files})


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
    """Waits for SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self.interrupted = False
        self._event = threading.Event()
        self._before = {one: signal.signal(one, self._told) for one in (signal.SIGTERM, signal.SIGINT)}

    def wait(self) -> None:
        """Wait, without end."""
        while not self._event.wait(1.0):
            pass

    def forget(self) -> None:
        """Give the signals back."""
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _told(self, number: int, _: object) -> None:
        self.interrupted = number == signal.SIGINT
        self._event.set()
