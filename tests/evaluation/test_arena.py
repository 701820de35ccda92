"""The scripts in benchmarks/ that run the arena and write docs/results.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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
    assert "| paper (undertrained) | 500 M |" in text
    assert "nothing is claimed against them" in text
    assert all("undertrained" in line for line in text.splitlines() if "paper" in line)
    (line,) = [line for line in text.splitlines() if "| paper (undertrained) |" in line]
    assert line.endswith("| no claim |  |")


def test_reports_from_before_encoders_were_told_still_read(results: ModuleType, arena: Report) -> None:
    body: dict[str, Any] = arena.to_json()
    for key in ("encoders", "bd_rate_matrix", "bd_accuracy"):
        del body[key]
    text = results.summary(body)
    assert "| method | -1 |" in text
    assert "undertrained" not in text


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
    short = {"command": "python z", "commit": "c", "teacher_top1": 87.4, "images": 5, "data": "d"}
    short["encoders"] = {"splitcodec": {"images_each": 12800}, "no_teacher": {"images_each": 12800}}
    short["bytes_at_equal_score"] = [{"top1_minus_teacher": -4.0, "bytes": {"splitcodec": 2100.0, "no_teacher": None}}]
    short["bd_rate"] = {"no_teacher": -21.5}
    (tmp_path / "reports" / "ablations").mkdir(parents=True)
    (tmp_path / "reports" / "ablations" / "rd.json").write_text(json.dumps(short))
    trained = results.results(rate)
    assert "| training | pictures | -4 | BD-rate |" in trained
    assert "| whole | 12,800 | 2,100 | - |" in trained
    assert "| no_teacher | 12,800 | - | -21.5 % |" in trained
    body["bd_rate"] = {"gains, deflate": -33.3, "uniform, deflate": None}
    (tmp_path / "reports" / "ablation_prior.json").write_text(json.dumps(body))
    text = results.results(rate)
    assert "| gains, deflate | level 0 | 1,500 | 1,000 | 70.00 |" in text
    assert "| uniform, deflate | 8 steps | 3,000 | - | 71.00 |" in text
    assert "-33.3 % against `gains, deflate`; - against `uniform, deflate`." in text
