"""Options that limit bytes and time of packets, and what they ask of each picture.   used by: device.py"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, final

import typer

from splitcodec.cli.show import check_finite
from splitcodec.errors import BudgetTooSmall, SettingsError

if TYPE_CHECKING:
    from splitcodec.device.budget import Deadline
    from splitcodec.device.client import Device
    from splitcodec.device.meter import LinkMeter
    from splitcodec.device.view import Fit

_ANY: Final = 1 << 20  # bytes, more than any packet has: a limit that limits nothing

MaxBytesOption = Annotated[
    int | None,
    typer.Option("--max-bytes", min=13, metavar="N", help="The best level whose packet has at most N bytes."),
]
MinChangeOption = Annotated[
    float | None,
    typer.Option(
        "--min-change", min=0.0, metavar="D", help="Skip pictures that differ by less from the last one taken; try 0.6."
    ),
]
RefreshOption = Annotated[
    float | None,
    typer.Option(
        "--refresh", min=0.0, metavar="S", help="With --min-change: seconds after which one is taken anyway (3600)."
    ),
]
ForceFitOption = Annotated[
    bool,
    typer.Option("--force-fit", help="Where even level 0 is too large: shrink the picture, then drop symbols."),
]
DeadlineOption = Annotated[
    float | None,
    typer.Option("--deadline-ms", metavar="D", help="The best level that is answered within D milliseconds."),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--kbit-per-s", metavar="R", help="With --deadline-ms: the link's rate. With --fps: the average rate to keep."
    ),
]
RoundTripOption = Annotated[
    float | None, typer.Option("--rtt-ms", metavar="T", help="With --deadline-ms and --kbit-per-s: the round trip.")
]
FpsOption = Annotated[
    float | None, typer.Option("--fps", metavar="F", help="With --kbit-per-s: pictures a second in this stream.")
]
WindowOption = Annotated[
    float | None,
    typer.Option("--window-s", metavar="W", help="With --fps: seconds over which the rate is averaged (10)."),
]


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """The options above, as given."""

    max_bytes: int | None
    force_fit: bool
    deadline_ms: float | None
    kbit_per_s: float | None
    rtt_ms: float | None
    fps: float | None
    window_s: float | None

    def check(self, *, measures_link: bool) -> None:
        """Refuse options that make no sense together. Raises SettingsError."""
        if self.deadline_ms is not None and self.fps is not None:
            raise SettingsError("--deadline-ms with --fps; --kbit-per-s is the link's rate or a stream's average")
        if self.deadline_ms is not None and self.kbit_per_s is None and not measures_link:
            raise SettingsError("--deadline-ms: nothing is sent here, so say the link's rate with --kbit-per-s")
        if self.kbit_per_s is not None and self.deadline_ms is None and self.fps is None:
            raise SettingsError("--kbit-per-s alone: add --fps (the average of a stream) or --deadline-ms (the link's)")
        for name, value, needs, other in (
            ("--fps", self.fps, "--kbit-per-s", self.kbit_per_s),
            ("--window-s", self.window_s, "--fps", self.fps),
            ("--rtt-ms", self.rtt_ms, "--deadline-ms and --kbit-per-s", self.deadline_ms and self.kbit_per_s),
        ):
            if value is not None and other is None:
                raise SettingsError(f"{name} means nothing without {needs}; add it, or leave {name} out")
        check_finite(
            {
                "--max-bytes": self.max_bytes,
                "--deadline-ms": self.deadline_ms,
                "--kbit-per-s": self.kbit_per_s,
                "--rtt-ms": self.rtt_ms,
                "--window-s": self.window_s,
            }
        )
        if self.fps is not None and not 1e-6 <= self.fps <= 1e6:  # a picture in eleven days; waits overflow beyond
            raise SettingsError(f"--fps {self.fps}; expected more than 0, from 0.000001 to 1,000,000")
        if self.force_fit and self.max_bytes is None and self.deadline_ms is None and self.fps is None:
            raise SettingsError("--force-fit: to what? Add --max-bytes, --deadline-ms or --kbit-per-s with --fps")


@final
class Allowances:
    """What each picture of a run may cost, by its limits; pictures are taken in order.

    `meter` is the link that packets take, if any, `around` what that adds to packet and answer, in bytes.
    """

    def __init__(self, limits: Limits, *, meter: LinkMeter | None = None, around: int = 0) -> None:
        from splitcodec.device.budget import Deadline, RateKeeper

        limits.check(measures_link=meter is not None)
        if limits.deadline_ms is not None:  # a wrong one is refused once, not for each picture
            rate = 1.0 if limits.kbit_per_s is None else limits.kbit_per_s
            Deadline(limits.deadline_ms, kbit_per_s=rate, rtt_ms=limits.rtt_ms or 0.0)
        self._limits, self._meter, self._around, self._picture = limits, meter, around, -1
        self._keeper = None
        if limits.fps is not None and limits.kbit_per_s is not None:
            window_s = 10.0 if limits.window_s is None else limits.window_s
            self._keeper = RateKeeper(limits.kbit_per_s, window_s=window_s, clock=lambda: self.due_s)

    def ready(self, device: Device, *, level: int | None, fit: Fit, side: int | None) -> None:
        """Refuse once, before any picture is read, what would be refused for each of them.

        Where a deadline counts, a grey picture is encoded too: the first one takes several times as long as others.
        Raises SettingsError for a level or side that the bundle does not have, GraphError.
        """
        from splitcodec.device.image import grey_jpeg
        from splitcodec.device.view import full_side, task_specs

        device.checked_level(level)
        full_side(device.bundle, specs=task_specs(device.bundle), fit=fit, side=side)
        if self._limits.deadline_ms is not None:
            device.encode(grey_jpeg(), max_bytes=_ANY, fit=fit, side=side)

    @property
    def due_s(self) -> float:
        """Return when the current picture is taken, in seconds after the first one; 0 where this is no stream."""
        return max(self._picture, 0) / self._limits.fps if self._limits.fps is not None else 0.0

    def next(self) -> dict[str, Any]:
        """Go on to the next picture and return what `Device.encode_timed` takes. Raises BudgetTooSmall."""
        from splitcodec.wire.packet import SMALLEST

        self._picture += 1
        limits, most = self._limits, self._limits.max_bytes
        if self._keeper is not None:
            free = self._keeper.allowance()
            if free < SMALLEST:
                raise BudgetTooSmall(
                    f"{limits.kbit_per_s:g} kbit/s leave {free} bytes for it; raise the rate, or take fewer pictures",
                    smallest=SMALLEST,
                )
            most = free if most is None else min(most, free)
        return {"max_bytes": most, "deadline": self._deadline(), "force_fit": limits.force_fit}

    def spent(self, n_bytes: int) -> None:
        """Say what the current picture's packet took."""
        if self._keeper is not None:
            self._keeper.spend(n_bytes)

    def _deadline(self) -> Deadline | None:
        from splitcodec.device.budget import Deadline

        ms, rate, rtt_ms = self._limits.deadline_ms, self._limits.kbit_per_s, self._limits.rtt_ms or 0.0
        if ms is None:
            return None
        if self._meter is None:  # nothing is sent, so the packet's own bytes alone are known
            return None if rate is None else Deadline(ms, kbit_per_s=rate, rtt_ms=rtt_ms)
        if rate is None:
            return self._meter.deadline(ms)
        return self._meter.deadline_at(ms, kbit_per_s=rate, rtt_ms=rtt_ms, around=self._around)
