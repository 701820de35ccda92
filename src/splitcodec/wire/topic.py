"""What both shores agree on over MQTT 5: how a broker is named, and what travels on which topic.

For `mqtt://host/site7`: packets go to `site7/packets`, each answer to the response topic that its request names,
`site7/answers/<client>`. Correlation data tells the answers apart; the content type tells an answer from a problem
document; user properties carry tasks, number of guesses, idempotency key, and whether the answer may be shortened.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import final
from urllib.parse import unquote, urlsplit

from splitcodec.errors import SettingsError
from splitcodec.wire.request import without_password

PACKET_TYPE = "application/octet-stream"
ANSWER_TYPE = "application/json"
LARGEST = 268_435_460
"""Bytes of the largest MQTT packet there is: a broker that names no limit of its own (Maximum Packet Size) takes it."""
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_LONGEST_NAME = 256  # of a client, in bytes; brokers take far less of a topic than MQTT does
_MOST_LEVELS = 8  # of such a name
_EXPECTED = "expected one like mqtt://host/topic or mqtts://user@host:8883/topic"


@final
@dataclass(frozen=True, slots=True)
class Broker:
    """A broker, how to log in there, and the topic that belongs to one edge."""

    host: str
    port: int
    topic: str
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @property
    def packets(self) -> str:
        """Return the topic that packets are published to."""
        return f"{self.topic}/packets"

    @property
    def answers(self) -> str:
        """Return what every response topic begins with."""
        return f"{self.topic}/answers/"

    def may_answer(self, topic: str) -> bool:
        """Say whether answers go to a response topic that a device names: under `answers`, and plain.

        A broker hangs up on who publishes to a topic of, say, 200 levels, though it hands such a name on.
        """
        name = topic.removeprefix(self.answers)
        plain = name.isprintable() and not set(name) & set("+#") and name.count("/") < _MOST_LEVELS
        return topic.startswith(self.answers) and plain and 0 < len(name.encode()) <= _LONGEST_NAME

    @property
    def url(self) -> str:
        """Return the address without name and password, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}/{self.topic}"

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what TLS needs, or None without TLS. Raises SettingsError for an unreadable file of authorities."""
        if not self.tls:
            return None
        try:
            return ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"{self.ca_file}: no certificates in PEM ({error}); give the broker's CA file"
            ) from None


def parse_broker(
    url: str, *, username: str | None = None, password: str | None = None, ca_file: str | Path | None = None
) -> Broker:
    """Return what `url` says: mqtt://[user[:password]@]host[:1883]/topic, or mqtts:// (TLS, 8883).

    `username` and `password` count where the URL has none; `ca_file` holds the authorities to trust (none: the
    system's). Raises SettingsError.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        reason = "" if "@" in url else f" ({error})"  # which may be a piece of the password
        raise SettingsError(f"{without_password(url)!r} is no URL{reason}; {_EXPECTED}") from None
    topic = unquote(parts.path).strip("/")
    if parts.scheme not in _PORTS or not parts.hostname or not topic or parts.query or parts.fragment or port == 0:
        raise SettingsError(f"{without_password(url)!r} is no address of a broker and topic; {_EXPECTED}")
    if set(topic) & set("+#\0") or topic.startswith("$") or len(topic) > 200 or not topic.isprintable():
        raise SettingsError(f"topic {topic[:80]!r}; expected a name without +, # and a leading $, such as site7")
    if ca_file is not None and parts.scheme != "mqtts":
        raise SettingsError(f"a CA file for {without_password(url)!r}; it is for mqtts://")
    return Broker(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        topic=topic,
        tls=parts.scheme == "mqtts",
        username=unquote(parts.username) if parts.username else username,
        password=unquote(parts.password) if parts.password else password,
        ca_file=None if ca_file is None else Path(ca_file),
    )


def published_bytes(topic: str, properties: bytes, payload: bytes) -> int:
    """Return the bytes of a PUBLISH of QoS 1, `properties` as they are packed: what a broker's limit counts."""
    rest = 2 + len(topic.encode()) + 2 + len(properties) + len(payload)
    return 1 + -(-rest.bit_length() // 7) + rest
