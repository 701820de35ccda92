from __future__ import annotations

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.fisher import fisher_metric
from splitcodec.model.linear import reduced_rank
from splitcodec.model.student import Student
from splitcodec.model.transforms import Decoder, Squeeze


class _Tail(nn.Module):
    """A classifier of three classes that looks at the first of four channels, and hardly at the second."""

    def forward(self, feature_bchw: Tensor) -> tuple[Tensor, Tensor]:
        seen_b, glanced_b = feature_bchw[:, :2].mean((2, 3)).unbind(1)
        return torch.stack([seen_b, -seen_b, 0.5 * seen_b + 0.01 * glanced_b], 1) * 4, feature_bchw


@pytest.fixture
def feature_bchw() -> Tensor:
    """Return four independent channels; those that no answer depends on vary most."""
    torch.manual_seed(5)
    return torch.randn(48, 4, 6, 6) * torch.tensor([1.0, 8.0, 5.0, 3.0])[:, None, None]


def test_a_metric_is_symmetric_and_has_its_inverse(feature_bchw: Tensor) -> None:
    metric = fisher_metric(_Tail(), feature_bchw, torch.ones(4), up=2)
    assert metric.root_dd.shape == (16, 16)
    assert torch.allclose(metric.root_dd, metric.root_dd.T)
    assert torch.allclose(metric.root_dd @ metric.inverse_dd, torch.eye(16, dtype=torch.float64), atol=1e-6)


def test_it_weighs_what_the_answer_sees(feature_bchw: Tensor) -> None:
    worth_d = (m := fisher_metric(_Tail(), feature_bchw, torch.ones(4), up=1).root_dd) @ m
    assert worth_d[0, 0] > 50 * worth_d.diagonal()[1:].max()
    assert worth_d.diagonal().mean().item() == pytest.approx(1.0, abs=0.05)


def test_the_same_seed_gives_the_same_metric(feature_bchw: Tensor) -> None:
    first, same = (fisher_metric(_Tail(), feature_bchw, torch.ones(4), up=1, seed=3).root_dd for _ in range(2))
    other = fisher_metric(_Tail(), feature_bchw, torch.ones(4), up=1, seed=4).root_dd
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("by_answer", "kept"), [(True, 0), (False, 1)])
def test_a_code_of_one_number_keeps_what_its_metric_counts(feature_bchw: Tensor, by_answer: bool, kept: int) -> None:
    metric = fisher_metric(_Tail(), feature_bchw, torch.ones(4), up=1) if by_answer else None
    wanted = feature_bchw - feature_bchw.mean((0, 2, 3), keepdim=True)
    found = reduced_rank(feature_bchw, wanted, rank=1, down=1, up=1, metric=metric)
    assert found.encode_kcrs[0, :, 0, 0].abs().argmax() == kept
    back = nnf.conv2d(nnf.conv2d(feature_bchw, found.encode_kcrs, found.bias_k), found.decode_ok[:, :, None, None])
    assert (back - wanted)[:, kept].var() < 0.1 * wanted[:, kept].var()  # its own scale comes back


def test_a_student_aimed_by_the_answer_answers_better(feature_bchw: Tensor) -> None:
    def lost(tail: nn.Module | None) -> float:
        student = Student(
            Squeeze(4, 1, widths=(4,), halvings=0, linear=True),
            Bottleneck(1, 1, first_gain=100.0, last_gain=100.0),
            Decoder(1, 4, width=4, blocks=0, up=1, up_width=4, up_blocks=0, linear=True),
        )
        student.aim_at(feature_bchw, feature_bchw, tail=tail)
        with torch.no_grad():
            found = student.reproduce(student.symbols(feature_bchw, 0), 0)
            ours, theirs = (_Tail()(one)[0].log_softmax(1) for one in (found, feature_bchw))
        return nnf.kl_div(ours, theirs, log_target=True, reduction="batchmean").item()

    assert lost(_Tail()) < 0.1 * lost(None)
