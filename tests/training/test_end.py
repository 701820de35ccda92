"""What a run's report says of its photographs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from splitcodec.training.distill import train
from splitcodec.training.export import export
from splitcodec.training.recipe import Recipe

Make = Callable[[], dict[str, Any]]


def test_photographs_that_cannot_be_read_are_told_and_not_counted(
    tmp_path: Path, recipe_data: Make, photos: Path
) -> None:
    data = recipe_data()
    data["data"]["holdout"] = 0
    data.update(stage1={"images": 8, "batch": 4, "learning_rate": 1e-3}, stage2=None)
    recipe = Recipe.model_validate(data)
    some, told = tmp_path / "photos", list[str]()
    some.mkdir()
    for number in range(20):
        (some / f"{number:02}.png").write_bytes((photos / "01.png").read_bytes() if number != 7 else b"none")

    def once(stop_after_s: float) -> dict[str, Any]:
        out, tell = tmp_path / "run", lambda now: told.append(f"{now.stage}: {now.message}")
        return train(recipe, photos=[some], out=out, report=tell, stop_after_s=stop_after_s)

    assert not once(0.0)["finished"]  # the other session has but one step, and does not draw that one
    report = once(math.inf)
    assert (report["photographs"], report["counted"]) == (19, 19)
    assert f"photographs: 1 cannot be read and taught nothing: {some / '07.png'}" in told
    bundle = export(tmp_path / "run", tmp_path / "bundle", golden=lambda _: b"none")
    assert "on 19 unlabelled photographs" in bundle.read("MODEL_CARD.md").decode()
