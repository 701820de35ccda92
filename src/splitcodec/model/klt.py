"""Where a learned image codec begins, if told so: the principal components of 16 x 16 pixels, layer by layer.

Each of the transforms' four layers of stride 2 takes 2 x 2 places together and keeps their strongest components (a
Karhunen-Loeve transform; Effros, Feng, Zeger, "Suboptimality of the Karhunen-Loeve transform for transform coding",
IEEE Trans. IT 50 (2004)), the decoder's mirror it. Divisive normalisation of small signals is nearly the identity, and
nearly undone by its inverse. So the codec begins as one of fixed block transforms, and learns overlap, normalisation
and prior on top; from random weights it needs a hundred times the pictures to come as far.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.hyperprior import SCALES, Hyperprior
from splitcodec.model.parts import AbstractBottleneck
from splitcodec.model.pictures import PictureDecoder, PictureEncoder

_CENTRE: Final = slice(2, 4)  # of five taps: the two places of a step
_SHRINK: Final = (0.5, 0.7, 0.7)  # of each layer but the last, whose step is the latent's
_QUIET: Final = 0.1  # of the hyper-decoder's last weights
_LEAST: Final = 0.2  # standard deviation of a latent's channel


class _Layer(NamedTuple):
    """Strongest components of 2 x 2 places, (kept, channels below, 2, 2), and the mean of each patch."""

    basis_kcrs: Tensor
    mean_crs: Tensor
    share: float  # of the variance that they keep


@torch.no_grad()
def begin_as_blocks(
    encoder: PictureEncoder, bottleneck: AbstractBottleneck, decoder: PictureDecoder, image_bchw: Tensor, *, step: float
) -> float:
    """Set all weights to those of block transforms with a quantiser's step of `step`, in what the encoder takes.

    `image_bchw` are some scaled photographs. Returns the share of their variance that components left out lose.
    """
    analysis = [layer for layer in encoder.layers if isinstance(layer, nn.Conv2d)]
    synthesis = [layer for layer in decoder.layers if isinstance(layer, nn.ConvTranspose2d)]
    scales = (*_SHRINK, 1 / (step * math.prod(_SHRINK)))
    x_bchw, kept = image_bchw.double(), 1.0
    for down, up, scale in zip(analysis, reversed(synthesis), scales, strict=True):
        layer = _components(x_bchw, most=down.out_channels)
        count, below = layer.basis_kcrs.shape[:2]
        down.weight[:count] = 0.0  # what is left stays random, and is not listened to yet
        down.weight[:, below:] = 0.0
        down.weight[:count, :below, _CENTRE, _CENTRE] = scale * layer.basis_kcrs.float()
        _bias(down)[:count] = -scale * torch.einsum("kcrs,crs->k", layer.basis_kcrs, layer.mean_crs).float()
        up.weight[count:] = 0.0
        up.weight[:, :below] = 0.0
        up.weight[:count, :below, _CENTRE, _CENTRE] = layer.basis_kcrs.float() / scale
        _bias(up)[:below] = layer.mean_crs.mean(dim=(1, 2)).float()
        x_bchw = nnf.conv2d(x_bchw - _spread(layer.mean_crs, x_bchw), scale * layer.basis_kcrs, stride=2)
        kept *= layer.share
    _fit(bottleneck, encoder(image_bchw).double())
    return 1.0 - kept


@torch.no_grad()
def widen_step(
    encoder: PictureEncoder, bottleneck: AbstractBottleneck, decoder: PictureDecoder, *, times: float
) -> None:
    """Make a trained codec's symbols so many times coarser; before rounding, nothing else changes."""
    _scale(encoder.layers[-1], 1 / times)
    _bias(encoder.layers[-1]).div_(times)
    _scale(decoder.layers[0], times)
    match bottleneck:
        case Bottleneck():
            bottleneck.prior.stretch(torch.full((bottleneck.levels * bottleneck.channels,), 1 / times))
        case Hyperprior():
            _scale(bottleneck.analysis[0], times)
            _scale(bottleneck.synthesis[-1], 1 / times)
            _bias(bottleneck.synthesis[-1]).div_(times)


def _components(x_bchw: Tensor, *, most: int) -> _Layer:
    below = x_bchw.shape[1]
    patch_np = nnf.pixel_unshuffle(x_bchw, 2).permute(0, 2, 3, 1).flatten(0, 2)
    mean_p = patch_np.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(patch_np.T, correction=0))
    kept = min(most, len(values))
    basis_kcrs = vectors.flip(1)[:, :kept].T.reshape(kept, below, 2, 2).contiguous()
    return _Layer(basis_kcrs, mean_p.view(below, 2, 2), float(values.flip(0)[:kept].sum() / values.sum()))


def _spread(mean_crs: Tensor, x_bchw: Tensor) -> Tensor:
    """Return a patch's mean at every place."""
    rows, cols = x_bchw.shape[-2:]
    return mean_crs.repeat(1, rows // 2, cols // 2)


def _scale(layer: nn.Module, by: float) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        layer.weight.mul_(by)


def _bias(layer: nn.Module) -> Tensor:
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) or layer.bias is None:
        raise TypeError("a transform without biases")
    return layer.bias


def _fit(bottleneck: AbstractBottleneck, latent_bchw: Tensor) -> None:
    """Let the prior begin with each channel's standard deviation."""
    std_c = latent_bchw.std(dim=(0, 2, 3)).clamp_min(_LEAST).float()
    match bottleneck:
        case Bottleneck():
            bottleneck.prior.stretch((bottleneck.log_gain_lc.exp() * std_c).flatten() / bottleneck.prior.first_std)
        case Hyperprior():
            _scale(bottleneck.synthesis[-1], _QUIET)
            scale_c = std_c.clamp(float(SCALES[0]), float(SCALES[-1]))
            _bias(bottleneck.synthesis[-1]).copy_(torch.cat((scale_c, torch.zeros_like(scale_c))))
