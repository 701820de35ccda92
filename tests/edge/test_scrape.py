from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("prometheus_client")

from splitcodec.edge.metrics import Metrics
from splitcodec.edge.scrape import parse_metrics, summary
from splitcodec.errors import LinkGarbled

BEGAN = 'splitcodec_ready 1\nprocess_start_time_seconds {}\nsplitcodec_answers_total{{bundle="a@1"}} {}\n'
SAMPLE = st.from_regex(
    r"(splitcodec_ready|splitcodec_stage_seconds_(bucket|sum|count)|splitcodec_batch_size_sum)"
    r'(\{stage="(tail|read)"(,le="[0-9.eInf+]{0,6}")?\})? [0-9.eE+-]{1,12}',
    fullmatch=True,
)


def test_an_edge_that_began_anew_has_done_what_it_says() -> None:
    before = parse_metrics(BEGAN.format(100, 1000), when=0.0)
    told = summary(parse_metrics(BEGAN.format(200, 6), when=2.0), before)
    assert told["answers"] == {"a@1": 6}
    assert told["answers_per_s"] == 3.0


def test_a_hostile_page_is_read_as_fast_as_any() -> None:
    """Every letter of a word was tried as its first."""
    line = f"splitcodec_answers_total{{{'a' * (1 << 20)}}} 1"
    assert summary(parse_metrics(f"splitcodec_ready 1\n{line}\n", when=0.0))["ready"]


def test_two_looks_tell_what_happened_between() -> None:
    metrics = Metrics(version="1")
    metrics.gauge("ready", "", lambda: 1)
    metrics.gauge("queue_depth", "", lambda: 3)
    metrics.request(path="/v1/answer", status=200, received=100, sent=50, refusal=None)
    metrics.answer('odd"name\\@1')
    before = parse_metrics(metrics.text().decode(), when=10.0)
    for _ in range(4):
        metrics.request(path="/v1/answer", status=200, received=100, sent=50, refusal=None)
        metrics.answer("tiny@1")
        metrics.stage("decoder", 0.02)
        metrics.batch(2)
    metrics.request(path="other", status=404, received=0, sent=9, refusal="http_404")
    metrics.stage("decoder", 99.0)
    told = summary(parse_metrics(metrics.text().decode(), when=12.0), before)
    assert told["ready"] is True
    assert told["answers"]["tiny@1"] == 4
    assert told["answers_per_s"] == 2.0
    assert told["requests"] == {"200": 4, "404": 1}
    assert told["refusals"] == {"http_404": 1}
    assert told["received_bytes"] == 400
    assert told["batch_mean"] == 2.0
    assert told["queue_depth"] == 3
    assert told["stages_ms"]["decoder"]["count"] == 5
    assert told["stages_ms"]["decoder"]["p95_below"] is None
    assert told["stages_ms"]["tail"] == {"count": 0, "mean": None, "p95_below": None}
    since_start = summary(before)
    assert since_start["seconds"] is None
    assert since_start["answers_per_s"] is None
    assert sum(since_start["answers"].values()) == 1


@pytest.mark.parametrize("text", ["", "<html>", "other_metric 1\n", "splitcodec_ready\n"])
def test_what_are_no_metrics_of_ours_is_refused(text: str) -> None:
    with pytest.raises(LinkGarbled, match="no metrics"):
        parse_metrics(text, when=0.0)


@given(st.lists(SAMPLE | st.text(max_size=30), max_size=20))
def test_whatever_a_server_says_gives_numbers_or_a_refusal(lines: list[str]) -> None:
    try:
        json.dumps(summary(parse_metrics("\n".join(lines), when=2.0), parse_metrics("splitcodec_ready 1", when=1.0)))
    except LinkGarbled:
        return
