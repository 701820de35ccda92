"""The edge behind MQTT 5: packets from a topic, answers back.   around: edge/answer.py   asked by: device/mqtt.py

A packet is confirmed to the broker after its answer is on its way, so a bridge that dies leaves its packets to the next
one. Several bridges on a topic share the work. Answers are kept by idempotency key, the last 256 of them: a packet that
comes twice costs one answer. What the broker would not carry is refused here, for it would hang up, and again each time
that the answer is sent again. A packet of QoS 0 is answered too, but there is nothing to confirm and the broker holds
none back, so what comes while `UNHELD` of them wait is dropped.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

from splitcodec.errors import (
    AnswerTooLarge,
    LinkDown,
    MissingExtra,
    PacketError,
    SettingsError,
    SplitcodecError,
    one_line,
)
from splitcodec.wire.brief import MEDIA_TYPE as BRIEF_TYPE
from splitcodec.wire.brief import shorten
from splitcodec.wire.problem import MEDIA_TYPE, dump_problem
from splitcodec.wire.request import BRIEF, MAX_PACKET, Respond, wanted_from
from splitcodec.wire.topic import ANSWER_TYPE, LARGEST, Broker, published_bytes

try:
    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
except ModuleNotFoundError as error:
    raise MissingExtra(f"the bridge needs {error.name}; install it with: pip install 'splitcodec[mqtt]'") from None

_log = logging.getLogger("splitcodec.edge")

ANSWERS_KEPT = 256
BYTES_KEPT = 16 << 20  # of these together
UNHELD = 256
ANSWER_EXPIRES_S = 60
SESSION_EXPIRES_S = 86_400
_ROOMY = 1024  # bytes, in which a refusal fits with its reason


@final
class Bridge:
    """Takes packets from a broker and answers them with `respond(packet, wanted)`, which raises SplitcodecError.

    `concurrency` packets are answered at the same time; the broker holds the others back. With a `client_id` the broker
    keeps packets while the bridge is away, for up to a day; two bridges must not share one.
    """

    def __init__(self, broker: Broker, respond: Respond, *, concurrency: int = 2, client_id: str | None = None) -> None:
        if concurrency < 1:
            raise SettingsError(f"concurrency {concurrency}; expected at least 1")
        self._broker = broker
        self._respond = respond
        self._concurrency = concurrency
        self._lasting = client_id is not None
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or f"splitcodec-bridge-{secrets.token_hex(6)}",
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
        )
        if broker.username is not None:
            self._client.username_pw_set(broker.username, broker.password)
        if (context := broker.tls_context()) is not None:
            self._client.tls_set_context(context)
        self._client.reconnect_delay_set(min_delay=1, max_delay=30)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._workers = ThreadPoolExecutor(concurrency, thread_name_prefix="splitcodec bridge")
        self._lock = threading.Lock()
        self._unconfirmed: deque[list[Any]] = deque()  # [number, QoS, done], in the order in which they came
        self._unheld = threading.Semaphore(UNHELD)
        self._largest = LARGEST  # of a packet that the broker takes, in bytes
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._ready = threading.Event()
        self._trouble: SplitcodecError | None = None

    def __enter__(self) -> Bridge:
        """Connect and listen. Raises LinkDown if the broker cannot be reached or refuses within 10 s."""
        options = Properties(PacketTypes.CONNECT)
        options.MaximumPacketSize = MAX_PACKET + 4096
        options.ReceiveMaximum = 4 * self._concurrency
        if self._lasting:
            options.SessionExpiryInterval = SESSION_EXPIRES_S
        try:
            self._client.connect(
                self._broker.host, self._broker.port, clean_start=not self._lasting, properties=options
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            raise LinkDown(f"{self._broker.url}: cannot reach the broker ({reason}); check that it runs") from None
        self._client.loop_start()
        if not self._ready.wait(10.0) or self._trouble is not None:
            self.__exit__()
            raise self._trouble or LinkDown(f"{self._broker.url}: no word from the broker within 10 s; is it MQTT 5?")
        return self

    def __exit__(self, *_: object) -> None:
        """Answer what has come, and leave."""
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._client.disconnect()
        self._client.loop_stop()
        # paho closes its last sockets when it is collected, so nothing may hold it in a circle
        self._client.on_connect = self._client.on_subscribe = self._client.on_message = None
        self._client.on_disconnect = self._client.on_publish = None

    def _on_connect(self, client: Client, _: object, __: object, reason: ReasonCode, told: Properties | None) -> None:
        self._largest = getattr(told, "MaximumPacketSize", LARGEST)
        with self._lock:
            self._unconfirmed.clear()  # numbers of the connection before this one
        if reason.is_failure:
            self._refused(f"lets nobody in: {reason}; check user and password")
        else:
            client.subscribe(f"$share/splitcodec/{self._broker.packets}", qos=1)

    def _on_disconnect(self, _: Client, __: object, ___: object, reason: ReasonCode, ____: object) -> None:
        if reason.is_failure:
            _log.warning("%s: the connection is lost (%s); trying again", self._broker.url, reason)

    def _on_subscribe(self, _: Client, __: object, ___: int, reasons: list[ReasonCode], ____: object) -> None:
        if reasons and reasons[0].is_failure:
            self._refused(f"does not let us read {self._broker.packets}: {reasons[0]}; check its access rules")
        else:
            self._trouble = None
            self._ready.set()

    def _refused(self, what: str) -> None:
        self._trouble = LinkDown(f"{self._broker.url} {what}")
        _log.error("%s", self._trouble)
        self._ready.set()

    def _on_publish(self, _: Client, __: object, ___: int, reason: ReasonCode, ____: object) -> None:
        if reason.is_failure:  # its device waits for nothing, and nobody else would know
            _log.warning("%s refused an answer: %s; check its access rules", self._broker.url, reason)

    def _on_message(self, _: Client, __: object, message: MQTTMessage) -> None:
        place = [message.mid, message.qos, False]
        if message.qos:
            with self._lock:
                self._unconfirmed.append(place)
        elif not self._unheld.acquire(blocking=False):
            _log.warning("%d packets of QoS 0 wait; one more is dropped", UNHELD)
            return
        try:
            self._workers.submit(self._handle, message, place)
        except RuntimeError:
            return  # closing: unconfirmed, so the broker gives it to the next bridge

    def _handle(self, message: MQTTMessage, place: list[Any]) -> None:
        target = getattr(message.properties, "ResponseTopic", "")
        if self._broker.may_answer(target):
            reply = Properties(PacketTypes.PUBLISH)
            reply.MessageExpiryInterval = ANSWER_EXPIRES_S
            if (correlation := getattr(message.properties, "CorrelationData", None)) is not None:
                reply.CorrelationData = correlation
            reply.ContentType, body = self._answer(message)
            if (size := published_bytes(target, reply.pack(), body)) > self._largest:
                refusal = AnswerTooLarge(
                    f"an answer of {size} bytes with all around it; the broker takes {self._largest}: raise its limit, "
                    "or ask for less"
                )
                _log.warning("%s", refusal)
                reply.ContentType, body = MEDIA_TYPE, dump_problem(refusal, brief=self._largest < _ROOMY)
            if published_bytes(target, reply.pack(), body) <= self._largest:
                self._client.publish(target, body, qos=1, properties=reply)
        else:
            _log.warning(
                "a packet without a plain response topic under %s; nobody can be answered", self._broker.answers
            )
        self._confirm(place)

    def _answer(self, message: MQTTMessage) -> tuple[str, bytes]:
        given = dict(getattr(message.properties, "UserProperty", []))
        packet = bytes(message.payload)
        try:
            wanted = wanted_from(given)
            name = hashlib.sha256(repr(tuple(wanted)).encode() + packet).digest()
            if len(packet) > MAX_PACKET:
                raise PacketError(f"a packet of {len(packet)} bytes; at most {MAX_PACKET} are taken")
            with self._lock:
                body = self._kept.get(name)
            if body is None:
                body = self._respond(packet, wanted)
        except SplitcodecError as error:
            _log.warning("%s: %s", type(error).__name__, error)
            return MEDIA_TYPE, dump_problem(error)
        except Exception:
            _log.exception("a packet of %d bytes", len(packet))
            return MEDIA_TYPE, dump_problem(SplitcodecError())
        with self._lock:
            self._kept[name] = body
            while len(self._kept) > ANSWERS_KEPT or sum(map(len, self._kept.values())) > BYTES_KEPT:
                self._kept.popitem(last=False)
        return (BRIEF_TYPE, shorten(body)) if given.get(BRIEF) == "1" else (ANSWER_TYPE, body)

    def _confirm(self, place: list[Any]) -> None:
        if place[1] == 0:  # without a number; to confirm number 0 is a protocol error and ends the connection
            self._unheld.release()
            return
        with self._lock:  # MQTT wants confirmations in the order in which the packets came
            place[2] = True
            while self._unconfirmed and self._unconfirmed[0][2]:
                number, qos, _ = self._unconfirmed.popleft()
                self._client.ack(number, qos)
