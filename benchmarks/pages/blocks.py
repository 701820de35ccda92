"""Which page has which blocks, and which reports they come from.   used by: benchmarks/results.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pages.browser import browser
from pages.classes import own_classes
from pages.device import budget, contexts, footprint, int8, providers, still
from pages.link import answers, carriers
from pages.published import published
from pages.reports import read_report
from pages.serving import cost, sizing

ZOO = Path("src/splitcodec/zoo")


def blocks(root: Path) -> dict[str, dict[str, list[str]]]:
    """Return each page's blocks by their names, as the reports below a checkout's root say."""

    def report(name: str) -> Any:
        return read_report(root / "reports" / f"{name}.json")

    encode, latency, load, tasks = (report(name) for name in ("encode", "latency", "load", "task_cost"))
    metrics = (root / "reports" / "load_metrics.txt").read_text(encoding="utf-8")
    others = {f"reports/{path.name}": report(path.stem) for path in sorted((root / "reports").glob("encode_*.json"))}
    losses = {f"reports/{path.name}": report(path.stem) for path in sorted((root / "reports").glob("int8*.json"))}
    return {
        "docs/device.md": {
            "budget": budget(report("budget/budget")),
            "answers": answers(load, latency),
            "contexts": contexts(encode, _learned(root / ZOO)),
            "int8": int8(encode, losses, elsewhere=others),
            "providers": providers(report("providers")),
        },
        "docs/field.md": {"carriers": carriers(latency), "still": still(report("still"))},
        "docs/raspberry-pi.md": {"footprint": footprint(report("footprint"))},
        "docs/server.md": {"cost": cost(tasks)},
        "docs/deploy.md": {"sizing": sizing(load, metrics=metrics, cost=tasks, latency=latency)},
        "docs/train-your-own.md": {
            "own-classes": own_classes(report("own_classes")),
            "published": published(report("published")),
        },
        "docs/demo-page.md": {"browser": browser(report("browser"))},
    }


def _learned(zoo: Path) -> dict[str, Any]:
    """Return what the bundles of a zoo say of their contexts, by their names with their versions."""
    paths = sorted(zoo.glob("*/manifest.json"))
    manifests = {path.parent.name: read_report(path, writer="`splitcodec contexts`") for path in paths}
    found = {ident: manifest["provenance"].get("contexts") for ident, manifest in manifests.items()}
    return {ident: one for ident, one in found.items() if one is not None}
