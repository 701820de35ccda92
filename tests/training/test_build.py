from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from splitcodec.device.client import Device
from splitcodec.errors import RecipeError
from splitcodec.training.build import build_student, build_teacher, class_names
from splitcodec.training.distill import train
from splitcodec.training.export import export
from splitcodec.training.recipe import Recipe
from splitcodec.wire.manifest import Colour


def test_each_colour_may_have_its_own_scale(
    recipe_data: Callable[[], dict[str, Any]], photos: Path, tmp_path: Path
) -> None:
    data = recipe_data()
    plain = build_teacher(Recipe.model_validate(data))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    data["teacher"].update(mean=mean, std=std)
    data["stage1"]["images"] = data["stage2"]["images"] = 4
    recipe = Recipe.model_validate(data)
    teacher = build_teacher(recipe)
    image = torch.rand(2, 3, 64, 64)
    scaled = torch.stack([(image[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(teacher.head(image), plain.head(scaled))
    train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None)
    bundle = export(tmp_path / "run", tmp_path / "bundle", golden=lambda _: b"none")
    assert bundle.manifest.colour == Colour(scale=1 / 255, offset=0.0)
    assert Device(bundle).encode(next(photos.glob("*.png")))


def test_class_names_may_begin_with_a_byte_order_mark(
    recipe_data: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    data = recipe_data()
    data["teacher"]["classes"] = str(tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("cat\ndog\n", encoding="utf-8-sig")
    assert class_names(Recipe.model_validate(data)) == (["cat", "dog"], [])


def test_a_window_has_whole_cells_of_the_latent(recipe_data: Callable[[], dict[str, Any]]) -> None:
    """A later stage of such windows ended a run in a traceback, decoded features being wider than the teacher's."""
    data = recipe_data()
    data["student"].update(widths=[12] * 4, halvings=4)
    data["stage2"]["window"] = 48
    recipe = Recipe.model_validate(data)
    with pytest.raises(RecipeError, match=r"stage2\.window: 48 pixels with a latent of stride 32; .*multiple of it"):
        build_student(recipe, build_teacher(recipe))
