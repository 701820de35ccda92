"""The sections of docs/results.md about tasks beside classification.   used by: benchmarks/results.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pages.reports import read_report
from pages.shortened import ours_alone, turned

TASKS = {"detect": "Object detection", "segment": "Semantic segmentation"}  # reports/<task>/ may be missing
OURS = "splitcodec"


def tasks(root: Path) -> list[str]:
    """Return the sections about the other tasks that the same packets are answered for, as reports below `root` say."""
    lines = []
    for task, title in TASKS.items():
        folder = root / "reports" / task
        if not (folder / f"{task}.json").exists():
            continue
        report = read_report(folder / f"{task}.json")
        lines += [
            f"## {title}: the same encoder, packets answered for {task}",
            "",
            f"![scores over bytes](../reports/{task}/{task}.png)",
            "",
            turned(ours_alone((folder / f"{task}.md").read_text(encoding="utf-8"), ours=OURS) + "\n").rstrip(),
            "",
            f"Every setting of the others: [{task}.md](../reports/{task}/{task}.md).",
            *_same_epochs(report),
            "Few pictures are there to learn from and to score: absolute scores are those of a small data set.",
            "Codecs feed the uncompressed task teacher. The student's head began as the teacher's, was distilled from",
            "it, and then had as many task epochs again: what it scores above the teacher is that, not the packets.",
            "",
            f"Command: `splitcodec evaluate --task {task} --bundle {report['bundle']} --data DIR"
            f" --split {report['split']}{_others(report)} --out reports/{task}`",
            f"(commit {report['commit']}).",
            "",
        ]
    return lines


def _same_epochs(report: dict[str, Any]) -> list[str]:
    """Return what a method is that stands for ours among the rivals; nothing where there is none."""
    names = dict.fromkeys(point["method"] for point in report["points"] if point["method"].startswith("ours-"))
    return [
        f"`{name}`: an earlier bundle of ours whose head learned for no more epochs than the rivals' heads; these "
        "compare with it."
        for name in names
    ]


def _others(report: dict[str, Any]) -> str:
    """Return the options that named what was measured beside ours: codecs, rivals, an earlier run's report."""
    names = [name for name in dict.fromkeys(point["method"] for point in report["points"]) if name != OURS]
    earlier, rivals = report.get("other_runs", {}), report.get("trained", {})
    codecs = [name for name in names if name not in earlier and name not in rivals]
    words = [f" --codecs {','.join(codecs)}"] if codecs else []
    words += [f" --rival {name}=BUNDLE,..." for name in names if name in rivals and name not in earlier]
    words += [" --points EARLIER.json"] if earlier else []
    return "".join(words)
