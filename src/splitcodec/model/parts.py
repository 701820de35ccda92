"""What a student is made of: an encoder (any module), a bottleneck and a decoder; the last two as abstract classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Quantise = Literal["noise", "mixed", "round"]
"""What stands in for rounding while training; see `model.bottleneck.Bottleneck.forward`."""


class Coded(NamedTuple):
    """What leaves the bottleneck in training."""

    latent_bchw: Tensor
    """Noisy or rounded latent, divided by the gain again: what the decoder sees."""
    bits_b: Tensor
    """Code length of each picture in bits, under the prior of its level."""


class AbstractBottleneck(nn.Module, ABC):
    """Between encoder and decoder: what the decoder sees of a latent, and what that costs."""

    levels: int
    channels: int

    @abstractmethod
    def forward(self, latent_bchw: Tensor, *, quantise: Quantise = "noise") -> Coded:
        """Train: the picture i of B has level `i // (B / levels)`."""

    @abstractmethod
    def prior_parameters(self) -> Iterable[nn.Parameter]:
        """Return what the prior learns."""

    @abstractmethod
    def gain_parameters(self) -> Iterable[nn.Parameter]:
        """Return what the gains learn."""

    def layer_parameters(self) -> Iterable[nn.Parameter]:
        """Return what else learns, as encoder and decoder do: nothing, unless a kind has layers of its own."""
        return ()


class TableBottleneck(AbstractBottleneck):
    """A bottleneck whose symbols are coded by one table for each level and channel, as packets carry them."""

    @abstractmethod
    def symbols(self, latent_bchw: Tensor, level: int) -> Tensor:
        """Return integer symbols, as floats, of one level."""

    @abstractmethod
    def latent(self, symbols_bchw: Tensor, level: int) -> Tensor:
        """Return what the decoder sees of symbols."""

    @abstractmethod
    def gains(self) -> NDArray[np.float32]:
        """Return the gains (levels, channels)."""

    @abstractmethod
    def masses(self, low: int, high: int) -> NDArray[np.float64]:
        """Return the mass of every integer symbol from low to high: (levels, channels, high - low + 1)."""


class FeatureDecoder(nn.Module, ABC):
    """Latent, after division by the gain, to the feature at the teacher's cut."""

    @abstractmethod
    def forward(self, latent_bchw: Tensor) -> Tensor:
        """Map a latent to the feature."""

    @abstractmethod
    def aim_at(self, feature_bchw: Tensor) -> None:
        """Prepare for features of that scale, before training begins."""
