"""The photographs that ship with the demo: CC0 or public domain, see photos/README.md.   used by: run.py"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Photograph:
    """One picture file, what it shows, and whose it is."""

    name: str
    title: str
    credit: str

    def read(self) -> bytes:
        """Return the file's bytes."""
        return files("splitcodec.demo").joinpath("photos", f"{self.name}.jpg").read_bytes()


PHOTOGRAPHS = (
    Photograph("espresso", "A cup of espresso", "Rachel Michetti, CC0"),
    Photograph("cat", "Chelsea the cat", "Stefan van der Walt, CC0"),
    Photograph("camera", "A camera on its tripod", "Lav Varshney, CC0"),
    Photograph("rocket", "Falcon 9 before its launch", "SpaceX, public domain"),
    Photograph("shuttle", "A model of the space shuttle", "NASA, public domain"),
)
