"""How stages learn: which parameters, how fast, what is kept of the means. No training here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.student import Student
from splitcodec.model.transforms import Decoder
from splitcodec.training.optimise import learning_rate, prepare
from splitcodec.training.stages import DistillStage, LatentsStage
from splitcodec.training.task_optimise import average, optimizer_of, rate_at, share_kept, thaw
from splitcodec.training.task_recipe import TaskStage


def _student(*, tail: bool = False) -> Student:
    decoder = Decoder(4, 6, width=8, blocks=1, up=1, up_width=8, up_blocks=0, linear=True, adapt=False)
    return Student(nn.Conv2d(3, 4, 1), Bottleneck(2, 4), decoder, tail=nn.Linear(6, 2) if tail else None)


def _rates(student: Student, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return by the names of the student's parameters how many times the stage's learning rate they learn at."""
    times = {id(one): group["times"] for group in optimizer.param_groups for one in group["params"]}
    return {name: times[id(one)] for name, one in student.named_parameters() if id(one) in times}


def test_priors_and_gains_learn_at_rates_of_their_own() -> None:
    student = _student()
    stage = DistillStage(images=8, batch=4, learning_rate=1e-3, prior_rate=11.0, gain_rate=7.0)
    found = _rates(student, prepare(student, stage, everything=True))
    assert found.keys() == dict(student.named_parameters()).keys()
    for name, rate in found.items():
        wanted = 11.0 if ".prior." in name else 7.0 if "log_gain" in name else 1.0
        assert rate == wanted, name


@pytest.mark.parametrize(
    ("changes", "everything", "learns"),
    [
        ({}, True, {"squeeze", "bottleneck", "decoder"}),
        ({}, False, {"decoder"}),
        ({"tail": True}, False, {"decoder", "tail"}),
        ({"tune": "encoder"}, True, {"squeeze", "bottleneck"}),
    ],
)
def test_what_does_not_learn_is_held_still(changes: dict[str, object], everything: bool, learns: set[str]) -> None:
    """Without a gradient, without running means that move, and in no group: Adam's decay would move it."""
    student = _student(tail=True)
    stage = DistillStage.model_validate({"images": 8, "batch": 4, "learning_rate": 1e-3, **changes})
    found = _rates(student, prepare(student, stage, everything=everything))
    assert {name.partition(".")[0] for name in found} == learns
    for name, part in student.named_children():
        assert part.training == (name in learns)
        assert all(one.requires_grad == (name in learns) for one in part.parameters())


def test_an_encoder_that_is_led_learns_alone() -> None:
    student = _student()
    stage = LatentsStage(kind="latents", images=8, batch=4, learning_rate=1e-3)
    found = _rates(student, prepare(student, stage, everything=True))
    assert {name.partition(".")[0] for name in found} == {"squeeze"}
    assert set(found.values()) == {1.0}
    assert student.squeeze.training
    assert not student.bottleneck.training
    assert not student.decoder.training


def test_learning_rates_follow_the_stage_s_schedule() -> None:
    keys = {"batch": 4, "learning_rate": 1e-3, "warmup": 0.2}
    falls = {"schedule": {"kind": "steps", "at": [0.5], "factor": 0.25}}
    at = (0.1, 0.2, 0.6, 1.0)
    cosine, falling = (DistillStage.model_validate({"images": 8, **keys, **more}) for more in ({}, falls))
    assert [learning_rate(cosine, done) for done in at] == pytest.approx([0.5, 1.0, 0.5, 0.0])
    assert [learning_rate(falling, done) for done in at] == pytest.approx([0.5, 1.0, 0.25, 0.25])
    head, steps = (TaskStage.model_validate({**keys, **more}) for more in ({}, falls))
    assert [rate_at(head, done) for done in at] == pytest.approx([0.5, 1.0, 0.5, 0.0])
    assert [rate_at(steps, done) for done in at] == pytest.approx([0.5, 1.0, 0.25, 0.25])


def test_running_means_keep_their_share_and_counts_are_taken_over() -> None:
    old, new = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    nn.init.constant_(new.weight, 5.0)
    new.get_buffer("num_batches_tracked").fill_(9)
    average({"head": old}, {"head": new}, share=0.75)
    torch.testing.assert_close(old.weight.detach(), torch.tensor([2.0, 2.0]))  # of 1 and 5
    assert old.get_buffer("num_batches_tracked") == 9


def test_the_beginning_is_forgotten() -> None:
    assert [share_kept(0.99, step) for step in (0, 1, 8, 10_000)] == [0.1, 2 / 11, 0.5, 0.99]
    assert share_kept(0.0, 8) == 0.0  # no means: the weights themselves


def test_weight_decay_is_for_kernels_and_the_means_are_held() -> None:
    learning: dict[str, nn.Module] = {"head": nn.Conv2d(3, 4, 1), "backbone": nn.BatchNorm2d(4)}
    frozen: dict[str, nn.Module] = {"head": nn.Conv2d(3, 4, 1)}
    thaw(learning, frozen=frozen)
    assert [part.training for part in learning.values()] == [True, False]  # a backbone's batch norm stays as it is
    assert all(one.requires_grad for part in learning.values() for one in part.parameters())
    assert not any(one.requires_grad for one in frozen["head"].parameters())
    assert not frozen["head"].training
    stage = TaskStage.model_validate(
        {"batch": 4, "learning_rate": 0.1, "optimizer": {"kind": "adam", "weight_decay": 0.3}}
    )
    optimizer = optimizer_of(stage, learning)
    decays = {id(one): group["weight_decay"] for group in optimizer.param_groups for one in group["params"]}
    found = [decays[id(one)] for part in learning.values() for one in part.parameters()]
    assert found == [0.3, 0.0, 0.0, 0.0]
    kernel: Tensor = next(learning["head"].parameters())
    before = kernel.detach().clone()
    for part in learning.values():
        for one in part.parameters():
            one.grad = torch.zeros_like(one)
    optimizer.step()
    torch.testing.assert_close(kernel.detach(), before * (1 - 0.1 * 0.3))
