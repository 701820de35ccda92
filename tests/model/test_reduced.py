from __future__ import annotations

import numpy as np
import pytest
import torch

from splitcodec.model.reduced import EXTRA, STRIDE, EightBit, ReducedDecoder, ReducedEncoder
from splitcodec.training.tabulate import build_tables, count_symbols
from splitcodec.wire.coder import Coder
from splitcodec.wire.tables import TOTAL
from splitcodec.wire.tabulate import empty_counts


@pytest.fixture
def neck() -> EightBit:
    torch.manual_seed(0)
    neck = EightBit(3)
    for _ in range(20):
        neck(torch.randn(4, 3, 9, 9) * 2 - 1)
    return neck.eval()


def test_shapes_are_the_published_ones() -> None:
    latent = ReducedEncoder(3, width=64)(torch.zeros(1, 3, 224, 224))
    assert latent.shape == (1, 3, 29, 29)
    assert 224 // STRIDE + EXTRA == 29
    assert ReducedDecoder(3, 40, width=16)(latent).shape == (1, 40, 28, 28)


def test_symbols_are_256_whatever_comes(neck: EightBit) -> None:
    latent = torch.linspace(-1e4, 1e4, 4001).expand(1, 3, 1, -1)
    symbols = neck.symbols(latent, 0)
    assert torch.equal(symbols, symbols.round())
    assert symbols.max() - symbols.min() == 255
    assert symbols.min() < 0 < symbols.max()


def test_within_the_range_the_error_is_at_most_half_a_step(neck: EightBit) -> None:
    low, high = neck.get_buffer("low").item(), neck.get_buffer("high").item()
    latent = torch.linspace(low, high, 1000).expand(1, 3, 1, -1)
    found = neck.latent(neck.symbols(latent, 0), 0)
    assert (found - latent).abs().max() <= 0.51 * (high - low) / 255
    assert torch.equal(neck.symbols(torch.zeros(1, 3, 1, 1), 0), torch.zeros(1, 3, 1, 1))


def test_training_tracks_the_range_and_passes_gradients_through(neck: EightBit) -> None:
    before = neck.get_buffer("high").item()
    neck(torch.full((1, 3, 2, 2), 100.0))  # not in evaluation
    assert neck.get_buffer("high").item() == before
    neck.train()
    latent = torch.full((2, 3, 2, 2), 100.0, requires_grad=True)
    coded = neck(latent)
    assert before < neck.get_buffer("high").item() < 100
    assert (coded.bits_b == 8 * 3 * 4).all()
    coded.latent_bchw.sum().backward()
    assert latent.grad is not None
    assert (latent.grad == 1).all()


def test_without_counts_every_symbol_costs_8_bits(neck: EightBit) -> None:
    tables = build_tables(neck, None)
    assert tables.freq_ks.shape == (3, 256)
    assert (tables.freq_ks == TOTAL // 256).all()
    symbols = tables.quantise(np.random.default_rng(0).normal(-1, 2, (3, 29, 29)).astype(np.float32), 0)
    assert tables.bits(symbols, 0) == 8 * symbols.size
    assert len(Coder(tables).encode(symbols, 0)) == pytest.approx(symbols.size, abs=8)


def test_with_counts_frequent_symbols_cost_less(neck: EightBit) -> None:
    counts = empty_counts(1, 3)
    count_symbols(counts, 0, neck.symbols(torch.randn(64, 3, 29, 29) * 2 - 1, 0))
    tables = build_tables(neck, counts)
    assert tables.freq_ks.shape == (3, 256)
    symbols = neck.symbols(torch.randn(1, 3, 29, 29) * 2 - 1, 0)[0].int().numpy()
    assert tables.bits(symbols, 0) < 7.5 * symbols.size


def test_the_state_survives(neck: EightBit) -> None:
    other = EightBit(3)
    other.load_state_dict(neck.state_dict())
    assert np.array_equal(other.gains(), neck.gains())
    assert sorted(neck.state_dict()) == ["high", "low"]
