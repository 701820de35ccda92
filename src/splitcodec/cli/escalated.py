"""`ask --sure`: its options, and what a photograph that may take two packets comes to.   used by: device.py"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitcodec.cli.limits import Limits
from splitcodec.errors import SettingsError

if TYPE_CHECKING:
    from splitcodec.device.escalation import Escalation
    from splitcodec.device.view import Fit
    from splitcodec.wire.answer import Answer

SureOption = Annotated[
    float | None,
    typer.Option(
        "--sure",
        min=0,
        max=1,
        metavar="P",
        help="Send a small packet first, and that of --level only if the best guess's probability is below P.",
    ),
]
FirstLevelOption = Annotated[
    int | None,
    typer.Option("--first-level", min=0, metavar="N", help="With --sure: the small packet's. Default: a third."),
]


def check_sure(sure: float | None, first_level: int | None, *, tasks: Sequence[str], limits: Limits) -> None:
    """Refuse options that make no sense together. Raises SettingsError."""
    from splitcodec.device.escalation import CLASSIFY

    if sure is None:
        if first_level is not None:
            raise SettingsError("--first-level means nothing without --sure; add it, or leave --first-level out")
        return
    if CLASSIFY not in tasks:
        raise SettingsError(f"--sure asks how sure the best guess is; add {CLASSIFY} to --tasks")
    if limits != Limits(None, False, None, None, None, None, None):
        raise SettingsError(
            "--sure has levels of its own; leave --max-bytes, --deadline-ms and --kbit-per-s out, or it"
        )


def escalated(
    asking: Escalation, image: Path, *, link: Callable[[bytes], bytes], fit: Fit, side: int | None
) -> tuple[Answer, dict[str, Any]]:
    """Return the last answer, and what `--json` tells beside it: bytes and milliseconds of all packets."""
    from splitcodec.device.escalation import certainty

    begin = time.perf_counter()
    asked = asking.ask(image, link=link, fit=fit, side=side)
    spent = 1000 * (time.perf_counter() - begin)
    here, there = _summed([one.ms for one in asked.sent]), _summed([one["ms"] for one in asked.answers])
    trip = max(0.0, round(spent - sum(here.values()) - sum(there.values()), 3))
    packets = [
        {"level": one.level, "bytes": len(one.packet), "p": certainty(answer)}
        for one, answer in zip(asked.sent, asked.answers, strict=True)
    ]
    return asked.answer, {"ms": {**here, "link": trip, **there}, "bytes": asked.bytes, "packets": packets}


def _summed(stages: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for ms in stages for name in ms)
    return {name: round(sum(ms.get(name, 0.0) for ms in stages), 3) for name in names}
