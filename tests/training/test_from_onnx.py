"""Graphs of bundles as modules: ours and the rivals'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from splitcodec.errors import RunError
from splitcodec.model.paper import PaperDecoder, PaperEncoder
from splitcodec.model.reduced import ReducedDecoder, ReducedEncoder
from splitcodec.session import Graph
from splitcodec.training.from_onnx import FromOnnx
from splitcodec.training.graphs import FromPixels, folded, to_onnx
from splitcodec.wire.bundle import Bundle


@pytest.mark.parametrize("kind", ["paper", "reduced"])
def test_rivals_come_out_as_in_onnx_runtime(kind: str) -> None:
    torch.manual_seed(3)
    encoder: nn.Module = PaperEncoder(6, widths=(8, 8)) if kind == "paper" else ReducedEncoder(6, width=8)
    decoder: nn.Module = PaperDecoder(6, 10, widths=(8, 8)) if kind == "paper" else ReducedDecoder(6, 10, width=8)
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    first = to_onnx(
        FromPixels(folded(encoder), scale=1 / 127.5, offset=-1.0).eval(),
        pixels,
        source="image_bhwc",
        target="latent_bchw",
        rows=1,
        cols=2,
        step=8,
        least=4,
    )
    with torch.no_grad():
        latent = FromOnnx(first, name="encoder")(pixels)
        axes = {"rows": 2, "cols": 3, "step": 1, "least": 2}
        second = to_onnx(folded(decoder), latent, source="latent_bchw", target="feature_bchw", **axes)
        feature = FromOnnx(second, name="decoder")(latent)
    wanted = Graph(first, name="encoder", threads=1)(pixels.numpy())
    np.testing.assert_allclose(latent.numpy(), wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(feature.numpy(), Graph(second, name="decoder", threads=1)(wanted), rtol=1e-3, atol=1e-3)


def test_the_tiny_bundle_and_its_beginnings(tiny: Bundle) -> None:
    graphs = {name: FromOnnx(tiny.graph(name), name=name) for name in ("encoder", "decoder", "head")}
    image = torch.randint(0, 256, (2, 64, 32, 3), dtype=torch.uint8)
    got = graphs["decoder"](graphs["encoder"](image))
    latent = Graph(tiny.graph("encoder"), name="encoder", threads=1)(image.numpy())
    np.testing.assert_allclose(got.numpy(), Graph(tiny.graph("decoder"), name="decoder", threads=1)(latent), atol=1e-4)
    assert graphs["encoder"].begins_as(graphs["encoder"])
    assert not graphs["encoder"].begins_as(graphs["head"])
    with pytest.raises(RunError, match="operator GlobalAveragePool is not known"):
        FromOnnx(tiny.graph("tail_classify"), name="tail")
