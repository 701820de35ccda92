"""What the heads for label maps make of them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as nnf

from splitcodec.model.pyramid import Level
from splitcodec.model.segmenter import VOID, DeepLab, Segmenter

LEVELS = (Level(6, 8), Level(10, 16), Level(12, 32))
SIZE = (40, 64)


@pytest.fixture(params=[Segmenter, DeepLab])
def head(request: pytest.FixtureRequest) -> Segmenter | DeepLab:
    torch.manual_seed(0)
    made: Segmenter | DeepLab = request.param(LEVELS, 3, width=8, weights=torch.tensor([1.0, 2.0, 0.5]))
    return made.eval()


def maps() -> list[torch.Tensor]:
    return [torch.randn(2, level.width, -(-SIZE[0] // level.stride), -(-SIZE[1] // level.stride)) for level in LEVELS]


def test_pixels_that_are_void_do_not_count(head: Segmenter | DeepLab) -> None:
    raw = head(maps())
    truth = torch.randint(0, 3, (2, *SIZE))
    truth[1, :, 20:] = VOID
    large = nnf.interpolate(raw.class_bkhw, size=(20, 32), mode="bilinear", align_corners=False)
    some = truth[:, ::2, ::2]
    known = some != VOID
    weight = torch.tensor([1.0, 2.0, 0.5])[some[known]]
    nats = -large.log_softmax(1).permute(0, 2, 3, 1)[known].gather(1, some[known][:, None])[:, 0]
    torch.testing.assert_close(head.loss(raw, truth, size=SIZE)["class"], (weight * nats).sum() / weight.sum())


def test_a_batch_that_is_all_void_teaches_nothing(head: Segmenter | DeepLab) -> None:
    """Its loss was no number, and the run ended with the advice of a lower learning rate."""
    loss = head.loss(head(maps()), torch.full((2, *SIZE), VOID), size=SIZE)["class"]
    assert loss.item() == 0
    torch.autograd.backward(loss)
    assert all(one.grad is None or not one.grad.any() for one in head.parameters())


def test_what_the_teacher_says_is_not_apart_from_itself(head: Segmenter | DeepLab) -> None:
    raw, other = head(maps()), head(maps())
    assert sum(part.item() for part in head.apart(raw, raw, size=SIZE).values()) == pytest.approx(0, abs=1e-6)
    assert all(part.item() > 0 and math.isfinite(part.item()) for part in head.apart(raw, other, size=SIZE).values())
