"""The blocks of figures that benchmarks/results.py writes into the pages of docs/."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from splitcodec.errors import DataError

ROOT = Path(__file__).parents[2]
NETWORK = "encode {}, constriction"


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import results

    return results


@pytest.fixture
def checkout(results: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a copy of pages and reports that results.py works on."""
    shutil.copytree(ROOT / "reports", tmp_path / "reports", ignore=shutil.ignore_patterns("*.png"))
    (tmp_path / "docs").mkdir()
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        shutil.copy(page, tmp_path / page.relative_to(ROOT))
    for manifest in (ROOT / "src" / "splitcodec" / "zoo").glob("*/manifest.json"):
        copy = tmp_path / manifest.relative_to(ROOT)
        copy.parent.mkdir(parents=True)
        shutil.copy(manifest, copy)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    return tmp_path


def run(results: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["results.py", *words])
    code: int = results.main()
    return code


def encode(*kinds: str) -> dict[str, Any]:
    """Return a report of benchmarks/encode.py on kin@2, whose network takes 10 ms: fp32 4 ms (8 by context), INT8 2."""
    ms = {"encoder fp32 alone": 3.5, "network": 10.0}
    for kind in kinds:
        ms |= {NETWORK.format(kind): 4.0 if kind == "fp32" else 2.0, f"{NETWORK.format(kind)}, by context": 8.0}
    ratios = {name: {"of_network": spent / 10} for name, spent in ms.items() if name.startswith("encode ")}
    return {"machine": {"cpu": "Abacus"}, "bundles": {"kin@2": {"ms": ms, "ratios": ratios}}}


def test_a_page_follows_a_renewed_report(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(results, monkeypatch) == 0
    assert run(results, monkeypatch, "--check") == 0
    report = checkout / "reports" / "int8_large.json"
    body = json.loads(report.read_bytes())
    report.write_text(json.dumps({**body, "loss": 0.987}))
    capsys.readouterr()
    assert run(results, monkeypatch, "--check") == 1
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert line == "docs/device.md does not say what the reports say; run `make results`"
    before = (checkout / "docs" / "device.md").read_text()
    assert run(results, monkeypatch) == 0
    after = (checkout / "docs" / "device.md").read_text()
    ours, theirs = before.splitlines(), after.splitlines()
    (changed,) = [new for old, new in zip(ours, theirs, strict=True) if old != new]
    assert changed.startswith("| `efficientnet-lite0-large@")
    assert "| 0.99 [" in changed


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("reports/load.json", ["load", "memory_mb", "highest"]),
        ("reports/rate_accuracy/rd.json", ["teacher_top1"]),
        ("reports/mutations.json", ["packets", 0, "bundle"]),
        ("reports/latency.json", ["strategies", 1, "kind"]),
        ("src/splitcodec/zoo/efficientnet-lite0@10/manifest.json", ["provenance", "contexts", "held_out"]),
    ],
)
def test_a_report_that_lacks_a_key_is_named_with_it(
    name: str,
    way: list[Any],
    results: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    checkout: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It was a traceback that ended in a KeyError."""
    report = checkout / name
    body = inner = json.loads(report.read_bytes())
    for step in way[:-1]:
        inner = inner[step]
    del inner[way[-1]]
    report.write_text(json.dumps(body))
    assert run(results, monkeypatch) == 2
    told = capsys.readouterr()
    writer = "`splitcodec contexts`" if "zoo" in name else "its benchmark"
    assert told.err == (
        f"splitcodec: DataError: {report}: no {'.'.join(map(str, way))}, which the pages tell; have {writer} write it "
        "again\n"
    )


def test_what_is_no_report_or_no_page_is_one_line(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = checkout / "docs" / "device.md"
    page.write_text(page.read_text().replace("<!-- end of int8 -->", ""))
    assert run(results, monkeypatch, "--check") == 2
    assert capsys.readouterr().err == (
        "splitcodec: DataError: docs/device.md has no markers of the block 'int8', or has them twice; put them back\n"
    )
    (checkout / "reports" / "footprint.json").write_text("[]")
    assert run(results, monkeypatch) == 2
    assert "footprint.json: list, expected an object; have its benchmark write it again" in capsys.readouterr().err


def test_a_block_stays_between_its_markers(results: ModuleType) -> None:
    page = "before\n<!-- a: from x -->\nold\n<!-- end of a -->\nbetween\n<!-- b: from y -->\n<!-- end of b -->\nafter\n"
    written = results.with_blocks(page, {"b": [r"new \1"], "a": ["1", "", "2"]})
    assert written == (
        "before\n<!-- a: from x -->\n1\n\n2\n<!-- end of a -->\nbetween\n"
        "<!-- b: from y -->\nnew \\1\n<!-- end of b -->\nafter\n"
    )
    for lost in (page.replace("end of a", "end of c"), page + page):
        with pytest.raises(DataError, match="no markers of the block 'a', or has them twice; put them back"):
            results.with_blocks(lost, {"a": []})


def test_int8_says_which_version_its_agreement_is_of(results: ModuleType) -> None:
    from pages.device import int8

    loss = {"bundle": "kin@1", "loss": 0.125, "interval": [-0.5, 0.75], "photographs": 2000, "levels": [{}, {}]}
    text = "\n".join(int8(encode("fp32", "int8"), {"reports/int8_kin.json": loss}))
    told = "0.12 [-0.50, 0.75], 2 levels, 2,000 photographs, `@1` (`reports/int8_kin.json`)"
    assert f"| `kin@2` | {told} | 0.200 | 0.800 | 0.400 | 0.800 |" in text
    assert "on one thread of an Abacus that takes 10.0 ms for the network: `benchmarks/encode.py`, `reports/enc" in text
    other = {**encode("fp32", "int8"), "machine": {"cpu": "abacus"}}
    text = "\n".join(int8(encode("fp32", "int8"), {}, elsewhere={"reports/encode_b.json": other}))
    assert "abacus that takes 10.0 ms for the network, by channel: `kin@2` 0.200 (INT8) and 0.400 (fp32) (`" in text
    assert "| `kin@2` | not measured | 0.200 |" in "\n".join(int8(encode("fp32", "int8"), {}))
    assert "| `kin@2` | ships without | - | - | 0.400 | 0.800 |" in "\n".join(int8(encode("fp32"), {}))


def test_contexts_are_told_beside_coding_by_channel(results: ModuleType) -> None:
    from pages.device import contexts

    learned = {"kin@2": {"held_out": {"photographs": 200, "change_percent": [-20.04, -25.5, -15.25]}}}
    text = "\n".join(contexts(encode("fp32"), learned))
    assert "| `kin@2` | -15.2 to -25.5 % | 0.50 | 4.50 |" in text
    assert "Bytes: on 200 photographs" in text
    assert "| `kin@2` | - | 0.50 | 4.50 |" in "\n".join(contexts(encode("fp32"), {}))


def test_published_figures_stand_beside_savings_of_ours(results: ModuleType) -> None:
    from pages.yardstick import yardstick

    figures = {"source": "S", "data": "D", "teacher": "T", "teacher_top1": 76.0}
    figures |= {"encoder": {"macs": 588e6, "parameters": 139_000}, "yardstick": {"kib": 8, "top1": 73.0}}
    figures |= {"student": [{"kib": 1, "top1": 70.0}, {"kib": 4, "top1": 74.0}]}
    costs = {"ours": True, "macs": 59e6, "parameters": 53_000}
    encoders = {name: {**costs, "bundles": [f"{name}@1"]} for name in ("kin", "far")} | {"rival": {"ours": False}}
    measured = {"kin": (1000, 78.0), "far": (900, 77.0), "hevc": (6000, 77.0), "hevc444": (4000, 77.0)}
    points = [{"method": name, "bytes_mean": size, "top1": top1} for name, (size, top1) in measured.items()]
    rate = {"images": 5, "data": "few", "teacher_top1": 80.0, "encoders": encoders, "points": points}
    text = "\n".join(yardstick(rate, figures))
    assert "| the paper's student, as published | 588 M | 139 k | 4,096 | 8,192 | 50 % |" in text
    assert "| kin@1 | 59 M | 53 k | 1,000 | 4,000 | 75 % |" in text  # the better of HEVC's two
    assert "| far@1 | 59 M | 53 k | not reached |  |  |" in text
    assert "rival" not in text


def test_the_wheel_is_told_where_it_was_weighed(results: ModuleType) -> None:
    from pages.device import footprint

    runs = {name: {"peak_mb": 90.0} for name in ("constriction", "plain")}
    report = {"installed_mb": 200.4, "without_byte_code_mb": 170.0, "in_use_mb": 180.0, "runs": runs}
    report |= {"machine": {"system": "Linux abacus"}}
    assert "| what | MB |\n|---|---:|\n| installed | 200 |" in "\n".join(footprint(report))
    assert "| the wheel | 7 |\n| installed | 200 |" in "\n".join(footprint({**report, "wheel_mb": 7.4}))


def test_a_link_carries_more_than_the_packet(results: ModuleType) -> None:
    from pages.link import answers, carriers

    ours = {"name": "ours", "kind": "ours", "tasks": ["classify"], "bytes_mean": 1000.0}
    ours |= {"answer_bytes_mean": 160.2, "answer_bytes_mean_brief": 54.4}
    rows = {"HTTP": [1300, 250], "UDP": [1080, 90]}
    latency = {
        "guesses": 1,
        "strategies": [{"name": "jpeg", "kind": "codec", "tasks": ["classify"]}, ours],
        "blocks": [
            {
                "carrier": name,
                "rows": [{"strategy": "jpeg", "link_bytes": [9, 9]}, {"strategy": "ours", "link_bytes": two}],
            }
            for name, two in rows.items()
        ],
    }
    text = "\n".join(carriers(latency))
    assert "Beside a packet of 1,000 bytes, UDP puts 170 bytes on the link" in text
    assert "HTTP over TCP puts 550 there" in text
    told = "\n".join(answers({"load": {"answer_bytes_mean": 384.1}}, latency))
    assert "five guesses of a classification are 384 bytes" in told
    assert "one guess (`--top 1`, for `ask` and `watch`) 160,\nshortened, as the device's links ask for it, 54" in told


def test_sizing_counts_symbols_and_tasks(results: ModuleType) -> None:
    from pages.serving import cost, sizing

    load = {"per_server_cpu_s": 64.0, "memory_mb": {"highest": 339.3}, "packet_bytes_mean": 1250.0}
    report = {
        "load": {**load, "answer_bytes_mean": 384.1},
        "one_at_a_time": {"ms": {"batcher": {"server_cpu_ms": 13.5}}},
    }
    ratios = {"detect": 3.6, "segment": 1.6, "classify,detect,segment": 4.3}
    grids = [
        {"grid": "14 x 14", "times_classify": ratios},
        {"grid": "30 x 44", "times_classify": {name: ratio / 2 for name, ratio in ratios.items()}},
    ]
    tasks = {"bundle": "kin@2", "grids": grids}
    heads = {"overhead": {"request_head_bytes": 111, "response_head_bytes": 112}}
    metrics = "splitcodec_packet_bytes_count 20.0\nsplitcodec_symbols_total 3.136e+05\n"
    text = "\n".join(sizing(report, metrics=metrics, cost=tasks, latency=heads))
    assert "| the same in symbols, as `symbols_per_s` counts them | 1,000,000 |" in text
    assert "| a full queue (`--max-queue 256`) on one core | 4.0 s |" in text
    assert "processor time | 4.3 times that of `classify` |" in text
    assert "of the device's own link | 111, 112 |" in text
    with pytest.raises(DataError, match=r"load_metrics\.txt: .* do not say how many symbols"):
        sizing(report, metrics="", cost=tasks, latency=heads)
    told = "\n".join(cost(tasks))
    assert "`detect` took 1.8 (30 x 44 places) to 3.6 times (14 x 14)," in told
    assert "`segment` 0.8 to 1.6, all three 2.1 to 4.3 (" in told


def test_what_differs_in_a_browser_is_not_rounded_away(results: ModuleType) -> None:
    from pages.browser import browser

    report = {"images": 200, "bundle": "kin@2", "symbol_largest_difference": 1}
    report |= {f"{name}_equal_percent": 100.0 for name in ("crops", "packets", "top1")}
    text = "\n".join(browser({**report, "symbols_equal_percent": 99.999996}))
    assert "100 % of the crops equal in every pixel, 99.999996 % of the symbols equal" in text


def test_the_student_s_longer_training_is_told_beside_codecs(results: ModuleType) -> None:
    """Both were said to have had the same epochs; the student's came on top of those of the teacher's head."""
    text = " ".join(results.tasks(ROOT))
    assert "had as many task epochs again" in text
    assert "same task epochs" not in text
    assert text.count("## ") == 2
