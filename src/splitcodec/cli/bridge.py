"""The command between a broker and an edge: bridge."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitcodec.cli.show import DEFAULT_BUNDLE, ThreadsOption

if TYPE_CHECKING:
    from splitcodec.edge.mqtt import Respond


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("bridge", rich_help_panel="At the edge")(bridge)


def bridge(
    mqtt: Annotated[
        str, typer.Option("--mqtt", metavar="URL", help="Broker and topic: mqtt[s]://[USER@]HOST[:PORT]/TOPIC.")
    ],
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="The edge server. Default: answer in this process.")
    ] = None,
    bundle: Annotated[
        list[str] | None, typer.Option("--bundle", "-b", metavar="B", help="Bundles to answer with; repeatable.")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Packets answered at the same time.")] = 2,
    client_id: Annotated[
        str | None, typer.Option("--client-id", help="Let the broker keep packets while the bridge is away.")
    ] = None,
    ca: Annotated[Path | None, typer.Option("--ca", metavar="FILE", help="Authorities that TLS trusts.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds to wait.")] = 10.0,
    threads: ThreadsOption = None,
) -> None:
    """Take packets from an MQTT 5 broker and give answers back, from a server (--url) or from this process.

    User, password and CA file may come from SPLITCODEC_MQTT_USERNAME, SPLITCODEC_MQTT_PASSWORD, SPLITCODEC_MQTT_CA.
    """
    from splitcodec.edge.mqtt import Bridge
    from splitcodec.errors import SettingsError
    from splitcodec.wire.topic import parse_broker

    if url is not None and bundle:
        raise SettingsError("--url and --bundle; the server at --url has bundles of its own, give one of the two")
    broker = parse_broker(
        mqtt,
        username=os.environ.get("SPLITCODEC_MQTT_USERNAME"),
        password=os.environ.get("SPLITCODEC_MQTT_PASSWORD"),
        ca_file=ca or os.environ.get("SPLITCODEC_MQTT_CA"),
    )
    respond, what = _over_http(url, timeout) if url is not None else _in_process(bundle, threads)
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    with Bridge(broker, respond, concurrency=concurrency, client_id=client_id):
        print(f"bridging {broker.url} to {what}", file=sys.stderr, flush=True)
        while not stop.wait(3600.0):
            pass


def _over_http(url: str, timeout_s: float) -> tuple[Respond, str]:
    from splitcodec.device.link import HttpLink, http
    from splitcodec.edge.mqtt import Wanted

    @functools.lru_cache(maxsize=32)
    def link(tasks: tuple[str, ...], top: int | None) -> HttpLink:
        return http(url, tasks=tasks, top=top, timeout_s=timeout_s, retries=0)

    link((), None)  # a wrong address is told now

    def respond(packet: bytes, wanted: Wanted) -> bytes:
        return link(wanted.tasks, wanted.top)(packet, idempotency_key=wanted.key)

    return respond, url


def _in_process(bundles: list[str] | None, threads: int | None) -> tuple[Respond, str]:
    from splitcodec.edge.answer import Edge
    from splitcodec.edge.mqtt import Wanted
    from splitcodec.wire.answer import GUESSES

    edge = Edge(*(bundles or [DEFAULT_BUNDLE]), threads=threads)

    def respond(packet: bytes, wanted: Wanted) -> bytes:
        return edge.respond(packet, tasks=wanted.tasks or None, top=wanted.top or GUESSES)

    return respond, ", ".join(one.ident for one in edge.bundles)
