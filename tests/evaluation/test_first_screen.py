"""What benchmarks/results.py tells first, and what docs/results.md leaves to the reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def test_the_first_screen_says_what_is_better_and_what_is_not() -> None:
    """README had neither a sentence that says what is gained nor its limits: one had to read both out of tables."""
    from pages.first_screen import claim, limits

    sizes = {"splitcodec": 2000.0, "far": None, "big": 1400.0, "jpeg": 12_000.0, "avif": 7500.0, "paper": 9000.0}
    costs = {"splitcodec": 59e6, "far": 20e6, "big": 140e6}
    encoders: dict[str, Any] = {
        name: {"ours": True, "macs": macs, "bundles": [f"{name}@1"]} for name, macs in costs.items()
    }
    encoders["paper"] = {"ours": False}
    scores = {"splitcodec": 78.0, "far": 70.0, "big": 79.5}
    points = [{"method": name, "top1": top1} for name, best in scores.items() for top1 in (50.0, best)]
    rate: dict[str, Any] = {"images": 5, "teacher_top1": 80.0, "encoders": encoders, "points": points}
    intervals = {**dict.fromkeys(sizes), "big": [1000.0, 1900.0]}
    rate |= {"bytes_at_equal_score": [{"top1_minus_teacher": -3.0, "bytes": sizes, "bytes_interval": intervals}]}
    rate |= {"bd_range": {"avif": [65.0, 78.0]}}
    rate |= {"bd_rate": {"avif": -77.6}, "bd_rate_interval": {"avif": [-82.0, -71.4]}}
    text = "\n".join(claim(rate))
    assert "| `splitcodec`, 59 M | `big`, 140 M | `avif`, the best of 2 image codecs |\n" in text
    assert "\n| **2,000** | **1,400** [1,000 to 1,900] | 7,500 |\n" in text
    assert (
        "from 65.0 to 78.0 % (BD-rate) the default, `splitcodec`, takes 78 % [71 to 82] fewer bytes than `avif`."
        in text
    )
    assert "paper" not in text

    def row(name: str, ms: float, even: dict[str, float | None]) -> dict[str, Any]:
        return {
            "strategy": name,
            "device_ms": 7.0,
            "total_ms": {"slow": 100.0, "fast": ms},
            "break_even_kbit_per_s": even,
        }

    def block(slower: float, even: dict[str, float | None]) -> dict[str, Any]:
        rows = [row("alone", 7.0, {}), row("jpeg, there", 9.0, {}), row("one", 20.0, even), row("all", 99.0, even)]
        return {"carrier": "HTTP", "device_slowdown": slower, "rows": rows}

    kinds = {"alone": "device", "jpeg, there": "codec", "one": "ours", "all": "ours"}
    latency: dict[str, Any] = {
        "strategies": [
            {"name": name, "kind": kind, "bundle": "kin@1", "tasks": ["classify"] + ["detect"] * (name == "all")}
            for name, kind in kinds.items()
        ],
        "bundles": ["kin@1"],
        "machine": {"cpu": "Abacus"},
        "links": [{"name": "slow"}, {"name": "fast"}],
        "blocks": [block(1.0, {"0": None, "5": None}), block(10.0, {"0": 1200.0, "5": 1300.0, "20": None})],
        "targets": [
            {"carrier": "HTTP", "times_faster": 2.7, "at_least": 3.0, "met": False, "times_faster_quickest": 3.1}
        ],
    }
    told = "\n".join(limits(rate, latency, {"ratio": {"cpu": 0.9, "wall": 0.7}}))
    assert "2.0 with `splitcodec`, 10.0 with `far`, 0.5 with `big`." in told
    assert "7.0 ms on one core of the Abacus that was measured; a packet takes 7.0 to 7.0 ms to make, and " in told
    assert " to make, and sending is faster on no link there" in told
    assert "for three tasks together from 1,200 to 1,300 kbit/s on (round trips of up to 5 ms)" in told
    assert "at fast a file of jpeg is answered sooner (9 ms against 20)" in told
    assert "2.70 times as fast at 37.5 kbit/s as the best image codec, the quickest of ours 3.10 times " in told
    assert "(target 3: missed); the server has 90 %" in told
    assert "(target 85: met)" in told


def test_results_leave_out_what_the_report_beside_them_has() -> None:
    """The page had 1,255 lines: each setting of each codec, and the same in differences."""
    from pages.shortened import ours_alone, shortened, turned

    matrix = "BD-rate of every method with an encoder (rows) against every method (columns):\n\n| a |\n|---|\n| 1 |\n\n"
    report = f"# A\n\n### Long\n\nrows\n\n### B\n\nwords\n\n{matrix}### C\nend\n"
    assert shortened(report, left_out=["Long"]) == "# A\n\n### B\n\nwords\n\n### C\nend\n"
    task = "x\n\n| method | setting | bytes |\n|---|---|---|\n| me | 1 | 2 |\n| jpeg | 1 | 2 |\n\n| jpeg | 3 |\n"
    assert ours_alone(task, ours="me").splitlines() == [*task.splitlines()[:5], "", "| jpeg | 3 |"]
    assert ours_alone("no table", ours="me") == "no table"
    equal = "| below | me | you |\n|---|---:|---:|\n| 1 points | 20 | - |\n| 2 points | 10 [5 to 6] | 7 |\n"
    rows = ["| below | 1 points | 2 points |", "|---|---:|---:|", "| me | 20 | 10 [5 to 6] |", "| you | - | 7 |"]
    assert turned(f"a\n\n{equal}b").splitlines() == ["a", "", *rows, "b"]
    page = (ROOT / "docs" / "results.md").read_text()
    assert len(page.splitlines()) < 600
    for name in ("reports/rate_accuracy/report.md", "reports/detect/detect.md", "reports/segment/segment.md"):
        assert f"](../{name})" in page
        assert (ROOT / name).exists()


def test_every_rival_of_the_report_is_told_for_what_it_is() -> None:
    """The page said `reduced` and `end_to_end`, and nowhere what these are."""
    from pages.rivals import rivals

    costs = json.loads((ROOT / "reports" / "rate_accuracy" / "rd.json").read_bytes())["encoders"]
    told = "\n".join(rivals({"encoders": costs}))
    for name, cost in costs.items():
        assert (f"\n- `{name}`: " in told) == (not cost["ours"]), name
    assert rivals({}) == []
