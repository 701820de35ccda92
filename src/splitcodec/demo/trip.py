"""What the demo found, per photograph and in all.   made by: run.py   shown by: page.py and the command line"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from splitcodec.demo.equal import Equal
from splitcodec.demo.photos import Photograph
from splitcodec.wire.answer import Guess


@final
@dataclass(frozen=True, slots=True)
class Jpeg:
    """A JPEG of the crop: its file, its time on the same link, what the network reads in it."""

    quality: int
    data: bytes
    airtime_ms: float
    guesses: tuple[Guess, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, without the file."""
        return {
            "quality": self.quality,
            "bytes": len(self.data),
            "airtime_ms": round(self.airtime_ms, 1),
            "answers": list(self.guesses),
        }

    def told(self) -> str:
        """Return its bytes and its time in words."""
        return f"{len(self.data):,} bytes, {self.airtime_ms / 1000:.2f} s"


@final
@dataclass(frozen=True, slots=True)
class Trip:
    """One photograph's way to its answer.

    `ms` was measured: preprocess, encoder, coding, link (waiting included), decode, decoder, tail. `airtime_ms` is
    calculated for packet and answer, like that of the JPEG. `guesses` came back over the link, `teacher` is what the
    network says of the uncompressed crop. `jpeg` is the smallest that it reads as well as the packet (none: none is).
    `crop_jpeg` shows the crop and was never sent. `equal`, where it was measured, is the JPEG that scores as high as
    the packet's level over many photographs.
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
    equal: tuple[Jpeg, Equal] | None = None

    @property
    def beside(self) -> Jpeg | None:
        """Return the JPEG to compare with: that of equal accuracy, or else the one that is read as well."""
        return self.jpeg if self.equal is None else self.equal[0]

    @property
    def reads_alike(self) -> bool:
        """Say whether the packet's first answer is that of the uncompressed crop."""
        return self.guesses[0]["index"] == self.teacher[0]["index"]

    def to_json(self) -> dict[str, Any]:
        """Return the trip as JSON values, without pictures."""
        return {
            "image": self.photograph.name,
            "level": self.level,
            "bytes": self.packet_bytes,
            "answer_bytes": self.answer_bytes,
            "airtime_ms": round(self.airtime_ms, 1),
            "answers": list(self.guesses),
            "uncompressed": list(self.teacher),
            "ms": self.ms,
            "jpeg": None if self.jpeg is None else self.jpeg.to_json(),
            "jpeg_of_equal_accuracy": None
            if self.equal is None
            else {**self.equal[0].to_json(), **self.equal[1].to_json()},
        }

    def lines(self) -> list[str]:
        """Return the trip in a few lines of text, for a terminal."""
        against = "no JPEG up to quality 95 reads as well"
        if self.equal is not None:
            against = f"JPEG of equal accuracy, quality {self.equal[0].quality}: {self.equal[0].told()}"
        elif self.jpeg is not None:
            against = f"JPEG read as well: {self.jpeg.told()}"
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
        return [(trip, trip.beside) for trip in self.trips if trip.beside is not None]

    @property
    def equal(self) -> Equal | None:
        """Return which JPEG scores as high as the packets' level, where it was measured."""
        return next((trip.equal[1] for trip in self.trips if trip.equal is not None), None)

    def sums(self) -> str:
        """Say what all packets take, and what the JPEGs beside them would."""
        pairs = self.compared
        ours, theirs = sum(trip.packet_bytes for trip, _ in pairs), sum(len(jpeg.data) for _, jpeg in pairs)
        what = "JPEGs that the same network reads as well"
        if self.equal is not None:
            what = (
                f"JPEGs of the quality that scores {self.equal.jpeg_top1:.1f} % over {self.equal.photographs} "
                f"photographs, where this level scores {self.equal.top1:.1f} %"
            )
        return f"In all {ours:,} bytes in packets; {theirs:,} in {what}."

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
