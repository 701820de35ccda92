"""Stages 1 to 5 of 7 in fewer bytes: a small packet, a larger one only where the answer is unsure.   inside: client

    asked = Escalation(Device("efficientnet-lite0"), sure=0.4, level=7).ask("cat.jpg", link=link)
    print(asked.answer["answers"]["classify"][0], asked.bytes)

Most photographs are told from few bytes, and the answer's own probability says which are not. The encoder runs once;
both packets are coded from its latent, and an edge sees two ordinary packets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, final

from splitcodec.device.client import Device, Encoded
from splitcodec.device.image import Picture
from splitcodec.device.overlay import in_picture
from splitcodec.device.view import Fit
from splitcodec.errors import SettingsError
from splitcodec.wire.answer import Answer, parse_answer
from splitcodec.wire.given import whole, within

CLASSIFY: Final = "classify"
PART: Final = 3
"""The first packet's level is the second's divided by this, unless it is said (reports/escalation.json)."""


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """What was sent, in order, and what came back for each; boxes and label maps in pixels of the upright picture."""

    sent: tuple[Encoded, ...]
    answers: tuple[Answer, ...]

    @property
    def answer(self) -> Answer:
        """Return the last answer, that to the largest packet."""
        return self.answers[-1]

    @property
    def bytes(self) -> int:
        """Return the bytes of all packets."""
        return sum(len(one.packet) for one in self.sent)


@final
class Escalation:
    """Asks at level `first` (none: a third of `level`), and again at `level` (none: the bundle's default) where unsure.

    An answer is sure when its best guess has a probability of `sure` or more: at 0 one packet is sent, at 1 nearly
    always both. Raises SettingsError.
    """

    def __init__(self, device: Device, *, sure: float, level: int | None = None, first: int | None = None) -> None:
        if isinstance(sure, bool) or not within(sure, 0, 1):
            raise SettingsError(f"sure {sure!r:.40}; expected the probability from which an answer will do, 0 to 1")
        then = device.checked_level(level)
        chosen = then // PART if first is None else whole(first)
        if chosen is None or not 0 <= chosen < then:
            raise SettingsError(
                f"first level {first if chosen is None else chosen!r:.40} before level {then}; expected a lower one "
                "first, 0 or more"
            )
        self.device, self.sure, self.levels = device, float(sure), (chosen, then)

    def ask(
        self, picture: Picture, *, link: Callable[[bytes], bytes], fit: Fit = "crop", side: int | None = None
    ) -> Asked:
        """Send a picture's packets over `link` until an answer is sure; `fit` and `side` are as for `Device.encode`.

        Raises PictureError, SettingsError for answers without a classification, LinkGarbled if what comes back is no
        answer, and what the link raises (LinkError).
        """
        sent: list[Encoded] = []
        answers: list[Answer] = []
        for encoded in self.encodings(picture, fit=fit, side=side):
            answer = parse_answer(link(encoded.packet))
            sent.append(encoded)
            answers.append(in_picture(answer, encoded.place))
            if certainty(answer) >= self.sure:
                break
        return Asked(tuple(sent), tuple(answers))

    def encodings(self, picture: Picture, *, fit: Fit = "crop", side: int | None = None) -> Iterator[Encoded]:
        """Yield a picture's packets, the smaller one first; each is coded when it is asked for. As `Device.encode`."""
        begin = time.perf_counter()
        image_bhwc, place = self.device.view(picture, fit=fit, side=side)
        seen = time.perf_counter()
        latent_chw = self.device.encoder.latent_chw(image_bhwc)
        spent = {"preprocess": seen - begin, "encoder": time.perf_counter() - seen}
        for level in self.levels:
            start = time.perf_counter()
            packet = self.device.pack_latent(latent_chw, level=level)
            spent["coding"] = time.perf_counter() - start
            ms = {stage: round(1000 * seconds, 3) for stage, seconds in spent.items()}
            yield Encoded(packet, level, ms, place, max(place.rows, place.cols))
            spent = {}


def certainty(answer: Answer) -> float:
    """Return the probability of the best guess. Raises SettingsError for an answer without a classification."""
    guesses = answer["answers"].get(CLASSIFY)
    if not guesses:
        raise SettingsError(
            f"an answer to {', '.join(answer['answers']) or 'nothing'}; {CLASSIFY} alone says how sure it is, so ask "
            "for it as well"
        )
    return guesses[0]["p"]
