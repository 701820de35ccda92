"""Stage 5 of 7: an address -> the link that reaches it.   inside: device/link.py, mqtt.py, udp.py"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, final

from splitcodec.device.link import http
from splitcodec.device.udp import udp
from splitcodec.errors import LinkError, SettingsError
from splitcodec.wire.request import Wanted, without_password

AROUND_HTTP: Final = 380
"""Bytes that HTTP over TCP puts around a packet in two segments and its answer, where a connection is open."""
AROUND_UDP: Final = 120
"""The same of two datagrams up and one down. Both by docs/field.md, less the answer of 57 bytes."""


class KeyedLink(Protocol):
    """A link that holds a connection and sends idempotency keys along."""

    url: str

    def __call__(self, packet: bytes, *, idempotency_key: str | None = None) -> bytes:
        """Send one packet and return the answer."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def around(url: str) -> int:
    """Return the bytes that the link to `url` puts around a packet and its answer; MQTT is taken to put HTTP's."""
    return AROUND_UDP if url.lower().startswith("udp://") else AROUND_HTTP


def open_link(
    url: str,
    *,
    tasks: Sequence[str] = (),
    top: int | None = None,
    score: float | None = None,
    timeout_s: float = 10.0,
    retries: int = 2,
    token: str | None = None,
) -> KeyedLink:
    """Return the link to `url`: http:// or https:// to a server, mqtt://, mqtts:// or udp:// to a bridge.

    Over UDP the token is the key of a tag that every frame bears. Over MQTT user, password and CA file come from
    SPLITCODEC_MQTT_USERNAME, SPLITCODEC_MQTT_PASSWORD and SPLITCODEC_MQTT_CA where the URL does not name them; an
    empty one is none.
    Raises SettingsError, and MissingExtra without paho-mqtt.
    """
    scheme = url.partition("://")[0].lower()
    if scheme == "udp":
        return udp(url, tasks=tasks, top=top, score=score, timeout_s=timeout_s, retries=retries, token=token)
    if scheme not in ("mqtt", "mqtts"):
        if scheme not in ("http", "https"):
            raise SettingsError(
                f"{without_password(url)!r} is no address of an edge; expected one like http://host:8080, "
                "mqtt://host/topic or udp://host"
            )
        return http(url, tasks=tasks, top=top, score=score, timeout_s=timeout_s, retries=retries, token=token)
    from splitcodec.device.mqtt import mqtt

    return mqtt(
        url,
        tasks=tasks,
        top=top,
        score=score,
        timeout_s=timeout_s,
        retries=retries,
        username=os.environ.get("SPLITCODEC_MQTT_USERNAME") or None,
        password=os.environ.get("SPLITCODEC_MQTT_PASSWORD") or None,
        ca_file=os.environ.get("SPLITCODEC_MQTT_CA") or None,
    )


@final
class Links:
    """Links to the edge at `url`, one for each thing to ask for, opened when a packet wants it. Close them at the end.

    What waits may have been made for other tasks than are asked for today, and a link asks for the same each time.
    `token` may be a function: it is asked again where the link fails, for who runs for months outlives tokens.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 10.0,
        retries: int = 2,
        token: str | Callable[[], str | None] | None = None,
    ) -> None:
        self._open = partial(open_link, url, timeout_s=timeout_s, retries=retries)
        self._read_token = token if callable(token) else lambda: token
        self._token = self._read_token()
        self._links: dict[Wanted, KeyedLink] = {}

    def __call__(self, packet: bytes, wanted: Wanted) -> bytes:
        """Send one packet, under its key, and return the answer. Raises LinkError, and as `open_link`."""
        try:
            return self.asking(wanted)(packet, idempotency_key=wanted.key)
        except LinkError:
            if not self._renewed():
                raise
        return self.asking(wanted)(packet, idempotency_key=wanted.key)

    def asking(self, wanted: Wanted) -> KeyedLink:
        """Return the link that asks for these tasks, guesses and boxes. Raises as `open_link`."""
        query = wanted._replace(key=None)
        if query not in self._links:
            self._links[query] = self._open(tasks=query.tasks, top=query.top, score=query.score, token=self._token)
        return self._links[query]

    def close(self) -> None:
        """Close the connections."""
        for link in self._links.values():
            link.close()

    def _renewed(self) -> bool:
        """Go on with another token if there is one by now, and a link takes it; returns whether so."""
        with contextlib.suppress(SettingsError):
            if (token := self._read_token()) != self._token:
                self._open(token=token).close()
                self.close()
                self._links.clear()
                self._token = token
                return True
        return False
