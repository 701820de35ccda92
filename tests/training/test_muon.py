"""Muon: what it takes, how large its steps are, what it is good for, that a resume goes on with it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from splitcodec.training.keys import Strict
from splitcodec.training.muon import BROAD, SIZE, Muon, evened, is_kernel
from splitcodec.training.stages import DistillStage, MuonRecipe


@pytest.mark.parametrize("shape", [(8, 8), (6, 40), (40, 6), (1, 9), (128, 160), (200, 130)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator)
    values = torch.linalg.svdvals(evened(matrix))
    assert values.min() > 0.6
    assert values.max() < 1.3
    turned = evened(matrix).flatten() @ matrix.flatten()
    assert turned > 0  # still downhill


def test_five_rounds_reach_directions_of_a_three_hundredth() -> None:
    values = torch.linalg.svdvals(evened(torch.diag(torch.tensor([1.0, 0.1, 0.0033]))))
    assert values.min() > 0.6


def test_broad_matrices_are_evened_as_narrow_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn((BROAD, 150), generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr("splitcodec.training.muon.multiplies_bf16", lambda: True)
    rough = evened(matrix)
    monkeypatch.setattr("splitcodec.training.muon.BROAD", BROAD + 1)
    exact = evened(matrix)
    assert rough.dtype == exact.dtype == torch.float32
    assert 0 < (rough - exact).norm() < 0.05 * exact.norm()  # bfloat16 was used, and its digits are enough
    monkeypatch.setattr("splitcodec.training.muon.BROAD", BROAD)
    monkeypatch.setattr("splitcodec.training.muon.multiplies_bf16", lambda: False)
    assert torch.equal(evened(matrix), exact)  # a processor that would imitate it stays with 32 bits


def test_a_gradient_of_nothing_moves_nothing() -> None:
    assert not evened(torch.zeros(4, 6)).any()


@pytest.mark.parametrize(
    ("shape", "taken"),
    [((8, 4, 1, 1), True), ((8, 4, 3, 3), True), ((8, 1, 3, 3), False), ((1, 8, 3, 3), False), ((8, 4), False)],
)
def test_kernels_that_mix_channels_are_taken(shape: tuple[int, ...], *, taken: bool) -> None:
    assert is_kernel(nn.Parameter(torch.zeros(shape))) is taken


def _muon(module: nn.Module, rate: float) -> Muon:
    return Muon([{"params": list(module.parameters())}], lr=rate, momentum=0.95, betas=(0.9, 0.99))


def test_steps_are_as_large_as_the_learning_rate_says() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 32, 3)
    before = copy.deepcopy(layer)
    optimizer = _muon(layer, 1e-2)
    layer(torch.randn(2, 16, 8, 8)).square().mean().backward()
    optimizer.step()
    moved = (layer.weight - before.weight).square().mean().sqrt().item()
    assert moved == pytest.approx(SIZE * 1e-2, rel=0.25)
    assert before.bias is not None
    assert layer.bias is not None
    assert (layer.bias - before.bias).abs().max().item() == pytest.approx(1e-2, rel=0.01)  # Adam's first step


def _lost(kind: str, *, steps: int) -> float:
    """Regress what a kernel makes of inputs whose directions differ by a hundred in size."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.logspace(0, -2, 24).view(1, 24, 1, 1)
    turn = torch.linalg.qr(torch.randn(24, 24, generator=generator))[0]

    def batch() -> Tensor:
        return torch.einsum("oc,bchw->bohw", turn, torch.randn(8, 24, 4, 4, generator=generator) * scale)

    torch.manual_seed(2)
    wanted, found = nn.Conv2d(24, 24, 1, bias=False).requires_grad_(requires_grad=False), nn.Conv2d(24, 24, 1)
    adam = torch.optim.Adam(found.parameters(), lr=0.02, betas=(0.9, 0.99))
    optimizer = _muon(found, 0.02) if kind == "muon" else adam
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / steps)
        image = batch()
        optimizer.zero_grad()
        loss = (found(image) - wanted(image)).square().mean()
        loss.backward()
        optimizer.step()
    return (found.weight - wanted.weight).square().mean().item()


def test_rare_directions_are_learned_sooner_than_by_adam() -> None:
    assert _lost("muon", steps=200) < 0.5 * _lost("adam", steps=200)


def test_a_step_remembers_the_gradients_before_it() -> None:
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn(2, 8, 4, 1, 1, generator=generator)

    def last_step(*gradients: Tensor) -> Tensor:
        kernel = nn.Parameter(torch.zeros(8, 4, 1, 1))
        optimizer = Muon([{"params": [kernel]}], lr=0.1, momentum=0.95, betas=(0.9, 0.99))
        before = kernel.detach().clone()
        for gradient in gradients:
            before = kernel.detach().clone()
            kernel.grad = gradient.clone()
            optimizer.step()
        return kernel.detach() - before

    assert not torch.allclose(last_step(first, second), last_step(second), atol=1e-3)
    mean = 0.05 * (0.95 * first + second)
    ahead = (0.05 * second + 0.95 * mean).flatten(1)  # Nesterov's
    wanted = -0.1 * SIZE * 8**0.5 * evened(ahead).view(8, 4, 1, 1)
    torch.testing.assert_close(last_step(first, second), wanted)


def test_a_resume_goes_on_as_if_nothing_had_been() -> None:
    torch.manual_seed(0)
    through, broken = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3)
    broken.load_state_dict(through.state_dict())
    images = [torch.randn(2, 4, 6, 6) for _ in range(6)]
    optimizers = [_muon(through, 0.01), _muon(broken, 0.01)]
    for index, image in enumerate(images):
        if index == 3:
            kept = copy.deepcopy(optimizers[1].state_dict())
            optimizers[1] = _muon(broken, 0.01)
            optimizers[1].load_state_dict(kept)
        for layer, optimizer in zip((through, broken), optimizers, strict=True):
            optimizer.zero_grad()
            layer(image).square().mean().backward()
            optimizer.step()
    assert torch.equal(through.weight, broken.weight)


def test_a_recipe_may_ask_for_it() -> None:
    stage = DistillStage.model_validate(
        {"images": 10, "batch": 2, "learning_rate": 1e-3, "optimizer": {"kind": "muon", "momentum": 0.9}}
    )
    assert stage.optimizer == MuonRecipe(kind="muon", momentum=0.9)
    assert isinstance(stage.optimizer, Strict)
