from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from splitcodec.training.data import Crops
from splitcodec.training.distill import train
from splitcodec.training.levelling import Reading, held_out_loss, judged
from splitcodec.training.objective import Lost
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run

Make = Callable[[], dict[str, Any]]


def _readings(*losses: float, stage: str = "stage1", begin: int = 0, images: int = 1600) -> list[Reading]:
    last = len(losses) - 1
    return [
        {"stage": stage, "share": k / last, "images": begin + images * k // last, "loss": loss}
        for k, loss in enumerate(losses)
    ]


def _fall(readings: list[Reading], *, before: int = 0) -> float | None:
    told = judged(readings, stages=["stage1"], before=before, photographs=1)["levelling"]
    found = told["percent_of_last_doubling"]["stage1"]
    return None if found is None else float(found)


def test_a_loss_that_is_flat_at_its_end_alone_is_not_level() -> None:
    annealed = [2 - share for share in (0.0, 0.2, 0.4, 0.6, 0.8, 0.99, 1.0, 1.0, 1.0)]
    found = judged(_readings(*annealed), stages=["stage1"], before=0, photographs=1)
    assert not found["levelled"]
    assert found["levelling"]["percent_of_last_doubling"]["stage1"] == pytest.approx(20.0)
    assert _fall(_readings(3, 2, 1.5, 1.2, 1.009, 1.004, 1.002, 1, 1)) == pytest.approx(0.9)
    assert judged(_readings(3, 2, 1.5, 1.2, 1.009, 1.004, 1.002, 1, 1), stages=["stage1"], before=0, photographs=1)[
        "levelled"
    ]


def test_one_wild_reading_in_the_middle_does_not_decide() -> None:
    losses = [2.0] * 7 + [1.5, 1.0, 1.5] + [1.2] * 6 + [1.0]
    assert _fall(_readings(*losses)) == pytest.approx(50.0)
    assert _fall(_readings(3, 2, 1.5, 1.05, 1.1, 1.004, 1.002, 1, 1)) == pytest.approx(10.0)  # the one reading there


def test_a_run_from_a_finished_one_may_be_level_by_its_first_step() -> None:
    restarted = _readings(1.005, 1.3, 1.2, 1.1, 1.08, 1.06, 1.03, 1.01, 1.0)
    assert _fall(restarted) == pytest.approx(8.0)
    assert _fall(restarted, before=1600) == pytest.approx(0.5)  # as many again: one doubling
    second = _readings(1.005, 1.3, 1.2, 1.1, 1.08, 1.06, 1.03, 1.01, 1.0, begin=1600)  # what came before it counts not
    assert _fall(second, before=1600) == pytest.approx(0.5)
    assert _fall(restarted, before=4800) == pytest.approx(0.5 * 2.4094, rel=1e-3)  # a third more: far from doubled


@pytest.mark.parametrize("before", [0, 1600, 9600, 1_000_000])
def test_a_loss_that_rose_is_not_level(before: int) -> None:
    found = judged(_readings(1.0, 1.3, 1.31), stages=["stage1"], before=before, photographs=1)
    assert not found["levelled"]  # it counted as a fall of less than nothing
    assert found["levelling"]["percent_of_last_doubling"] == {"stage1": pytest.approx(-0.763) if not before else None}
    assert found["levelling"]["percent_above_lowest"] == {"stage1": pytest.approx(100 * 0.31 / 1.31, abs=1e-3)}


def test_a_loss_that_fell_and_rose_again_is_not_level() -> None:
    losses = [1.0] * 12 + [0.95, 0.9, 0.93, 0.97, 0.995]
    assert _fall(_readings(*losses)) == pytest.approx(0.5, abs=0.01)
    assert not judged(_readings(*losses), stages=["stage1"], before=0, photographs=1)["levelled"]


def test_noise_is_no_rise() -> None:
    noisy = _readings(1.0, 1.004, 0.998, 1.003, 1.001, 0.999, 1.002, 1.001, 1.003)
    for before in (0, 1600, 4800):
        found = judged(noisy, stages=["stage1"], before=before, photographs=1)
        assert found["levelled"]
        assert found["levelling"]["percent_above_lowest"]["stage1"] == pytest.approx(0.499)


def test_a_short_run_that_ends_above_its_start_is_not_level_by_that() -> None:
    """A hundredth of the pictures more and half a per cent up: -35 % for a doubling, which bounds nothing."""
    found = judged(_readings(1.0, 1.02, 1.01, 1.008, 1.005), stages=["stage1"], before=160_000, photographs=1)
    assert not found["levelled"]
    assert found["levelling"]["percent_of_last_doubling"]["stage1"] > 30  # since the middle


def test_every_stage_must_be_level_and_measured_to_its_end() -> None:
    level = _readings(1.0, 1.0, 1.0)
    falling = _readings(2.0, 1.5, 1.0, stage="stage2", begin=1600)
    assert judged(level, stages=["stage1"], before=0, photographs=1)["levelled"]
    assert not judged([*level, *falling], stages=["stage1", "stage2"], before=0, photographs=1)["levelled"]
    assert not judged(level, stages=["stage1", "stage2"], before=0, photographs=1)["levelled"]
    assert not judged(level[:2], stages=["stage1"], before=0, photographs=1)["levelled"]
    assert not judged([], stages=["stage1"], before=0, photographs=1)["levelled"]


def test_the_held_out_loss_leaves_the_student_and_chance_as_they_were(recipe: Recipe) -> None:
    from splitcodec.training.build import build_student, build_teacher

    student = build_student(recipe, build_teacher(recipe))
    student.squeeze.eval()
    modes = [part.training for part in student.modules()]
    seen: list[int] = []

    def lose(image_u8: torch.Tensor, label_b: torch.Tensor, *, done: float, rounded: bool = False) -> Lost:
        assert rounded
        assert done == 1.0
        assert not student.decoder.training
        seen.extend(label_b.tolist())
        mean = image_u8.float().mean()
        return Lost(mean, {"logits": 2 * mean}, torch.zeros(0))

    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    held = Crops(images, torch.arange(5))
    found = held_out_loss(student, lose, held, batch=4)
    assert found is not None
    assert found.loss == pytest.approx((0 + 1 + 2 + 3 + 4 + 0) / 6)
    assert found.parts == {"logits": pytest.approx(2 * found.loss)}
    assert seen == [0, 1, 2, 3, 4, 0]  # one crop twice, so that both levels get as many
    assert [part.training for part in student.modules()] == modes
    assert held_out_loss(student, lose, Crops(images[:0], torch.arange(0)), batch=4) is None


def test_a_stage_of_windows_is_measured_on_the_middles(recipe: Recipe) -> None:
    from splitcodec.training.build import build_student, build_teacher

    student, seen = build_student(recipe, build_teacher(recipe)), list[torch.Tensor]()

    def lose(image_u8: torch.Tensor, label_b: torch.Tensor, *, done: float, rounded: bool = False) -> Lost:
        seen.append(image_u8)
        return Lost(torch.zeros(()), {}, torch.zeros(0))

    images = torch.arange(2 * 3 * 6 * 6, dtype=torch.uint8).view(2, 3, 6, 6)
    for window, wanted in ((2, images[:, :, 2:4, 2:4]), (3, images[:, :, 1:4, 1:4]), (None, images)):
        seen.clear()
        held_out_loss(student, lose, Crops(images, torch.arange(2)), batch=2, window=window)
        assert torch.equal(torch.cat(seen), wanted)


def test_a_run_says_what_it_measured_and_whether_it_is_level(finished: Path) -> None:
    report = Run(finished).report()
    found = [(one["stage"], one["share"], one["images"]) for one in report["validation"]]
    assert found[:3] == [("stage1", 0.0, 0), ("stage1", 0.1667, 4), ("stage1", 0.3333, 8)]
    assert found[-4:] == [("stage2", 0.0, 24), ("stage2", 0.3333, 28), ("stage2", 0.6667, 32), ("stage2", 1.0, 36)]
    assert isinstance(report["levelled"], bool)
    assert set(report["levelling"]["percent_of_last_doubling"]) == {"stage1", "stage2"}
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["validation"] for line in lines if "validation" in line] == report["validation"]
    assert set(report["validation"][0]["parts"]) == {"feature", "later", "logits"}


def test_measuring_is_repeatable_and_survives_a_break(
    recipe: Recipe, finished: Path, photos: Path, tmp_path: Path
) -> None:
    for _ in range(20):
        if train(recipe, photos=[photos], out=tmp_path, report=lambda _: None, stop_after_s=0.0)["finished"]:
            break
    assert Run(tmp_path).report()["validation"] == Run(finished).report()["validation"]


def test_a_rate_that_cannot_change_does_not_count(recipe_data: Make, photos: Path, tmp_path: Path) -> None:
    data = recipe_data()
    data["teacher"].update(cut="blocks.2", later=["blocks.4"])
    data["student"] = {"kind": "reduced", "channels": 2, "width": 8, "decoder_width": 16}
    stage = {"kind": "distill", "images": 8, "batch": 4, "learning_rate": 1e-3, "tune": "all"}
    losses = []
    for price in (1e-3, 1e6):
        data.update(levels={"lambdas": [price], "default": 0}, stage1=stage, stage2=None)
        folder = tmp_path / f"{price:g}"
        train(Recipe.model_validate(data), photos=[photos], out=folder, report=lambda _: None)
        losses.append([one["loss"] for one in Run(folder).report()["validation"]])
    assert losses[0] == losses[1]


def test_who_has_not_seen_every_photograph_is_not_level() -> None:
    flat = _readings(*[1.0] * 9)
    seen = flat[-1]["images"]
    told = judged(flat, stages=["stage1"], before=0, photographs=seen)
    assert (told["levelled"], told["levelling"]["passes"]) == (True, 1.0)
    assert not judged(flat, stages=["stage1"], before=0, photographs=seen + 1)["levelled"]
    assert judged(flat, stages=["stage1"], before=1, photographs=seen + 1)["levelled"]
