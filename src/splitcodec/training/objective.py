"""What a stage minimises beside the rate, by its kind."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from splitcodec.model.student import Reproduced
from splitcodec.training.losses import answers, as_tuple, compare, squares
from splitcodec.training.stages import AnswersStage, Distilling, DistillStage, SquaresStage


class Distortion(NamedTuple):
    """What a batch loses: the weighted sum, and its parts by name before weights."""

    total: Tensor
    parts: dict[str, Tensor]


def distortion(
    stage: Distilling,
    reproduced: Reproduced,
    feature: Tensor,
    *,
    tail: nn.Module,
    label_b: Tensor,
    weight_b: Tensor,
    done: float,
) -> Distortion:
    """Hold a decoded feature (and its answer by the student's own tail, if any) against the teacher's.

    `tail` is the teacher's; `weight_b` what each picture counts (the weight of its level); `done` the share of the
    stage behind us.
    """
    found, answer = reproduced.feature_bchw, reproduced.answer
    match stage:
        case DistillStage():
            errors = compare(tail, found, feature, behind=done >= stage.tail_from, answer=answer)
            lost_b = stage.feature * errors.feature_b + stage.later * errors.later_b + stage.logits * errors.logits_b
            parts = {"feature": errors.feature_b, "later": errors.later_b, "logits": errors.logits_b}
        case SquaresStage():
            lost_b = squares(tail, found, feature, answer=answer)
            parts = {"squares": lost_b}
        case AnswersStage():
            with torch.no_grad():
                logits_t = as_tuple(tail(feature))[0]
            logits = (as_tuple(tail(found)) if answer is None else answer)[0]
            hard, soft = answers(logits, logits_t, label_b, temperature=stage.temperature)
            lost_b = stage.hard * hard + stage.soft * soft
            parts = {"hard": hard, "soft": soft}
    return Distortion((weight_b * lost_b).mean(), {name: value_b.mean() for name, value_b in parts.items()})
