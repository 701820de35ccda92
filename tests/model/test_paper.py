from __future__ import annotations

import torch
from torch import nn

from splitcodec.model.gdn import GDN
from splitcodec.model.paper import EXTRA, STRIDE, PaperDecoder, PaperEncoder
from splitcodec.training.graphs import cost, folded


def test_the_encoder_has_the_published_size() -> None:
    encoder = PaperEncoder(24, widths=(96, 48))
    latent = encoder(torch.zeros(1, 3, 224, 224))
    assert latent.shape == (1, 24, 55, 55)
    assert 224 // STRIDE + EXTRA == 55
    macs, parameters = cost(folded(encoder), torch.zeros(1, 3, 224, 224))
    assert round(macs / 1e6) == 588
    assert parameters == 3 * 96 * 25 + 96 * 97 + 96 * 48 * 25 + 48 * 49 + 48 * 24 * 4


def test_the_decoder_meets_the_feature_of_stride_4() -> None:
    for out in (24, 256):
        decoder = PaperDecoder(24, out, widths=(8, 6))
        assert decoder(torch.zeros(1, 24, 55, 55)).shape == (1, out, 56, 56)
    published = PaperDecoder(24, 256, widths=(512, 256))
    sizes = [(c.in_channels, c.out_channels, c.kernel_size[0], c.padding[0]) for c in published.modules()
             if isinstance(c, nn.Conv2d)]  # fmt: skip
    assert sizes == [(24, 512, 2, 1), (512, 256, 2, 0), (256, 256, 2, 1)]
    assert [m.inverse for m in published.modules() if isinstance(m, GDN)] == [True, True]


def test_nothing_has_a_bias() -> None:
    student = nn.Sequential(PaperEncoder(4, widths=(6, 5)), PaperDecoder(4, 3, widths=(6, 5)))
    assert all(c.bias is None for c in student.modules() if isinstance(c, nn.Conv2d))
