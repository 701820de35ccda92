"""What docs/results.md calls the rivals that were trained here.   used by: benchmarks/results.py"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RIVALS = {
    "paper": (
        "layers and stage 1 of the paper's Entropic Student, a model for each rate, by an optimiser and a schedule of"
        " ours, for far fewer pictures; in stage 2 the decoder alone learns what ours does"
    ),
    "paper_published": "the same by an earlier recipe, with the published stage 2, which teaches the tail too",
    "end_to_end": "the same layers, learned by cross-entropy and rate alone, the tail too (Singh et al., ICIP 2020)",
    "reduced": (
        "CR+BQ: a bottleneck of few channels, 8 bits a symbol, no learned prior; here coded by how often symbols occur,"
        " which takes fewer bytes than published"
    ),
    "factorized": "a learned image codec with a factorized prior (Balle et al., ICLR 2018), for the unmodified network",
    "hyperprior": "the same with a mean-scale hyperprior (Minnen et al., NeurIPS 2018)",
}


def rivals(rate: Mapping[str, Any]) -> list[str]:
    """Return a line for each learned rival in the arena's report."""
    there = [name for name in RIVALS if name in rate.get("encoders", {})]
    if not there:
        return []
    return [
        "Learned rivals, of the kinds in the SC2 benchmark (Matsubara et al., TMLR 2023), trained here on the same",
        "teacher by `recipes/rivals/`:",
        "",
        *(f"- `{name}`: {RIVALS[name]}" for name in there),
        "",
    ]
