"""The stages of a recipe: what is minimised, a union told apart by the key `kind` (without it, `distill`), and how."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, Tag, model_validator

from splitcodec.model.parts import Quantise
from splitcodec.training.keys import Kept, Share, Strict, Weight, by_kind

_STAGES, _OPTIMIZERS, _SCHEDULES = (
    ("distill", "squares", "answers", "latents", "pixels"),
    ("adam", "muon", "sgd"),
    ("cosine", "steps"),
)
FIRST_KINDS = (_STAGES[0], _OPTIMIZERS[0], _SCHEDULES[0])
"""What is meant where no kind is said."""
STAGE_KINDS = (*_STAGES, *_OPTIMIZERS, *_SCHEDULES)


class AdamRecipe(Strict):
    """Adam (Kingma and Ba 2015)."""

    kind: Literal["adam"] = "adam"
    betas: tuple[Kept, Kept] = (0.9, 0.99)
    weight_decay: Weight = 0.0


class MuonRecipe(Strict):
    """Muon for kernels of convolutions, Adam for the rest, steps of one size (see `muon.py`)."""

    kind: Literal["muon"]
    momentum: Kept = 0.95
    betas: tuple[Kept, Kept] = (0.9, 0.99)


class SgdRecipe(Strict):
    """Stochastic gradient descent."""

    kind: Literal["sgd"]
    momentum: Share = 0.9
    weight_decay: Weight = 0.0


class CosineRecipe(Strict):
    """Half a cosine to zero."""

    kind: Literal["cosine"] = "cosine"


class StepsRecipe(Strict):
    """Times `factor` at each of these shares of the stage."""

    kind: Literal["steps"]
    at: tuple[Share, ...]
    factor: PositiveFloat = 0.1


class _Common(Strict):
    """What every stage has."""

    images: PositiveInt | None = None
    """How many pictures the stage sees (pictures seen, not photographs); either this or `minutes`."""
    minutes: PositiveFloat | None = None
    """How long the stage takes, for a machine that is lent for so long: prices and learning rate then follow the clock.
    The report says how many pictures that was; another machine sees another number."""
    batch: PositiveInt
    learning_rate: PositiveFloat
    window: Annotated[int, Field(ge=32, multiple_of=16)] | None = None
    """Side in pixels of a square cut out of each training crop at its own scale: a picture costs less, and convolutions
    do not mind. Null for the whole crop."""
    warmup: Share = 0.02
    optimizer: Annotated[
        Annotated[AdamRecipe, Tag("adam")] | Annotated[MuonRecipe, Tag("muon")] | Annotated[SgdRecipe, Tag("sgd")],
        by_kind(*_OPTIMIZERS),
    ] = AdamRecipe()
    schedule: Annotated[
        Annotated[CosineRecipe, Tag("cosine")] | Annotated[StepsRecipe, Tag("steps")], by_kind(*_SCHEDULES)
    ] = CosineRecipe()
    clip: PositiveFloat | None = 5.0
    """Largest norm of the gradient; null for none."""
    tune: Literal["decoder", "encoder", "all"] | None = None
    """What learns beside the tail: the decoder alone; encoder and prior, at the rate's price, on a decoder that stays
    what it is; or all three. Left out: all in stage 1, the decoder in stage 2."""
    tail: bool = False
    """Whether the tail learns as well; the bundle's tail then is no longer the teacher's."""
    quantise: Quantise | None = None
    """What stands in for rounding: `noise`, `round`, or `mixed` (the decoder sees rounded symbols, the prior noisy
    ones). Left out: `mixed` where the encoder learns, `round` where it does not."""
    rate_ramp: Share = 0.25
    """Share of stage 1 within which the lambdas rise from a fiftieth to their full value."""
    prior_rate: PositiveFloat = 10.0
    balance: Share | None = None
    """What `levels.balance` is in this stage. Left out: the same."""
    gain_rate: Weight = 8.0
    """How many times faster gains learn; 0 leaves them as they begin."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.images is None) == (self.minutes is None):
            raise ValueError("give either images (pictures seen) or minutes")
        return self


class DistillStage(_Common):
    """Relative errors at the cut, at later layers and in the teacher's answer."""

    kind: Literal["distill"] = "distill"
    feature: Weight = 1.0
    """Weight of the error at the cut: mean squared, each channel in units of its variance."""
    later: Weight = 0.5
    """Weight of each later layer's relative squared error."""
    logits: Weight = 0.5
    """Weight of the KL divergence of the student's answer from the teacher's."""
    tail_from: Share = 0.0
    """Share of the stage after which the errors behind the cut join in (the tail costs time)."""


class SquaresStage(_Common):
    """The paper's stage 1: the sum of squared errors at the cut and at each later layer, as it is, for each picture."""

    kind: Literal["squares"]


class AnswersStage(_Common):
    """Classification: the paper's stage 2 (labels and the teacher's soft answers), or end to end (labels alone)."""

    kind: Literal["answers"]
    hard: Weight = 0.5
    """Weight of the cross-entropy with the label; the teacher's own answer stands in where there is no label."""
    soft: Weight = 0.5
    """Weight of the KL divergence from the teacher's answer, both softened by the temperature, times its square."""
    temperature: PositiveFloat = 1.0


class PixelsStage(_Common):
    """Image codecs: the squared error of each colour of a pixel, in steps of 8 bits, on average."""

    kind: Literal["pixels"]

    @model_validator(mode="after")
    def _no_tail(self) -> Self:
        if self.tail:
            raise ValueError("tail: nothing is answered in a stage of kind pixels, so no tail learns; leave it out")
        return self


class LatentsStage(_Common):
    """A thin encoder learns the latent of the run that `lead` names; nothing else learns, the tail is not needed."""

    kind: Literal["latents"]

    @model_validator(mode="after")
    def _encoder_alone(self) -> Self:
        told = {"tune": self.tune not in (None, "encoder"), "tail": self.tail, "quantise": self.quantise is not None}
        for key in (key for key, wrong in told.items() if wrong):
            raise ValueError(
                f"{key}: a stage of kind latents teaches the encoder alone, without rounding; leave it out"
            )
        return self


Distilling = DistillStage | SquaresStage | AnswersStage | PixelsStage
"""Stages that lead through bottleneck and decoder."""

Stage = Annotated[
    Annotated[DistillStage, Tag("distill")]
    | Annotated[SquaresStage, Tag("squares")]
    | Annotated[AnswersStage, Tag("answers")]
    | Annotated[LatentsStage, Tag("latents")]
    | Annotated[PixelsStage, Tag("pixels")],
    by_kind(*_STAGES),
]
