"""The command between devices that do not speak HTTP and an edge: bridge."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitcodec.cli.show import DEFAULT_BUNDLE, ThreadsOption, TimeoutOption, check_finite
from splitcodec.cli.tokens import read_token, token_reader
from splitcodec.cli.watching import say

if TYPE_CHECKING:
    from splitcodec.wire.request import Respond, Wanted


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("bridge", rich_help_panel="At the edge")(bridge)


def bridge(
    mqtt: Annotated[
        str | None,
        typer.Option("--mqtt", metavar="URL", help="Broker and topic: mqtt:// or mqtts://[USER@]HOST[:PORT]/TOPIC."),
    ] = None,
    udp: Annotated[
        str | None, typer.Option("--udp", metavar="[HOST:]PORT", help="Listen for datagrams. HOST: 127.0.0.1.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="The edge server. Default: answer in this process.")
    ] = None,
    bundle: Annotated[
        list[str] | None,
        typer.Option(
            "--bundle",
            "-b",
            metavar="B",
            help=f"Bundles to answer with, or a folder of bundles; repeatable. Default: {DEFAULT_BUNDLE}.",
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=1024, help="Packets answered at the same time.")
    ] = 2,
    client_id: Annotated[
        str | None, typer.Option("--client-id", help="Let the broker keep packets while the bridge is away.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="Key of --udp. Default: SPLITCODEC_TOKEN.")
    ] = None,
    server_token_file: Annotated[
        Path | None,
        typer.Option(
            "--server-token-file", metavar="FILE", help="Bearer token for --url. Default: SPLITCODEC_SERVER_TOKEN."
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca", metavar="FILE", help="PEM file of the authorities that mqtts:// trusts. Default: the system's."
        ),
    ] = None,
    timeout: TimeoutOption = 10.0,
    threads: ThreadsOption = None,
) -> None:
    """Take packets from an MQTT 5 broker (--mqtt) or in datagrams (--udp), give answers from a server or this process.

    User, password and CA file may come from SPLITCODEC_MQTT_USERNAME, SPLITCODEC_MQTT_PASSWORD, SPLITCODEC_MQTT_CA.
    Over UDP the token (--token-file or SPLITCODEC_TOKEN) is the key that devices have as well; without one, only
    addresses that are not public are answered. The server's own token (--server-token-file or SPLITCODEC_SERVER_TOKEN)
    is another. SIGTERM and Ctrl-C end it with 0, after the answers that it has begun; SIGHUP opens its bundles anew.
    """
    from splitcodec.errors import SettingsError

    check_finite({"--timeout": timeout})
    if url is not None and bundle:
        raise SettingsError("--url and --bundle; the server at --url has bundles of its own, give one of the two")
    if (mqtt is None) == (udp is None):
        raise SettingsError("give one of --mqtt URL and --udp [HOST:]PORT: where packets come from")
    if udp is not None and (client_id is not None or ca is not None):
        raise SettingsError("--client-id and --ca are for --mqtt; leave them out with --udp")
    if mqtt is not None and token_file is not None:
        raise SettingsError("--token-file is the key of --udp; the server at --url takes --server-token-file")
    if url is None and server_token_file is not None:
        raise SettingsError("--server-token-file is for the server at --url; give both")
    renew: Callable[[], None]
    if url is not None:
        respond, what = _over_http(url, timeout, token=_server_token(server_token_file))
        renew = functools.partial(say, "SIGHUP: nothing to open; the server has the bundles")
    else:
        inside = _InProcess(bundle, threads)
        respond, what, renew = inside.respond, inside.idents, inside.renew
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # whose `put` may come in the midst of another
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if (one := getattr(signal, name, None)) is not None:  # no SIGHUP on Windows
            signal.signal(one, lambda number, _: signals.put(number))
    bridging: AbstractContextManager[object]
    if mqtt is not None:
        bridging, place = _from_mqtt(mqtt, respond, ca=ca, client_id=client_id, concurrency=concurrency)
    else:
        bridging, place = _from_udp(udp or "", respond, token=read_token(token_file), concurrency=concurrency)
    with bridging:
        say(f"bridging {place} to {what}")
        while _next(signals) == getattr(signal, "SIGHUP", None):
            renew()


def _from_mqtt(
    url: str, respond: Respond, *, ca: Path | None, client_id: str | None, concurrency: int
) -> tuple[AbstractContextManager[object], str]:
    from splitcodec.edge.mqtt import Bridge
    from splitcodec.wire.topic import parse_broker

    broker = parse_broker(
        url,
        username=os.environ.get("SPLITCODEC_MQTT_USERNAME") or None,
        password=os.environ.get("SPLITCODEC_MQTT_PASSWORD") or None,
        ca_file=ca or os.environ.get("SPLITCODEC_MQTT_CA") or None,
    )
    return Bridge(broker, respond, concurrency=concurrency, client_id=client_id), broker.url


def _from_udp(
    place: str, respond: Respond, *, token: str | None, concurrency: int
) -> tuple[AbstractContextManager[object], str]:
    from splitcodec.edge.udp import UdpBridge
    from splitcodec.errors import SettingsError

    host, _, port = place.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65_536):
        raise SettingsError(f"--udp {place[:80]!r}; expected a port such as 8080, or 0.0.0.0:8080")
    host = host.strip("[]") or "127.0.0.1"
    bridge = UdpBridge(host, int(port), respond, concurrency=concurrency, token=token)
    return bridge, f"udp://{f'[{host}]' if ':' in host else host}:{bridge.port}"


def _server_token(file: Path | None) -> Callable[[], str | None]:
    if file is not None:
        return token_reader(file)
    return lambda: os.environ.get("SPLITCODEC_SERVER_TOKEN", "").strip() or None


def _over_http(url: str, timeout_s: float, *, token: Callable[[], str | None] | None = None) -> tuple[Respond, str]:
    """Return what asks the server, and its address. The token is read again where the server wants another."""
    from splitcodec.device.link import HttpLink, http
    from splitcodec.errors import LinkRefused, SettingsError

    read = (lambda: None) if token is None else token
    tokens = [read()]

    @functools.lru_cache(maxsize=32)
    def link(tasks: tuple[str, ...], top: int | None, score: float | None) -> HttpLink:
        return http(
            url, tasks=tasks, top=top, score=score, timeout_s=timeout_s, retries=0, token=tokens[0], brief=False
        )

    place = link((), None, None).url  # a wrong address is told now

    def renewed() -> bool:
        with contextlib.suppress(SettingsError):
            if (found := read()) != tokens[0]:
                http(url, token=found).close()  # which refuses what HTTP does not carry
                tokens[0] = found
                link.cache_clear()
                return True
        return False

    def respond(packet: bytes, wanted: Wanted) -> bytes:
        asked = wanted.tasks, wanted.top, wanted.score
        try:
            return link(*asked)(packet, idempotency_key=wanted.key)
        except LinkRefused as error:
            if error.status != HTTPStatus.UNAUTHORIZED or not renewed():
                raise
        return link(*asked)(packet, idempotency_key=wanted.key)

    return respond, place


class _InProcess:
    """Answers by bundles that may be opened anew."""

    def __init__(self, bundles: list[str] | None, threads: int | None) -> None:
        from splitcodec.edge.answer import Edge

        self._edge = Edge(*(bundles or [DEFAULT_BUNDLE]), threads=threads)

    @property
    def idents(self) -> str:
        return ", ".join(one.ident for one in self._edge.bundles)

    def respond(self, packet: bytes, wanted: Wanted) -> bytes:
        return self._edge.respond_to(packet, wanted)

    def renew(self) -> None:
        """Answer by the bundles as they are now; what cannot be opened leaves the old ones."""
        from splitcodec.errors import SplitcodecError

        try:
            self._edge = self._edge.reopened()
        except SplitcodecError as error:
            say(f"bundles not opened again, the old ones stay in use: {error}")
        else:
            say(f"bundles opened again: {self.idents}")


def _next(signals: queue.SimpleQueue[int]) -> int:
    while True:
        with contextlib.suppress(queue.Empty):
            return signals.get(timeout=3600.0)
