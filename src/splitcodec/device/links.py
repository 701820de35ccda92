"""Stage 5 of 7: an address -> the link that reaches it.   inside: device/link.py, mqtt.py, udp.py"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from splitcodec.device.link import http
from splitcodec.device.udp import udp
from splitcodec.errors import SettingsError


class KeyedLink(Protocol):
    """A link that holds a connection and sends idempotency keys along."""

    url: str

    def __call__(self, packet: bytes, *, idempotency_key: str | None = None) -> bytes:
        """Send one packet and return the answer."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def open_link(
    url: str,
    *,
    tasks: Sequence[str] = (),
    top: int | None = None,
    timeout_s: float = 10.0,
    retries: int = 2,
    token: str | None = None,
) -> KeyedLink:
    """Return the link to `url`: http:// or https:// to a server, mqtt://, mqtts:// or udp:// to a bridge.

    Over UDP the token is the key of a tag that every frame bears. Over MQTT user, password and CA file come from
    SPLITCODEC_MQTT_USERNAME, SPLITCODEC_MQTT_PASSWORD and SPLITCODEC_MQTT_CA where the URL does not name them.
    Raises SettingsError, and MissingExtra without paho-mqtt.
    """
    if url.startswith("udp://"):
        return udp(url, tasks=tasks, top=top, timeout_s=timeout_s, retries=retries, token=token)
    if not url.startswith(("mqtt://", "mqtts://")):
        if not url.lower().startswith(("http://", "https://")):
            shown = url.rpartition("@")[2][:200]  # of a wrong address nobody knows what the password is
            raise SettingsError(
                f"{shown!r} is no address of an edge; expected one like http://host:8080, mqtt://host/topic or udp://host"
            )
        return http(url, tasks=tasks, top=top, timeout_s=timeout_s, retries=retries, token=token)
    from splitcodec.device.mqtt import mqtt

    return mqtt(
        url,
        tasks=tasks,
        top=top,
        timeout_s=timeout_s,
        retries=retries,
        username=os.environ.get("SPLITCODEC_MQTT_USERNAME"),
        password=os.environ.get("SPLITCODEC_MQTT_PASSWORD"),
        ca_file=os.environ.get("SPLITCODEC_MQTT_CA"),
    )
