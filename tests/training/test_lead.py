from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import RecipeError
from splitcodec.training.build import build_student, build_teacher
from splitcodec.training.distill import Progress, train
from splitcodec.training.export import export
from splitcodec.training.lead import Lead
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run

Make = Callable[[], dict[str, Any]]


def _thin(data: dict[str, Any], lead: Path, **changes: Any) -> dict[str, Any]:
    """Return the tiny recipe with an encoder of its own that follows a run."""
    sizes = {key: data["student"][key] for key in ("channels", "decoder")}
    student = {"kind": "patch", "patches": [{"width": 8, "kernel": 8, "stride": 8}], "blocks": 1, **sizes}
    stage = {"kind": "latents", "images": 160, "batch": 8, "learning_rate": 3e-3}
    return {**data, "name": "thin", "student": student, "lead": str(lead), "stage1": stage, **changes}


def test_a_thin_encoder_learns_another_run_s_latent(
    recipe_data: Make, finished: Path, photos: Path, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(_thin(recipe_data(), finished, stage2=None))
    losses: list[Progress] = []
    assert train(recipe, photos=[photos], out=tmp_path / "thin", report=losses.append)["finished"]
    weights, theirs = Run(tmp_path / "thin").weights(), Run(finished).weights()
    kept = [key for key in theirs if key.startswith(("decoder.", "bottleneck."))]
    assert kept
    assert all(torch.equal(weights[key], theirs[key]) for key in kept)  # nothing but the encoder has learned
    lead = Lead(finished, recipe, fabric=Fabric(accelerator="cpu"))
    pixels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    wanted = lead.latent(pixels)
    assert lead.apart(wanted, wanted).item() == 0
    assert lead.apart(wanted.mean(dim=(0, 2, 3), keepdim=True).expand_as(wanted), wanted).item() == pytest.approx(1)


def test_the_second_stage_tunes_everything_from_there(
    recipe_data: Make, finished: Path, photos: Path, tmp_path: Path
) -> None:
    data = recipe_data()
    stage2 = {**data["stage2"], "tune": "all"}
    recipe = Recipe.model_validate(_thin(data, finished, stage2=stage2))
    assert train(recipe, photos=[photos], out=tmp_path / "thin", report=lambda _: None)["finished"]
    weights, theirs = Run(tmp_path / "thin").weights(), Run(finished).weights()
    assert any(not torch.equal(weights[key], theirs[key]) for key in theirs if key.startswith("decoder."))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("levels", {"lambdas": [0.5], "default": 0}, "levels, channels or decoder differ"),
        ("lead", "nowhere", "no run in nowhere"),
    ],
)
def test_a_lead_that_does_not_fit_is_refused(
    recipe_data: Make, finished: Path, photos: Path, tmp_path: Path, key: str, value: Any, said: str
) -> None:
    recipe = Recipe.model_validate({**_thin(recipe_data(), finished, stage2=None), key: value})
    with pytest.raises(RecipeError, match=said):
        train(recipe, photos=[photos], out=tmp_path / "thin", report=lambda _: None)


def test_another_teacher_is_refused(recipe_data: Make, finished: Path) -> None:
    data = recipe_data()
    data["teacher"] = {**data["teacher"], "later": []}
    recipe = Recipe.model_validate(_thin(data, finished, stage2=None))
    with pytest.raises(RecipeError, match="another teacher section"):
        Lead(finished, recipe, fabric=Fabric(accelerator="cpu"))


def test_latents_without_a_lead_are_refused(recipe_data: Make) -> None:
    data = _thin(recipe_data(), Path("x"), stage2=None)
    del data["lead"]
    with pytest.raises(ValueError, match="needs the folder of a finished run"):
        Recipe.model_validate(data)


def test_students_can_be_built_without_the_lead(recipe_data: Make) -> None:
    recipe = Recipe.model_validate(_thin(recipe_data(), Path("gone"), stage2=None))
    assert build_student(recipe, build_teacher(recipe)).bottleneck.channels == 6


def test_the_teacher_s_layers_at_a_lower_resolution_follow_from_the_start(
    recipe_data: Make, finished: Path, photos: Path, tmp_path: Path
) -> None:
    data = recipe_data()
    student = {**data["student"], "kind": "thinned", "share": [1, 2], "widths": [12], "halvings": 1}
    del student["stem"]
    stage2 = {**data["stage2"], "tune": "all"}
    thin = {**data, "name": "thin", "student": student, "lead": str(finished), "stage2": stage2}
    thin["stage1"] = {"kind": "latents", "images": 16, "batch": 8, "learning_rate": 1e-3}
    run = Run(tmp_path / "thin")
    assert train(Recipe.model_validate(thin), photos=[photos], out=run.folder, report=lambda _: None)["finished"]
    first = json.loads((run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["stage"] == "start"
    assert 0 < first["latent"] < 1
    bundle = export(run.folder, tmp_path / "bundle", golden=lambda _: b"none")
    device, edge = Device(bundle), Edge(bundle)
    packet = device.encode(photos / "00.jpg")
    assert edge.answer(packet)["bundle"] == "thin@1"


def test_a_share_of_the_picture_is_less_than_one(recipe_data: Make) -> None:
    data = recipe_data()
    data["student"] = {"kind": "thinned", "share": [7, 5], "widths": [12], "channels": 6}
    with pytest.raises(ValueError, match="share 7 / 5"):
        Recipe.model_validate(data)


def test_a_thinned_encoder_may_end_before_the_cut(
    recipe_data: Make, finished: Path, photos: Path, tmp_path: Path
) -> None:
    data = recipe_data()
    sizes = {key: data["student"][key] for key in ("channels", "decoder")}
    student = {**sizes, "kind": "thinned", "until": "blocks.0", "share": [3, 4], "widths": [9, 12], "halvings": 2}
    stage = {"kind": "latents", "images": 16, "batch": 8, "learning_rate": 1e-3, "window": 32}
    thin = {**data, "name": "thin", "student": student, "lead": str(finished), "stage1": stage, "stage2": None}
    recipe, out = Recipe.model_validate(thin), tmp_path / "run"
    teacher = build_teacher(recipe)
    whole = build_teacher(Recipe.model_validate({**thin, "student": {**student, "until": None, "halvings": 1}}))
    assert teacher.thinned is not None
    assert (teacher.thinned.stride, teacher.stride, whole.stride) == (2, 4, 4)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(teacher.head(image), whole.head(image))  # the cut is where it was
    assert train(recipe, photos=[photos], out=out, report=lambda _: None)["finished"]
    bundle = export(out, tmp_path / "bundle", golden=lambda _: b"none")
    assert bundle.manifest.stride == 8
    assert Edge(bundle).answer(Device(bundle).encode(photos / "00.jpg"))["bundle"] == "thin@1"


@pytest.mark.parametrize(
    ("stage", "crop", "says"),
    [
        ({"window": 64}, 96, r"stage1\.window: 64 pixels times student\.share 2 / 3 .* a multiple of 48"),
        ({}, 128, r"teacher\.crop: 128 pixels times student\.share 2 / 3 .* a multiple of 48"),
    ],
)
def test_a_smaller_picture_has_whole_cells(
    recipe_data: Make, finished: Path, stage: dict[str, int], crop: int, says: str
) -> None:
    data = recipe_data()
    sizes = {key: data["student"][key] for key in ("channels", "decoder")}
    student = {**sizes, "kind": "thinned", "share": [2, 3], "widths": [12], "halvings": 1}
    data = {**data, "student": student, "stage1": {**data["stage1"], **stage}, "stage2": None}
    data["teacher"] = {**data["teacher"], "cut": "blocks.3", "later": [], "resize": 128, "crop": crop}
    recipe = Recipe.model_validate(data)
    with pytest.raises(RecipeError, match=says):
        build_student(recipe, build_teacher(recipe))


def test_channels_of_large_gains_count_more(recipe: Recipe, finished: Path) -> None:
    """By the square of the last level's gain, as their errors in symbols do."""
    lead = Lead(finished, recipe, fabric=Fabric(accelerator="cpu"))
    gain_c = torch.from_numpy(Run(finished).weights()["bottleneck.log_gain_lc"].numpy()[-1]).exp()
    random = torch.Generator().manual_seed(1)
    wanted, found = torch.randn(2, 3, len(gain_c), 4, 5, generator=random)
    error = ((found - wanted) * gain_c[:, None, None]).square().mean()
    spread = ((wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)) * gain_c[:, None, None]).square().mean()
    torch.testing.assert_close(lead.apart(found, wanted), error / spread)
