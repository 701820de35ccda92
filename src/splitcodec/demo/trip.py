"""What the demo found, per photograph and in all.   made by: run.py   shown by: page.py and the command line"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from splitcodec.demo.photos import Photograph
from splitcodec.wire.answer import Guess


@final
@dataclass(frozen=True, slots=True)
class Jpeg:
    """The smallest JPEG that the network reads as well as the packet: its file, and its time on the same link."""

    quality: int
    data: bytes
    airtime_ms: float
    guesses: tuple[Guess, ...]


@final
@dataclass(frozen=True, slots=True)
class Trip:
    """One photograph's way to its answer.

    `ms` was measured: preprocess, encoder, coding, link (waiting included), decode, decoder, tail. `airtime_ms` is
    calculated for packet and answer, like that of the JPEG. `guesses` came back over the link, `teacher` is what the
    network says of the uncompressed crop. `crop_jpeg` shows the crop and was never sent.
    """

    photograph: Photograph
    level: int
    packet_bytes: int
    answer_bytes: int
    airtime_ms: float
    guesses: tuple[Guess, ...]
    teacher: tuple[Guess, ...]
    ms: dict[str, float]
    jpeg: Jpeg | None
    crop_jpeg: bytes

    @property
    def reads_alike(self) -> bool:
        """Say whether the packet's first answer is that of the uncompressed crop."""
        return self.guesses[0]["index"] == self.teacher[0]["index"]

    def to_json(self) -> dict[str, Any]:
        """Return the trip as JSON values, without pictures."""
        jpeg = self.jpeg
        return {
            "image": self.photograph.name,
            "level": self.level,
            "bytes": self.packet_bytes,
            "answer_bytes": self.answer_bytes,
            "airtime_ms": round(self.airtime_ms, 1),
            "answers": list(self.guesses),
            "uncompressed": list(self.teacher),
            "ms": self.ms,
            "jpeg": None
            if jpeg is None
            else {
                "quality": jpeg.quality,
                "bytes": len(jpeg.data),
                "airtime_ms": round(jpeg.airtime_ms, 1),
                "answers": list(jpeg.guesses),
            },
        }

    def lines(self) -> list[str]:
        """Return the trip in a few lines of text, for a terminal."""
        jpeg = self.jpeg
        against = (
            "no JPEG up to quality 95 reads as well"
            if jpeg is None
            else f"JPEG read as well: {len(jpeg.data):,} bytes, {jpeg.airtime_ms / 1000:.2f} s"
        )
        stages = "  ".join(f"{stage} {spent:.1f}" for stage, spent in self.ms.items())
        ours = f"{self.packet_bytes:,} bytes, {self.airtime_ms / 1000:.2f} s on the link"
        return [
            f"{self.photograph.title}: {ours} ({against})",
            f"  answers  {_told(self.guesses[:3])}",
            f"  teacher  {_told(self.teacher[:3])}",
            f"  ms       {stages}",
        ]


@final
@dataclass(frozen=True, slots=True)
class DemoResult:
    """All trips of one demo, the link they took, and the page that was written."""

    bundle: str
    kbit_per_s: float
    rtt_ms: float
    trips: tuple[Trip, ...]
    machine: dict[str, Any]
    page: str

    @property
    def compared(self) -> list[tuple[Trip, Jpeg]]:
        """Return the trips that have a JPEG to compare with, and that JPEG."""
        return [(trip, trip.jpeg) for trip in self.trips if trip.jpeg is not None]

    def to_json(self) -> dict[str, Any]:
        """Return the demo as JSON values."""
        return {
            "bundle": self.bundle,
            "link": {"kbit_per_s": self.kbit_per_s, "rtt_ms": self.rtt_ms},
            "images": [trip.to_json() for trip in self.trips],
            "machine": self.machine,
            "page": self.page,
        }


def _told(guesses: tuple[Guess, ...]) -> str:
    return ", ".join(f"{guess['label']} {100 * guess['p']:.0f} %" for guess in guesses)
