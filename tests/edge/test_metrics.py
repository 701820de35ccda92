"""What the counters say of themselves is what they count."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

pytest.importorskip("prometheus_client")

from splitcodec import Device, Edge
from splitcodec.edge.metrics import Metrics
from splitcodec.edge.scrape import STAGES, parse_metrics, summary
from splitcodec.edge.server import BackgroundServer, create_app, read_settings
from splitcodec.wire.bundle import Bundle


def explained(text: str) -> dict[str, set[str]]:
    """Return the stages that the help text names, by what one observation of theirs stands for."""
    line = next(line for line in text.splitlines() if line.startswith("# HELP splitcodec_stage_seconds "))
    found = re.findall(r"([^;]+) (?:is|are) per (\w+)", line.partition("splitcodec_stage_seconds ")[2])
    return {unit: set(re.findall(r"\w+", re.sub(r"\(.*?\)", "", names))) - {"and"} for names, unit in found}


def test_every_stage_is_explained_and_counted_as_explained(tiny: Bundle) -> None:
    packet = Device(tiny, threads=1).encode(Image.new("RGB", (90, 70), (40, 30, 30)))
    app = create_app(Edge(tiny, threads=1), read_settings({"workers": 1}))
    with BackgroundServer(app) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        with ThreadPoolExecutor(16) as pool:
            posts = pool.map(lambda _: client.post("/v1/answer", content=packet).status_code, range(200))
            assert set(posts) == {200}
        text = client.get("/metrics").text
    stages_of = explained(text)
    assert set().union(*stages_of.values()) == set(STAGES)
    counted = parse_metrics(text, when=0.0)
    batches = counted.sum("splitcodec_batch_size_count")
    assert batches < 200  # else the counts below would tell nothing apart
    wanted = {"packet": 200, "batch": batches, "request": 200}
    unasked = {"backbone", "detect", "segment"}  # by a bundle of one task
    for unit, stages in stages_of.items():
        for stage in stages - unasked:
            assert counted.sum("splitcodec_stage_seconds_count", stage=stage) == wanted[unit], stage


def test_top_shows_every_stage() -> None:
    metrics = Metrics(version="1")
    metrics.gauge("ready", "1 while packets are answered.", lambda: 1)
    shown = summary(parse_metrics(metrics.text().decode(), when=0.0))["stages_ms"]
    assert tuple(shown) == STAGES
