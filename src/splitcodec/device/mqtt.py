"""Stage 5 of 7, over MQTT 5: a link through a broker.   before: wire/packet.py   far end: edge/mqtt.py

    link = mqtt("mqtts://camera7@broker.example/site7", password=...)

The names on the wire are in wire/topic.py. QoS 1: the broker confirms each packet, and a packet may come twice; its
idempotency key tells. A packet expires at the broker when nobody waits for its answer any more.
"""

from __future__ import annotations

import math
import os
import queue
import secrets
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

from splitcodec.errors import LinkDown, LinkError, LinkGarbled, LinkRefused, MissingExtra, one_line
from splitcodec.wire.answer import MAX_BYTES
from splitcodec.wire.brief import MEDIA_TYPE as BRIEF_TYPE
from splitcodec.wire.brief import restore
from splitcodec.wire.problem import MEDIA_TYPE, parse_problem
from splitcodec.wire.request import BRIEF, KEY, backoff_s, check_tries, said, tries_told, wanted_from
from splitcodec.wire.topic import ANSWER_TYPE, LARGEST, PACKET_TYPE, Broker, parse_broker, published_bytes

try:
    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
except ModuleNotFoundError as error:
    raise MissingExtra(f"MQTT needs {error.name}; install it with: pip install 'splitcodec[mqtt]'") from None

_NOBODY = 16  # PUBACK: no matching subscribers
_LOG_IN = frozenset({134, 135, 138, 140})  # CONNACK: bad name or password, not authorised, banned, bad method
_FORBIDDEN = 135


def mqtt(
    url: str,
    *,
    tasks: Sequence[str] = (),
    top: int | None = None,
    score: float | None = None,
    timeout_s: float = 10.0,
    retries: int = 2,
    username: str | None = None,
    password: str | None = None,
    ca_file: str | Path | None = None,
    brief: bool = True,
) -> MqttLink:
    """Return a link to the bridge that listens at `url`: mqtt://[user[:password]@]host[:1883]/topic, or mqtts://.

    `timeout_s` is for each try, `retries` are on top of the first. `tasks` are the answers to ask for, `top` how many
    guesses of a classification, `score` the least of the boxes to send (none: the edge's defaults). `username` and
    `password` count where the URL has none, `ca_file` holds the authorities that TLS trusts. `brief`: the answer
    crosses the broker in a third of its bytes and is restored here; a bridge that does not know how sends it as it is.

    Calling it raises LinkDown, LinkRefused or LinkGarbled. SettingsError for arguments that make no sense.
    """
    check_tries(timeout_s=timeout_s, retries=retries)
    words = said(tasks=tasks, top=top, score=score) | ({BRIEF: "1"} if brief else {})
    broker = parse_broker(url, username=username, password=password, ca_file=ca_file)
    return MqttLink(broker, words=words, timeout_s=timeout_s, retries=retries)


@final
class MqttLink:
    """A link through a broker that keeps its connection. Close it, or use it in `with`.

    Threads may share it, and so may a process and those that fork from it: each opens a connection of its own.
    """

    def __init__(self, broker: Broker, *, words: Mapping[str, str], timeout_s: float, retries: int) -> None:
        self.url = broker.url
        self._wanted = list(words.items())
        self.tasks = wanted_from(words).tasks
        self._timeout_s = timeout_s
        self._tries = 1 + retries
        self._open = partial(_Session, broker, timeout_s=timeout_s)
        self._begin()

    def __call__(self, packet: bytes, *, idempotency_key: str | None = None) -> bytes:
        """Send one packet and return the answer. Sent again with the same key, the edge gives the answer it has."""
        if not self._session.ours:
            self._begin()
        correlation = secrets.token_bytes(8)
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = PACKET_TYPE
        properties.ResponseTopic = self._session.response_topic
        properties.CorrelationData = correlation
        properties.MessageExpiryInterval = math.ceil(self._timeout_s)
        properties.UserProperty = [(KEY, idempotency_key or correlation.hex()), *self._wanted]
        trouble: LinkError | None = None
        for turn in range(self._tries):
            if turn:
                time.sleep(backoff_s(turn))
            try:
                message = self._session.ask(packet, properties, correlation, timeout_s=self._timeout_s)
            except LinkDown as error:
                trouble = error
                continue
            return self._body(message)
        raise LinkDown(f"{self.url} does not answer after {tries_told(self._tries)} ({trouble})")

    def close(self) -> None:
        """Leave the broker."""
        self._session.close()

    def __enter__(self) -> MqttLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        self._session = self._open()
        weakref.finalize(self, self._session.close)  # for a link that is used once and dropped

    def _body(self, message: MQTTMessage) -> bytes:
        kind = getattr(message.properties, "ContentType", "no content type")
        if kind == MEDIA_TYPE:
            raise parse_problem(bytes(message.payload), place=self.url)
        if kind not in (ANSWER_TYPE, BRIEF_TYPE) or len(message.payload) > MAX_BYTES:
            raise LinkGarbled(
                f"{self.url} sent {len(message.payload)} bytes of {str(kind)[:80]}; is this a splitcodec bridge?"
            )
        body = bytes(message.payload)
        return restore(body) if kind == BRIEF_TYPE else body


@final
class _Session:
    """The connection. Apart from the link, so that paho's thread does not keep a link alive that nobody holds."""

    def __init__(self, broker: Broker, *, timeout_s: float) -> None:
        self._broker = broker
        self._process = os.getpid()
        name = f"splitcodec-{secrets.token_hex(6)}"
        self.response_topic = broker.answers + name
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5)
        if broker.username is not None:
            self._client.username_pw_set(broker.username, broker.password)
        if (context := broker.tls_context()) is not None:
            self._client.tls_set_context(context)
        self._client.reconnect_delay_set(min_delay=1, max_delay=30)
        self._client.connect_timeout = timeout_s
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._start = threading.Lock()
        self._started = False
        self._largest = LARGEST  # of a packet that the broker takes, in bytes
        self._ready = threading.Event()
        self._refusal: LinkError | None = None
        self._waiting: dict[bytes, queue.SimpleQueue[MQTTMessage | ReasonCode]] = {}
        self._lock = (
            threading.Lock()
        )  # of the two below; never held while paho is called, whose own locks callbacks hold
        self._sent: dict[int, bytes] = {}  # correlation by packet number, until the broker confirms it
        self._early: dict[int, ReasonCode] = {}  # confirmations that came before `publish` had told the number

    @property
    def ours(self) -> bool:
        """Say whether this process has begun it, and not one that this was forked from: paho's thread is there."""
        return self._process == os.getpid()

    def ask(self, packet: bytes, properties: Properties, correlation: bytes, *, timeout_s: float) -> MQTTMessage:
        """Publish once and wait for the answer. Raises LinkDown or LinkRefused."""
        deadline = time.monotonic() + timeout_s
        self._connect()
        ready = self._ready.wait(timeout_s)
        if self._refusal is not None:  # also where the broker has hung up since: it will say the same again
            raise self._refusal
        if not ready:
            raise LinkDown(f"not connected within {timeout_s:g} s; check that the broker runs")
        if (size := published_bytes(self._broker.packets, properties.pack(), packet)) > self._largest:
            # the broker would hang up, and again each time that paho sends it again
            raise LinkRefused(
                f"{self._broker.url} takes {self._largest} bytes, the packet has {size} with all around it; choose a "
                "lower level or --max-bytes, or raise the broker's limit",
                status=413,
            )
        box = self._waiting.setdefault(correlation, queue.SimpleQueue())
        try:
            number = self._client.publish(self._broker.packets, packet, qos=1, properties=properties).mid
            with self._lock:
                if (reason := self._early.pop(number, None)) is None:
                    self._sent[number] = correlation
                else:
                    self._judge(correlation, reason)
            while True:
                got = box.get(timeout=max(0.001, deadline - time.monotonic()))
                if isinstance(got, MQTTMessage):
                    return got
                if got.value == _NOBODY:
                    raise LinkDown("no bridge listens there; start one with `splitcodec bridge`")
                raise LinkRefused(
                    f"{self._broker.url} refused the packet: {got}; check the broker's access rules",
                    status=403 if got.value == _FORBIDDEN else 500,
                )
        except queue.Empty:
            raise LinkDown(f"no answer within {timeout_s:g} s; check that `splitcodec bridge` runs") from None
        finally:
            self._waiting.pop(correlation, None)

    def close(self) -> None:
        """Leave the broker and end paho's thread."""
        if not self.ours:
            return
        with self._start:
            if self._started:
                self._started = False
                self._client.disconnect()
                self._client.loop_stop()
                # paho closes its last sockets when it is collected, so nothing may hold it in a circle
                self._client.on_connect = self._client.on_subscribe = self._client.on_disconnect = None
                self._client.on_message = self._client.on_publish = self._client.on_connect_fail = None

    def _connect(self) -> None:
        with self._start:
            if self._started:
                return
            options = Properties(PacketTypes.CONNECT)
            options.MaximumPacketSize = MAX_BYTES + 65_536
            try:
                self._client.connect(self._broker.host, self._broker.port, clean_start=True, properties=options)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; ValueError: a host of no use
                reason = getattr(error, "strerror", None) or one_line(error)
                raise LinkDown(f"cannot reach the broker: {reason}; check address and certificates") from None
            self._client.loop_start()
            self._started = True

    def _on_connect(self, client: Client, _: object, __: object, reason: ReasonCode, told: Properties | None) -> None:
        self._largest = getattr(told, "MaximumPacketSize", LARGEST)
        if reason.is_failure:
            status = 401 if reason.value in _LOG_IN else 503
            self._refused(f"lets nobody in: {reason}; check user and password", status=status)
            return
        client.subscribe(self.response_topic, qos=1)

    def _on_connect_fail(self, *_: Any) -> None:
        self._refusal = None  # what a broker said that is not there any more

    def _on_subscribe(self, _: Client, __: object, ___: int, reasons: list[ReasonCode], ____: object) -> None:
        if reasons and reasons[0].is_failure:
            what = f"does not let us read {self.response_topic}: {reasons[0]}; check the broker's access rules"
            self._refused(what, status=403)
            return
        self._refusal = None
        self._ready.set()

    def _refused(self, what: str, *, status: int) -> None:
        self._refusal = LinkRefused(f"{self._broker.url} {what}", status=status)
        self._ready.set()

    def _on_disconnect(self, *_: Any) -> None:
        self._ready.clear()

    def _on_message(self, _: Client, __: object, message: MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        if correlation is not None and (box := self._waiting.get(correlation)) is not None:
            box.put(message)

    def _on_publish(self, _: Client, __: object, mid: int, reason: ReasonCode, ___: object) -> None:
        with self._lock:
            if (correlation := self._sent.pop(mid, None)) is None:
                self._early[mid] = reason
            else:
                self._judge(correlation, reason)

    def _judge(self, correlation: bytes, reason: ReasonCode) -> None:
        refused = reason.is_failure or reason.value == _NOBODY
        if refused and (box := self._waiting.get(correlation)) is not None:
            box.put(reason)
