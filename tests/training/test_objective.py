"""What a stage minimises: what bytes are worth beside errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from splitcodec.model.student import Reproduced
from splitcodec.training.objective import Objective, distortion
from splitcodec.training.recipe import Recipe
from splitcodec.training.stages import AnswersStage, DistillStage, PixelsStage

Make = Callable[[], dict[str, Any]]
_LEVELS = 2


class _Costly(nn.Module):
    """Reproduces everything, at a bit a pixel."""

    def forward(self, image_bchw: Tensor, *, quantise: str, answer: bool) -> Reproduced:
        del quantise, answer
        return Reproduced(image_bchw, torch.full((len(image_bchw),), float(image_bchw[0, 0].numel())))


@pytest.mark.parametrize(("kind", "share"), [("distill", 1.0), ("pixels", 1.0), ("squares", 0.25)])
def test_a_window_s_bytes_count_as_its_errors_do(recipe_data: Make, kind: str, share: float) -> None:
    """A mean error does not tell how many places there were: a quarter of a picture's bytes was cheaper by that."""
    data = recipe_data()
    data["teacher"]["later"] = []
    data["stage2"] = None
    if kind == "pixels":
        data["student"] = {"kind": "image", "width": 8, "channels": 6}
    stage = {"kind": kind, "images": 8, "batch": 4, "learning_rate": 1e-3}
    whole, window = (
        Recipe.model_validate({**data, "stage1": {**stage, "window": side}})
        for side in (None, data["teacher"]["crop"] // 2)
    )
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    same: Any = SimpleNamespace(scale=Tensor.float, stem=nn.Identity(), rest=nn.Identity(), tail=pooled)
    prices = []
    for recipe in (whole, window):
        side = recipe.stage1.window or recipe.teacher.crop
        image_u8 = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
        objective = Objective(Fabric(accelerator="cpu", devices=1), recipe, halves=same, lead=None)
        lose = objective.of("stage1", recipe.stage1, _Costly())
        prices.append(lose(image_u8, torch.zeros(4, dtype=torch.int64), done=1.0).loss.item())
    assert prices[0] == pytest.approx(sum(whole.levels.prices) / _LEVELS * whole.teacher.crop**2 / 8000, rel=1e-5)
    assert prices[1] == pytest.approx(share * prices[0], rel=1e-5)


class _WrongAtLevel(nn.Module):
    """Reproduces the pictures of one level with an error of 2 everywhere, the others rightly, all for no bits."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def forward(self, image_bchw: Tensor, *, quantise: str, answer: bool) -> Reproduced:
        del quantise, answer
        wrong_b = torch.arange(len(image_bchw)) // (len(image_bchw) // _LEVELS) == self.level
        return Reproduced(image_bchw + 2.0 * wrong_b[:, None, None, None], torch.zeros(len(image_bchw)))


@pytest.mark.parametrize("level", range(_LEVELS))
def test_a_picture_counts_by_its_own_level_s_weight(recipe_data: Make, level: int) -> None:
    data = recipe_data()
    data["teacher"]["later"] = []
    stage = {"kind": "squares", "images": 8, "batch": 4, "learning_rate": 1e-3, "balance": 0.5}
    recipe = Recipe.model_validate({**data, "stage1": stage, "stage2": None})
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    same: Any = SimpleNamespace(scale=Tensor.float, stem=nn.Identity(), rest=nn.Identity(), tail=pooled)
    objective = Objective(Fabric(accelerator="cpu", devices=1), recipe, halves=same, lead=None)
    lose = objective.of("stage1", recipe.stage1, _WrongAtLevel(level))
    weights = recipe.levels.weights(recipe.stage1.balance)
    assert weights[0] != weights[1]
    lost = lose(torch.zeros(4, 3, 5, 5, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), done=1.0).loss.item()
    assert lost == pytest.approx(weights[level] * 4 * 75 / _LEVELS, rel=1e-5)


def _one_pixel(stage: Any, *, found: float, feature: float, done: float = 1.0, **changes: Any) -> float:
    """Return what two pictures of two pixels lose, which count 0.5 and 1.5."""
    feature_bchw = torch.tensor([[feature, -feature]]).view(1, 1, 1, 2).repeat(2, 1, 1, 1)
    reproduced = Reproduced(feature_bchw + found, torch.zeros(2))
    total, _ = distortion(
        stage,
        reproduced,
        feature_bchw,
        tail=_Answering(),
        label_b=torch.tensor([0, 1]),
        weight_b=torch.tensor([0.5, 1.5]),
        done=done,
        **changes,
    )
    return total.item()


class _Answering(nn.Module):
    """Answers by the first pixel, and names twice the feature as a later layer."""

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        first = feature[:, 0, 0, :1]
        return torch.cat((first, -first), 1), 2 * feature


def _stage(kind: str, **keys: Any) -> Any:
    kinds: dict[str, Any] = {"distill": DistillStage, "answers": AnswersStage, "pixels": PixelsStage}
    return kinds[kind].model_validate({"kind": kind, "images": 8, "batch": 4, "learning_rate": 1e-3, **keys})


def _divergence(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def _first(logit: float, temperature: float = 1.0) -> float:
    return 1 / (1 + math.exp(-2 * logit / temperature))


def test_errors_count_by_the_weights_of_their_stage() -> None:
    """An error of 0.3 on pixels of 1 and -1, whose variance over four is 4/3."""
    wanted = {"feature": 0.09 / (4 / 3), "later": 0.36 / (4 * 4 / 3), "logits": _divergence(_first(1.0), _first(1.3))}
    for name, value in wanted.items():
        weights = {other: 7.0 if other == name else 0.0 for other in wanted}
        assert _one_pixel(_stage("distill", **weights), found=0.3, feature=1.0) == pytest.approx(7 * value, rel=1e-4)
    late = _stage("distill", feature=1.0, later=5.0, logits=5.0, tail_from=0.5)
    assert _one_pixel(late, found=0.3, feature=1.0, done=0.49) == pytest.approx(wanted["feature"], rel=1e-4)
    assert _one_pixel(late, found=0.3, feature=1.0, done=0.5) > 2 * wanted["feature"]


def test_labels_and_the_teacher_s_answer_count_by_theirs() -> None:
    """The second picture's label is wrong, and that picture counts three times as much."""
    hard = -0.25 * math.log(_first(1.3)) - 0.75 * math.log(1 - _first(1.3))
    stage = _stage("answers", hard=3.0, soft=0.0)
    assert _one_pixel(stage, found=0.3, feature=1.0) == pytest.approx(3 * hard, rel=1e-4)
    soft = 4 * _divergence(_first(1.0, 2.0), _first(1.3, 2.0))
    stage = _stage("answers", hard=0.0, soft=3.0, temperature=2.0)
    assert _one_pixel(stage, found=0.3, feature=1.0) == pytest.approx(3 * soft, rel=1e-4)


def test_pixels_are_held_apart_in_steps_of_8_bits() -> None:
    assert _one_pixel(_stage("pixels"), found=0.3, feature=1.0, step_c=(0.1,)) == pytest.approx(9.0, rel=1e-4)


class _Told(nn.Module):
    """Reproduces everything at 8,000 bits, and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, bool]] = []

    def forward(self, image_bchw: Tensor, *, quantise: str, answer: bool) -> Reproduced:
        self.asked.append((quantise, answer))
        return Reproduced(image_bchw, torch.full((len(image_bchw),), 8000.0))


def test_what_is_priced_and_how_symbols_are_rounded_follows_what_learns(recipe_data: Make) -> None:
    data = recipe_data()
    data["teacher"]["later"] = []
    data["levels"] = {"lambdas": [0.5], "default": 0}
    stage = {"kind": "squares", "images": 8, "batch": 4, "learning_rate": 1e-3}
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    same: Any = SimpleNamespace(scale=Tensor.float, stem=nn.Identity(), rest=nn.Identity(), tail=pooled)

    def lost(name: str, *, done: float = 1.0, rounded: bool = False, **changes: Any) -> tuple[object, str, bool]:
        stages = {"stage1": stage, "stage2": stage} | {name: {**stage, **changes}}
        recipe = Recipe.model_validate({**data, **stages})
        model = _Told()
        objective = Objective(Fabric(accelerator="cpu", devices=1), recipe, halves=same, lead=None)
        lose = objective.of(name, dict(recipe.stages())[name], model)
        pixels, labels = torch.zeros(4, 3, 5, 5, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
        return (lose(pixels, labels, done=done, rounded=rounded).loss.item(), *model.asked[0])

    assert lost("stage1") == (pytest.approx(0.5), "mixed", False)
    assert lost("stage1", done=0.0) == (pytest.approx(0.01), "mixed", False)  # prices rise in the first stage alone
    assert lost("stage2", done=0.0, tune="all") == (pytest.approx(0.5), "mixed", False)
    assert lost("stage1", tune="encoder") == (pytest.approx(0.5), "mixed", False)
    assert lost("stage2") == (0.0, "round", False)
    assert lost("stage2", tail=True) == (0.0, "round", True)
    assert lost("stage1", quantise="noise") == (pytest.approx(0.5), "noise", False)
    assert lost("stage1", quantise="noise", rounded=True)[1] == "round"


class _Remembers(nn.Module):
    """Reproduces what it sees, and remembers it."""

    def forward(self, image_bchw: Tensor, *, quantise: str, answer: bool) -> Reproduced:
        del quantise, answer
        self.seen = image_bchw
        return Reproduced(image_bchw, torch.zeros(len(image_bchw)))


@pytest.mark.parametrize("kind", ["squares", "latents"])
def test_what_disturbs_is_on_what_the_student_sees_and_not_on_what_it_is_held_against(
    recipe_data: Make, kind: str
) -> None:
    data = recipe_data()
    data["teacher"]["later"] = []
    stage = {"kind": kind, "images": 8, "batch": 4, "learning_rate": 1e-3}
    lead = {"lead": "somewhere"} if kind == "latents" else {}
    recipe = Recipe.model_validate({**data, **lead, "data": {"disturbed": 1.0}, "stage1": stage, "stage2": None})
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    same: Any = SimpleNamespace(scale=Tensor.float, stem=nn.Identity(), rest=nn.Identity(), tail=pooled)
    held: list[Tensor] = []

    def apart(latent: Any, wanted: Tensor) -> Tensor:
        held.append(wanted)
        return torch.as_tensor((latent.feature_bchw - wanted).square().mean())

    leading: Any = SimpleNamespace(latent=Tensor.float, apart=apart)
    model = _Remembers()
    called = (lambda image: _Remembers.forward(model, image, quantise="round", answer=False)) if lead else model
    objective = Objective(Fabric(accelerator="cpu", devices=1), recipe, halves=same, lead=leading)
    lose = objective.of("stage1", recipe.stage1, called)  # type: ignore[arg-type]  # either is called with a picture
    torch.manual_seed(3)
    image_u8 = torch.randint(256, (4, 3, 64, 64)).to(torch.uint8)
    assert lose(image_u8, torch.zeros(4, dtype=torch.int64), done=1.0).loss > 0
    assert all(torch.equal(one, image_u8.float()) for one in held)
    assert not torch.equal(model.seen, image_u8.float())
    assert lose(image_u8, torch.zeros(4, dtype=torch.int64), done=1.0, rounded=True).loss == 0  # judged without chance
