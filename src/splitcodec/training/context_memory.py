"""Levels whose contexts are learned, kept on disk, so that a kill costs one level's work.   asked by: contexts.py"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitcodec.wire.durable import made_folder, write_atomically


@final
@dataclass(slots=True)
class Learned:
    """What came of the levels so far: their arrays, mixtures and counts, and what the next level begins with."""

    counts: list[NDArray[np.float64]] = field(default_factory=list)
    parts: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    priors: list[NDArray[np.float64]] = field(default_factory=list)
    network: dict[str, Tensor] = field(default_factory=dict)
    random: Tensor | None = None


@final
class Memory:
    """One file; what was learned from anything else than `of` is not taken for it. None keeps nothing.

    Raises OutputError for a folder that cannot be written.
    """

    def __init__(self, path: Path | None, of: Iterable[bytes]) -> None:
        self._path = path
        digest = hashlib.sha256()
        for one in of:
            digest.update(hashlib.sha256(one).digest())
        self._key = digest.hexdigest()
        if path is not None:
            made_folder(path.parent)  # before the work rather than after it

    def load(self) -> Learned | None:
        """Return what was kept; None where nothing was, or something else, or it is damaged."""
        if self._path is None or not self._path.exists():
            return None
        try:
            found = torch.load(self._path, weights_only=True)
            if found["of"] != self._key:
                return None
            return Learned(
                counts=[count.numpy() for count in found["counts"]],
                parts=[{name: array.numpy() for name, array in part.items()} for part in found["parts"]],
                priors=[prior.numpy() for prior in found["priors"]],
                network=found["network"],
                random=found["random"],
            )
        except Exception:  # damaged: learned anew
            return None

    def save(self, learned: Learned) -> None:
        """Keep what was learned, whole or not at all, also after a loss of power. Raises OutputError."""
        if self._path is None:
            return
        file = io.BytesIO()
        torch.save(
            {
                "of": self._key,
                "counts": [torch.from_numpy(count) for count in learned.counts],
                "parts": [{name: torch.from_numpy(array) for name, array in part.items()} for part in learned.parts],
                "priors": [torch.from_numpy(prior) for prior in learned.priors],
                "network": learned.network,
                "random": learned.random,
            },
            file,
        )
        write_atomically(self._path, file.getvalue())
