from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from splitcodec.training.losses import answers, compare, ramp, relative, schedule, squares, steps


class _Tail(nn.Module):
    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        return feature.mean(dim=(2, 3)), 3 * feature


def test_a_perfect_copy_loses_nothing() -> None:
    feature = torch.randn(4, 5, 6, 6)
    assert [e.tolist() for e in compare(_Tail(), feature, feature, behind=True)] == [[0, 0, 0, 0]] * 3


def test_errors_are_in_units_of_the_teacher_s_variance() -> None:
    torch.manual_seed(0)
    feature = torch.randn(8, 2, 32, 32) * torch.tensor([1.0, 100.0])[None, :, None, None]
    nothing = feature.mean(dim=(0, 2, 3), keepdim=True).expand_as(feature)
    errors = compare(_Tail(), nothing, feature, behind=False)
    assert errors.feature_b.mean().item() == pytest.approx(1.0, abs=1e-3)
    assert not errors.later_b.any()
    assert not errors.logits_b.any()
    wanted = torch.randn(4, 3, 50, 50)
    assert relative(torch.zeros_like(wanted), 7 * wanted).mean().item() == pytest.approx(1.0, abs=1e-2)


def test_a_later_layer_is_held_against_how_all_pictures_differ() -> None:
    """Not each picture's own pixels, or one that is all of a colour would count most."""
    wanted = torch.tensor([[0.0, 2.0], [10.0, 12.0]]).view(2, 1, 1, 2)
    spread = 104 / 3
    assert relative(torch.zeros_like(wanted), wanted).tolist() == pytest.approx([2 / spread, 122 / spread])


def test_a_channel_or_layer_that_is_always_the_same_divides_by_no_nought() -> None:
    flat = torch.ones(2, 3, 4, 4)
    assert all(error_b.isfinite().all() for error_b in compare(_Tail(), flat + 0.1, flat, behind=True))


def test_later_layers_add_up() -> None:
    class Two(nn.Module):
        def forward(self, feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return feature.mean(dim=(2, 3)), 3 * feature, feature.square()

    torch.manual_seed(4)
    found, feature = torch.randn(3, 5, 4, 4), torch.randn(3, 5, 4, 4)
    wanted_b = relative(3 * found, 3 * feature) + relative(found.square(), feature.square())
    torch.testing.assert_close(compare(Two(), found, feature, behind=True).later_b, wanted_b)


def test_what_another_tail_answers_is_held_against_the_teacher_s() -> None:
    torch.manual_seed(5)
    found, feature = torch.randn(3, 5, 4, 4), torch.randn(3, 5, 4, 4)
    right = compare(_Tail(), found, feature, behind=True, answer=_Tail()(feature))
    assert right.feature_b.min() > 0
    assert right.later_b.abs().max() == right.logits_b.abs().max() == 0


def test_the_answer_s_error_is_the_kl_divergence() -> None:
    torch.manual_seed(1)
    found, feature = torch.randn(3, 5, 4, 4), torch.randn(3, 5, 4, 4)
    p, q = (x.mean(dim=(2, 3)).softmax(1) for x in (feature, found))
    wanted_b = (p * (p / q).log()).sum(1)
    torch.testing.assert_close(compare(_Tail(), found, feature, behind=True).logits_b, wanted_b)


def test_a_tail_without_later_layers() -> None:
    class Plain(nn.Module):
        def forward(self, feature: Tensor) -> Tensor:
            return feature.mean(dim=(2, 3))

    errors = compare(Plain(), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), behind=True)
    assert not errors.later_b.any()
    assert (errors.logits_b > 0).all()


def test_errors_lead_back_to_the_decoded_feature() -> None:
    found = torch.randn(2, 3, 4, 4, requires_grad=True)
    errors = compare(_Tail(), found, torch.randn(2, 3, 4, 4), behind=True)
    torch.autograd.backward([error_b.sum() for error_b in errors])
    assert found.grad is not None
    assert found.grad.abs().sum() > 0


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    assert schedule(0.0, 0.1) == 0
    assert schedule(0.05, 0.1) == pytest.approx(0.5)
    assert schedule(0.1, 0.1) == pytest.approx(1.0)
    assert schedule(0.55, 0.1) == pytest.approx(0.5)
    assert schedule(1.0, 0.1) == pytest.approx(0.0)
    assert schedule(0.0, 0.0) == 1
    assert schedule(1.3, 0.1) == pytest.approx(0.0)  # a stage by the clock may end a little late


def test_squares_are_summed_over_layers() -> None:
    torch.manual_seed(2)
    found, feature = torch.randn(3, 5, 4, 4), torch.randn(3, 5, 4, 4)
    wanted_b = (found - feature).square().sum(dim=(1, 2, 3)) * (1 + 9)
    torch.testing.assert_close(squares(_Tail(), found, feature), wanted_b)
    other = (found.mean(dim=(2, 3)), 3 * feature)  # of another tail, whose later layer is right
    torch.testing.assert_close(squares(_Tail(), found, feature, answer=other), wanted_b / 10)


def test_answers_are_held_against_labels_and_the_teacher() -> None:
    torch.manual_seed(3)
    logits, logits_t = torch.randn(6, 4), torch.randn(6, 4)
    label_b = torch.tensor([0, 3, -1, 2, -1, 1])
    hard, soft = answers(logits, logits_t, label_b, temperature=3.0)
    best = logits_t.argmax(1)
    known = torch.tensor([0, 3, int(best[2]), 2, int(best[4]), 1])
    torch.testing.assert_close(hard, -logits.log_softmax(1)[torch.arange(6), known])
    p, q = (logits_t / 3).softmax(1), (logits / 3).softmax(1)
    torch.testing.assert_close(soft, 9 * (p * (p / q).log()).sum(1))


def test_steps_fall_where_they_are_told() -> None:
    found = [steps(done, 0.1, at=(0.5, 0.8), factor=0.1) for done in (0.05, 0.1, 0.49, 0.5, 0.79, 0.8, 1.0)]
    assert found == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_rate_rises_by_equal_factors_to_its_full_weight() -> None:
    found = [ramp(done, 0.25) for done in (0.0, 0.0625, 0.125, 0.1875, 0.25, 0.9)]
    assert found[0] == pytest.approx(0.02)
    assert found[4:] == [1.0, 1.0]
    factors = [b / a for a, b in itertools.pairwise(found[:5])]
    assert factors == pytest.approx([factors[0]] * 4)
    assert ramp(0.0, 0.0) == 1.0
