from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from splitcodec.model.transforms import Decoder, Squeeze
from splitcodec.session import Graph
from splitcodec.training.graphs import FromPixels, LogitsOnly, cost, folded, to_onnx


def _settled(module: nn.Module) -> nn.Module:
    """Return the module in eval mode, its batch norm with statistics worth folding."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
    return module.eval()


@pytest.fixture(scope="module")
def squeeze() -> nn.Module:
    torch.manual_seed(0)
    return _settled(Squeeze(3, 5, widths=(8, 8), halvings=2))


@pytest.fixture(scope="module")
def encoder_onnx(squeeze: nn.Module) -> bytes:
    module = FromPixels(folded(squeeze), scale=1 / 127.5, offset=-1.0)
    pixels = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    return to_onnx(module, pixels, source="image_bhwc", target="latent_bchw", rows=1, cols=2, step=4)


@pytest.mark.parametrize("size", [(1, 4, 4), (1, 32, 32), (2, 32, 32), (3, 40, 8), (1, 224, 4)])
def test_the_graph_gives_what_the_network_gives(
    squeeze: nn.Module, encoder_onnx: bytes, size: tuple[int, int, int]
) -> None:
    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
    with torch.no_grad():
        wanted = squeeze(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
    graph = Graph(encoder_onnx, name="encoder", threads=1)
    assert (graph.input_name, graph.output_names) == ("image_bhwc", ("latent_bchw",))
    found = graph(pixels.numpy())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=2e-3 * float(wanted.abs().max()))


def test_weights_are_stored_as_float16_and_nothing_names_this_machine(encoder_onnx: bytes) -> None:
    model = onnx.load_from_string(encoder_onnx)
    kinds = {t.name: t.data_type for t in model.graph.initializer if np.prod(t.dims) >= 64}
    assert set(kinds.values()) == {onnx.TensorProto.FLOAT16}
    assert not any(t.external_data for t in model.graph.initializer)
    text = encoder_onnx.decode("latin-1")
    assert ".py" not in text
    assert str(Path.cwd()) not in text
    assert "/tmp" not in text


def test_weights_too_large_for_float16_stay_float32() -> None:
    layer = nn.Conv2d(3, 32, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1e5)
    example = torch.zeros(2, 3, 4, 4)
    data = to_onnx(layer, example, source="x", target="y", rows=2, cols=3, step=1)
    assert np.isfinite(Graph(data, name="large", threads=1)(np.ones((1, 3, 4, 4), np.float32))).all()


def test_folding_changes_nothing_but_the_layers() -> None:
    torch.manual_seed(1)
    decoder = _settled(Decoder(5, 7, width=8, blocks=1, up=2, up_width=4, up_blocks=1))
    out = folded(decoder)
    latent = torch.randn(2, 5, 3, 4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in out.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in decoder.modules())
    with torch.no_grad():
        torch.testing.assert_close(out(latent), decoder(latent), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape", "macs", "parameters"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 10, 12), 10 * 12 * 8 * 3 * 9, 8 * 27 + 8),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), (1, 3, 10, 12), 5 * 6 * 8 * 27, 8 * 27),
        (nn.Conv2d(6, 6, 5, groups=6, bias=False), (1, 6, 9, 9), 5 * 5 * 6 * 25, 6 * 25),
        (nn.Conv2d(4, 8, 1, groups=2, bias=False), (1, 4, 3, 3), 9 * 8 * 2, 8 * 2),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (1, 3, 2, 2), 60, 65),
        (nn.ConvTranspose2d(4, 8, 5, stride=2, padding=2, output_padding=1), (1, 4, 3, 6), 18 * 4 * 8 * 25, 808),
    ],
)
def test_costs_are_counted(layer: nn.Module, shape: tuple[int, ...], macs: int, parameters: int) -> None:
    assert cost(layer, torch.zeros(shape)) == (macs, parameters)
    assert cost(layer, torch.zeros(shape)) == (macs, parameters)  # and the hooks are gone again


def test_logits_only() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, x

    x = torch.zeros(2, 3)
    assert torch.equal(LogitsOnly(Both())(x), x + 1)
    assert torch.equal(LogitsOnly(nn.Identity())(x), x)
