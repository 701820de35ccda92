"""Stage 5 of 7: an address -> the link that reaches it.   inside: device/link.py, device/mqtt.py"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from splitcodec.device.link import http


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
    """Return the link to `url`: http:// or https:// to a server, mqtt:// or mqtts:// to a bridge.

    Over MQTT user, password and CA file come from SPLITCODEC_MQTT_USERNAME, SPLITCODEC_MQTT_PASSWORD and
    SPLITCODEC_MQTT_CA where the URL does not name them. Raises SettingsError, and MissingExtra without paho-mqtt.
    """
    if not url.startswith(("mqtt://", "mqtts://")):
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
