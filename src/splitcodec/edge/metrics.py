"""Beside server.py: what the server counts, in Prometheus' words. The only door to prometheus-client.

Every label has few values, whatever strangers send: paths that are not ours are "other", reasons are the names in
errors.py or http_<status>.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from splitcodec.edge.scrape import STAGES
from splitcodec.errors import MissingExtra

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_LATEST
except ModuleNotFoundError as error:
    raise MissingExtra(f"the server needs {error.name}; install it with: pip install 'splitcodec[edge]'") from None

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_BYTES = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 65_536)


@final
class Metrics:
    """The counters of one application; safe to use from any thread."""

    def __init__(self, *, version: str) -> None:
        self._registry = CollectorRegistry()
        one = self._registry
        self._requests = Counter("splitcodec_requests", "Requests answered.", ["path", "status"], registry=one)
        self._refusals = Counter("splitcodec_refusals", "Requests refused or failed.", ["reason"], registry=one)
        self._received = Counter("splitcodec_received_bytes", "Bytes of request bodies.", registry=one)
        self._sent = Counter("splitcodec_sent_bytes", "Bytes of response bodies.", registry=one)
        self._packet = Histogram("splitcodec_packet_bytes", "Size of packets let in.", buckets=_BYTES, registry=one)
        self._answers = Counter("splitcodec_answers", "Packets answered by a model.", ["bundle"], registry=one)
        self._symbols = Counter("splitcodec_symbols", "Symbols of the packets that were let in.", registry=one)
        self._replays = Counter("splitcodec_replays", "Answers given again under an idempotency key.", registry=one)
        self._batch = Histogram("splitcodec_batch_size", "Packets in a batch.", buckets=_SIZES, registry=one)
        self._stage = Histogram(
            "splitcodec_stage_seconds",
            "read and decode are per packet; queue (the longest wait), decoder, tail, backbone, detect and segment are "
            "per batch; total is per request for an answer.",
            ["stage"],
            buckets=_SECONDS,
            registry=one,
        )
        self._stages = {stage: self._stage.labels(stage) for stage in STAGES}
        Gauge("splitcodec_info", "The version that runs.", ["version"], registry=one).labels(version).set(1)
        ProcessCollector(registry=self._registry)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value is asked for when somebody looks."""
        Gauge(f"splitcodec_{name}", text, registry=self._registry).set_function(read)

    def request(self, *, path: str, status: int, received: int, sent: int, refusal: str | None) -> None:
        """Count one request; `path` and `refusal` come from a small set."""
        self._requests.labels(path, str(status)).inc()
        self._received.inc(received)
        self._sent.inc(sent)
        if refusal is not None:
            self.refusal(refusal)

    def refusal(self, reason: str) -> None:
        """Count what was refused, a request or a connection without one; reasons come from a small set."""
        self._refusals.labels(reason).inc()

    def stage(self, stage: str, seconds: float) -> None:
        """Note what a stage took, one of STAGES."""
        self._stages[stage].observe(seconds)

    def batch(self, size: int) -> None:
        """Count a batch."""
        self._batch.observe(size)

    def admitted(self, *, packet_bytes: int, symbols: int) -> None:
        """Count a packet that was let in."""
        self._packet.observe(packet_bytes)
        self._symbols.inc(symbols)

    def answer(self, bundle: str) -> None:
        """Count an answer of a model."""
        self._answers.labels(bundle).inc()

    def replay(self) -> None:
        """Count an answer that was given again."""
        self._replays.inc()

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        return generate_latest(self._registry)
