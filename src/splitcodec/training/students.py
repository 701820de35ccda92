"""The `student` of a recipe: a union of kinds, told apart by the key `kind`; without it, `squeeze`."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, Tag, model_validator

from splitcodec.model.bottleneck import WIDTHS
from splitcodec.training.keys import Count, Strict, by_kind

STUDENT_KINDS = ("squeeze", "patch", "thinned", "paper", "reduced", "image", "hyperprior")


class DecoderRecipe(Strict):
    """Sizes of `model.transforms.Decoder`."""

    width: PositiveInt = 256
    blocks: PositiveInt = 3
    up_width: PositiveInt = 80
    up_blocks: Count = 1
    adapt: bool = False
    """Whether the decoder heeds how coarsely a latent was rounded (`model.film`)."""


class SqueezeRecipe(Strict):
    """The teacher's own first layers, frozen, and a squeeze; bottleneck and decoder."""

    kind: Literal["squeeze"] = "squeeze"
    stem: str
    """The teacher's layer after which the device's own layers begin; the cut or a layer before it."""
    widths: tuple[PositiveInt, ...]
    halvings: Count = 1
    channels: PositiveInt = 64
    linear: bool = True
    """Whether a linear path runs beside encoder and decoder; both then begin as the feature's principal components."""
    metric: Literal["feature", "answer"] = "feature"
    """How those components count errors: of the feature, squared, or by what they do to the teacher's answer."""
    decoder: DecoderRecipe = DecoderRecipe()

    @model_validator(mode="after")
    def _enough(self) -> Self:
        _enough(self.widths, self.halvings)
        if self.metric == "answer" and not self.linear:
            raise ValueError("metric: answer says how the linear path begins; it has no meaning with linear: false")
        return self

    def words(self) -> str:
        """Say what the device runs."""
        return f"the teacher's layers up to `{self.stem}` and {len(self.widths) + 1} convolutions"


class PatchLayer(Strict):
    """One convolution of a patch stem."""

    width: PositiveInt
    kernel: PositiveInt
    stride: PositiveInt

    @model_validator(mode="after")
    def _covers(self) -> Self:
        if self.kernel < self.stride or (self.stride == 1 and self.kernel % 2 == 0):
            raise ValueError(
                f"kernel {self.kernel} with stride {self.stride}; expected at least the stride, and odd for stride 1"
            )
        return self


class PatchRecipe(Strict):
    """An encoder of its own from the first layer on: strided convolutions, residual blocks, a squeeze; all learned."""

    kind: Literal["patch"]
    patches: Annotated[tuple[PatchLayer, ...], Field(min_length=1)]
    """The stem: dense convolutions on the image."""
    blocks: Count = 1
    """Residual blocks behind the stem, at its width."""
    inner: PositiveInt | None = None
    """Width inside each block: one 3 x 3 convolution between two of 1 x 1. Left out: two 3 x 3 at full width."""
    widths: tuple[PositiveInt, ...] = ()
    halvings: Count = 0
    channels: PositiveInt = 64
    linear: bool = True
    """Whether a linear path runs beside the decoder."""
    decoder: DecoderRecipe = DecoderRecipe()

    @model_validator(mode="after")
    def _enough(self) -> Self:
        _enough(self.widths, self.halvings)
        return self

    @property
    def stride(self) -> int:
        """Return the latent's stride in pixels."""
        return math.prod(patch.stride for patch in self.patches) << self.halvings

    def words(self) -> str:
        """Say what the device runs."""
        blocks = (3 if self.inner else 2) * self.blocks
        return f"{len(self.patches) + blocks + len(self.widths) + 1} convolutions of its own"


class ThinnedRecipe(Strict):
    """The teacher's layers up to the cut, thinned, and a squeeze; all learned, from the teacher's weights on."""

    kind: Literal["thinned"]
    share: tuple[PositiveInt, PositiveInt] = (1, 1)
    """What the picture's sides are multiplied by, a fraction: [5, 7] makes 160 of 224."""
    hidden: tuple[PositiveInt, ...] | None = None
    """How many hidden channels each block of those layers keeps, in order: those that matter most on some photographs.
    One more for the channels that the layers end with, where `until` is a depthwise layer. Left out: all."""
    between: tuple[PositiveInt, ...] | None = None
    """How many channels run between those blocks, in order (shortcuts bind blocks together): those that tell the next
    layers most. Beside `hidden`. Left out: all."""
    until: str | None = None
    """The teacher's last layer that the encoder has, by its name in timm: one before the cut. Left out: the cut's."""
    widths: tuple[PositiveInt, ...]
    halvings: Count = 1
    channels: PositiveInt = 64
    linear: bool = True
    """Whether a linear path runs beside squeeze and decoder; see `SqueezeRecipe`."""
    decoder: DecoderRecipe = DecoderRecipe()

    @model_validator(mode="after")
    def _enough(self) -> Self:
        _enough(self.widths, self.halvings)
        above, below = self.share
        if above > below or (above == below and self.hidden is None):
            raise ValueError(f"share {above} / {below}; expected less than 1, or `hidden` as well")
        if self.between is not None and self.hidden is None:
            raise ValueError("between without hidden; expected both")
        return self

    def words(self) -> str:
        """Say what the device runs."""
        above, below = self.share
        layers = f"the teacher's layers up to {self.until or 'the cut'}"
        if self.hidden is not None:
            layers += f", thinned to {', '.join(map(str, self.hidden))} hidden channels"
        if self.between is not None:
            layers += f" and {', '.join(map(str, self.between))} between blocks"
        if above != below:
            layers += f", at {above} / {below} of the picture's sides,"
        return f"{layers} and {len(self.widths) + 1} convolutions"


class PaperRecipe(Strict):
    """The layers of the paper's Entropic Student; see `model.paper`."""

    kind: Literal["paper"]
    widths: tuple[PositiveInt, PositiveInt] = (96, 48)
    """Channels behind the encoder's first and second convolution."""
    channels: PositiveInt = 24
    decoder_widths: tuple[PositiveInt, PositiveInt] = (512, 256)
    """Channels behind the decoder's first and second convolution; the third has the teacher's."""
    prior: tuple[PositiveInt, ...] = WIDTHS
    """Hidden numbers of each channel's prior, layer by layer; CompressAI's has 3, 3, 3, 3."""
    centred: bool = False
    """Whether symbols are counted from a number of each channel's own, as CompressAI counts them from the median."""

    def words(self) -> str:
        """Say what the device runs."""
        return "three convolutions with divisive normalisation between them, as in the paper"


class ReducedRecipe(Strict):
    """Channel reduction and 8-bit quantisation; see `model.reduced`."""

    kind: Literal["reduced"]
    width: PositiveInt = 64
    channels: PositiveInt
    decoder_width: PositiveInt = 512
    flat: bool = False
    """Tables that give each of the 256 symbols 8 bits, as published; else tables by how often symbols occur."""

    def words(self) -> str:
        """Say what the device runs."""
        return "the first layers of a ResNet and a convolution to few channels, quantised to 8 bits"


class Pictures(Strict):
    """What learned image codecs share."""

    width: PositiveInt = 128
    """Channels of every layer but the last: N of the papers."""
    channels: PositiveInt = 192
    """Channels of the latent: M of the papers."""
    step: PositiveFloat | None = None
    """Quantiser's step, in those of an 8-bit colour, of the block transforms that it begins as (`model.klt`), or of a
    `start` that has another. Left out: random weights, or the start's own."""


class ImageRecipe(Pictures):
    """A learned image codec with a factorized prior, into the unmodified network; see `model.pictures`."""

    kind: Literal["image"]

    def words(self) -> str:
        """Say what the device runs."""
        return "four convolutions with divisive normalisation between them, those of an image codec"


class HyperpriorRecipe(Pictures):
    """A learned image codec with a mean-scale hyperprior; see `model.hyperprior`. No packet carries it."""

    kind: Literal["hyperprior"]

    def words(self) -> str:
        """Say what the device runs."""
        return "four convolutions of an image codec and three of its hyperprior"


Student = Annotated[
    Annotated[SqueezeRecipe, Tag("squeeze")]
    | Annotated[PatchRecipe, Tag("patch")]
    | Annotated[ThinnedRecipe, Tag("thinned")]
    | Annotated[PaperRecipe, Tag("paper")]
    | Annotated[ReducedRecipe, Tag("reduced")]
    | Annotated[ImageRecipe, Tag("image")]
    | Annotated[HyperpriorRecipe, Tag("hyperprior")],
    by_kind(*STUDENT_KINDS),
]


def _enough(widths: tuple[int, ...], halvings: int) -> None:
    if halvings > len(widths):
        raise ValueError(f"halvings {halvings} needs as many widths, not {len(widths)}")
