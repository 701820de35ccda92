"""What a stage minimises beside the rate, by its kind."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from splitcodec.model.student import Reproduced
from splitcodec.training.losses import answers, as_tuple, compare, squares
from splitcodec.training.stages import AnswersStage, DistillStage, SquaresStage, Stage


class Distortion(NamedTuple):
    """What a batch loses: the weighted sum, and its parts by name before weights."""

    total: Tensor
    parts: dict[str, Tensor]


def distortion(
    stage: Stage, reproduced: Reproduced, feature: Tensor, *, tail: nn.Module, label_b: Tensor, done: float
) -> Distortion:
    """Hold a decoded feature (and its answer by the student's own tail, if any) against the teacher's.

    `tail` is the teacher's; `done` the share of the stage behind us.
    """
    found, answer = reproduced.feature_bchw, reproduced.answer
    match stage:
        case DistillStage():
            errors = compare(tail, found, feature, behind=done >= stage.tail_from, answer=answer)
            total = stage.feature * errors.feature + stage.later * errors.later + stage.logits * errors.logits
            return Distortion(total, errors._asdict())
        case SquaresStage():
            total = squares(tail, found, feature, answer=answer)
            return Distortion(total, {"squares": total})
        case AnswersStage():
            with torch.no_grad():
                logits_t = as_tuple(tail(feature))[0]
            logits = (as_tuple(tail(found)) if answer is None else answer)[0]
            hard, soft = answers(logits, logits_t, label_b, temperature=stage.temperature)
            return Distortion(stage.hard * hard + stage.soft * soft, {"hard": hard, "soft": soft})
