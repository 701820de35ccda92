"""Bundles that take part in `evaluate --task`: ours and rivals, both shores open, and whether a rival is trained.

used by: tasks.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from splitcodec.device.client import Device
from splitcodec.edge.decoder import Decoder
from splitcodec.edge.tasks import Tasks
from splitcodec.errors import SettingsError
from splitcodec.evaluation.result import OURS, TRAINED, UNDERTRAINED
from splitcodec.evaluation.rivals import Rival, report_of
from splitcodec.wire.bundle import Bundle, open_bundle


class Entrant(NamedTuple):
    """One bundle; `prefix` goes in front of "level 3" where a method has several, `trained` is the verdict."""

    method: str
    prefix: str
    device: Device
    decoder: Decoder
    tasks: Tasks
    trained: str


def entrants_of(
    main: Bundle, rivals: Sequence[Rival], *, task: Literal["detect", "segment"], taken: Sequence[str]
) -> list[Entrant]:
    """Return the main bundle and every rival's, both shores open.

    A rival is trained if its run says so ("levelled") and its task has had as many epochs as ours. Raises SettingsError
    for a method that comes twice or is `taken`, and for other classes; TaskError, BundleError.
    """
    methods = [Rival((main,), OURS), *rivals]
    found: list[Entrant] = []
    epochs = _epochs(main, task)
    seen = set(taken)
    for rival in methods:
        bundles = [one if isinstance(one, Bundle) else open_bundle(one) for one in rival.bundles]
        method = rival.method or bundles[0].manifest.name
        if method in seen:
            raise SettingsError(f"method {method!r} comes twice in this run; name the rival: --rival OTHER=BUNDLE")
        seen.add(method)
        if len({one.ident for one in bundles}) < len(bundles):
            raise SettingsError(f"rival {method}: a bundle comes twice; expected one per rate, with names of their own")
        for one in bundles:
            if one.task(task).classes != main.task(task).classes:
                raise SettingsError(f"{one.ident}: other classes for {task} than {main.ident}; nothing to compare")
        level = all(report_of(one.manifest.provenance).get("levelled") is True for one in bundles)
        enough = all(_epochs(one, task) >= epochs for one in bundles)
        verdict = TRAINED if level and enough else UNDERTRAINED
        distinct = len({one.manifest.name for one in bundles}) == len(bundles)
        for one in bundles:
            prefix = f"{one.manifest.name if distinct else one.ident} " if len(bundles) > 1 else ""
            tasks = Tasks(one, threads=1)
            tasks.check((task,))
            found.append(Entrant(method, prefix, Device(one, threads=1), Decoder(one, threads=1), tasks, verdict))
    return found


def _epochs(bundle: Bundle, task: Literal["detect", "segment"]) -> float:
    """Return the passes over the pictures that a bundle's head has had by the task's loss."""
    found = report_of(bundle.task(task).provenance).get("task_epochs", 0)
    return float(found) if isinstance(found, int | float) else 0.0
