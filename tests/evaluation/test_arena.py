"""The scripts in benchmarks/ that run the arena and write docs/results.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from splitcodec.evaluation.report import write_report
from splitcodec.evaluation.result import Report
from tests.evaluation.conftest import Make

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import results

    return results


def test_one_command_measures_all(tiny_folder: Path, like_tiny: Make, labelled: Path, tmp_path: Path) -> None:
    for name in ("paper_beta20", "paper_beta80"):
        like_tiny(name.replace("_", "-"), folder=tmp_path / "rivals" / name)
    (tmp_path / "rivals" / "notes").mkdir()
    like_tiny("kin", folder=tmp_path / "rivals" / "kin")  # named below, so no rival besides
    command: list[str | Path] = [
        *(sys.executable, BENCHMARKS / "rate_accuracy.py", "--data", labelled, "--out", tmp_path / "out"),
        *(
            "--codecs",
            "jpeg",
            "--bundles",
            f"{tiny_folder},{tmp_path / 'rivals' / 'kin'}",
            "--rivals",
            tmp_path / "rivals",
        ),
        *("--memory", tmp_path / "codecs", "--threads", "2"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "no bundle in notes; left out" in done.stderr
    body = json.loads((tmp_path / "out" / "rd.json").read_bytes())
    assert list(body["encoders"]) == ["splitcodec", "kin", "paper"]
    assert body["encoders"]["kin"]["ours"]
    assert body["command"].startswith("python benchmarks/rate_accuracy.py --data DIR --out OUT --codecs jpeg ")
    assert "/" not in body["command"].removeprefix("python benchmarks/")
    assert {"rd.json", "rd.png", "frontier.png", "report.md"} == {p.name for p in (tmp_path / "out").iterdir()}
    for row in ("| **splitcodec** |", "| **kin** |", "| paper (undertrained) |", "| jpeg |"):
        assert row in done.stdout
    assert (tmp_path / "codecs").stat().st_size > 1000


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, BENCHMARKS / "rate_accuracy.py", "--data", tmp_path, "--codecs", "gif"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("splitcodec: SettingsError: codec 'gif'")


def test_the_summary_claims_nothing_against_the_undertrained(results: ModuleType, arena: Report) -> None:
    text = results.summary(arena.to_json())
    assert "Not in the table: paper. " in text
    assert "(undertrained), so nothing is claimed against them." in text
    assert not [line for line in text.splitlines() if line.startswith("|") and "paper" in line]
    whole = results.summary_table(arena.to_json())  # as `make arena` prints it
    (line,) = [line for line in whole.splitlines() if "| paper (undertrained) | 500 M |" in line]
    assert line.endswith("| no claim |  |")


def test_the_summary_says_whose_network_is_not_known_and_how_to_have_every_row_again(
    results: ModuleType, arena: Report
) -> None:
    """One network was said to stand behind every method, and `make arena` left out those read from files."""
    body: dict[str, Any] = arena.to_json()
    body["command"] = "python benchmarks/rate_accuracy.py --data DIR --points rivals.json"
    why = ": theirs is not known, or its tail was tuned."
    assert f"behind every method, but for tuned{why}" in results.summary(body)
    body["encoders"]["paper"]["teacher"] = None
    assert f"behind every method, but for tuned{why}" in results.summary(body)  # paper is not in the table
    body["encoders"]["paper"]["trained"] = "trained"
    text = results.summary(body)
    assert f"behind every method, but for paper, tuned{why}" in text
    assert "\n| paper | 500 M | " in text
    assert "`make arena DATA=DIR POINTS=reports/rivals.json`" in text
    body["command"] += " --points reports/rivals.json"
    assert "`make arena DATA=DIR POINTS='reports/rivals.json reports/rivals.json'`" in results.summary(body)


def test_the_command_keeps_places_of_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """It named files and folders alone, so it could not be repeated."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import rate_accuracy

    words = "--data /x --bundles runs/a/bundle --rivals runs/a --points reports/r.json --points /home/me/s.json"
    told = rate_accuracy._command(rate_accuracy._options(words.split()))
    assert told.endswith(" --bundles runs/a/bundle --rivals runs/a --points reports/r.json --points s.json")


def test_reports_from_before_encoders_were_told_still_read(results: ModuleType, arena: Report) -> None:
    body: dict[str, Any] = arena.to_json()
    for key in ("encoders", "bd_rate_matrix", "bd_accuracy"):
        del body[key]
    text = results.summary(body)
    assert "| method | -1 |" in text
    assert "undertrained" not in text


def test_the_summary_shows_intervals_where_the_report_tells_them(results: ModuleType, arena: Report) -> None:
    body: dict[str, Any] = arena.to_json()
    body["bd_rate"]["jpeg"], body["bd_rate_interval"]["jpeg"] = -87.6, [-89.6, -86.2]
    body["bd_rate"]["webp"], body["bd_rate_interval"]["webp"] = -80.0, None
    text = results.summary(body)
    assert " | -88 % [-90, -86] | " in text
    assert " | -80 % | " in text
    assert "In brackets: 95 % intervals" in text
    for key in ("bd_rate_interval", "bd_rate_payload_interval", "bd_accuracy_interval", "bd_rate_matrix_interval"):
        del body[key]
    for row in body["bytes_at_equal_score"]:
        del row["bytes_interval"]
    older = results.summary(body)
    assert " | -88 % | " in older
    assert "brackets" not in older
    assert "[-" not in older


def test_results_show_both_pictures(results: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "rate_accuracy"
    folder.mkdir(parents=True)
    (folder / "report.md").write_text("# A\n\n![a](rd.png)\n\n## B\n\n![b](frontier.png)\n")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    text = results.results({"commit": "abc", "command": "python x"})
    assert "Command: `python x` (commit abc)." in text
    assert (
        "## A\n\n![a](../reports/rate_accuracy/rd.png)\n\n### B\n\n![b](../reports/rate_accuracy/frontier.png)" in text
    )


def test_ablations_say_what_they_are_of_and_claim_nothing_against_the_undertrained(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("rate_accuracy", "ablations"):
        (tmp_path / "reports" / name).mkdir(parents=True)
    (tmp_path / "reports" / "rate_accuracy" / "report.md").write_text("# A\n")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    short: dict[str, Any] = {"command": "python z", "commit": "c", "teacher_top1": 87.4, "images": 5, "data": "d"}
    short["bundle"] = "lite0-whole@2"
    short["encoders"] = {
        "splitcodec": {"images_each": 12800, "macs": 143_976_896, "trained": "unknown"},
        "no_teacher": {"images_each": 12800, "trained": "undertrained"},
        "encoder_tuned": {"images_each": 9600, "trained": "trained"},
    }
    sizes = {"splitcodec": 2100.0, "no_teacher": None, "encoder_tuned": 1751.0}
    short["bytes_at_equal_score"] = [{"top1_minus_teacher": -4.0, "bytes": sizes}]
    short["bd_rate"] = {"no_teacher": -21.5, "encoder_tuned": 1.35}
    (tmp_path / "reports" / "ablations" / "rd.json").write_text(json.dumps(short))
    rate: dict[str, Any] = {"commit": "abc", "command": "python x", "bundle": "kin@9"}
    rate["encoders"] = {"splitcodec": {"images_each": 640_000, "macs": 98_166_208}}
    text = results.results(rate)
    assert "| training | pictures | share | -4 | BD-rate |\n|---|---:|---:|---:|---:|" in text
    assert "| whole | 12,800 | 2.0 % | 2,100 | - |" in text
    assert "| no_teacher (undertrained) | 12,800 | 2.0 % | - | no claim |" in text
    assert "| encoder_tuned | 9,600 | 1.5 % | 1,751 | +1.4 % |" in text
    assert "`whole` is `lite0-whole@2` (144 M multiply-accumulates)" in text
    assert "the shipped `kin@9` (98 M multiply-accumulates)" in text
    del rate["encoders"]  # as reports were once
    assert "| whole | 12,800 | - | 2,100 | - |" in results.results(rate)


def test_results_tell_of_the_prior_where_it_was_measured(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "reports" / "rate_accuracy").mkdir(parents=True)
    (tmp_path / "reports" / "rate_accuracy" / "report.md").write_text("# A\n")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    rate = {"commit": "abc", "command": "python x"}
    assert "Ablation" not in results.results(rate)
    point = {"method": "gains, deflate", "setting": "level 0", "bytes_mean": 1500.0, "top1": 70.0}
    other = {"method": "uniform, deflate", "setting": "8 steps", "bytes_mean": 3000.0, "top1": 71.0}
    ours = {**point, "method": "splitcodec", "bytes_mean": 1000.0}
    body = {"bundle": "b@1", "images": 5, "data": "d", "commit": "f", "points": [point, other], "ours": [ours]}
    body["bd_rate"] = {"gains, deflate": -33.3, "uniform, deflate": None}
    (tmp_path / "reports" / "ablation_prior.json").write_text(json.dumps(body))
    text = results.results(rate)
    assert "| gains, deflate | level 0 | 1,500 | 1,000 | 70.00 |" in text
    assert "| uniform, deflate | 8 steps | 3,000 | - | 71.00 |" in text
    assert "-33.3 % against `gains, deflate`; - against `uniform, deflate`." in text


def pixels(file: Path) -> NDArray[np.float64]:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("L"), float)


def test_plots_come_out_of_reports_alone(
    monkeypatch: pytest.MonkeyPatch, report: Report, arena: Report, tmp_path: Path
) -> None:
    """A change of colours wanted hours of measuring anew."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import plots

    monkeypatch.setattr(plots, "REPORTS", tmp_path)
    monkeypatch.setattr(plots, "LATENCY", "none.json")
    for name, one in (("rate_accuracy", arena), ("ablations", report)):
        write_report(one, tmp_path / name)
    files = sorted(tmp_path.rglob("*.png"))
    before = [pixels(file) for file in files]
    for file in files:
        file.write_bytes(b"old")
    assert plots.main() == 0
    for old, file in zip(before, files, strict=True):
        assert old.shape == pixels(file).shape
        assert np.abs(old - pixels(file)).mean() < 0.5  # a report's numbers are rounded
    (tmp_path / "ablations" / "rd.json").write_text("{}")
    assert plots.main() == 2
