from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from splitcodec.edge.decoder import Decoder
from splitcodec.errors import BundlePart, OutputError, RecipeError, RunError, SettingsError
from splitcodec.layouts.folders import find_photographs
from splitcodec.model.student import Student
from splitcodec.model.transforms import Decoder as TorchDecoder
from splitcodec.training.build import Halves, build_student, build_teacher
from splitcodec.training.data import centre_crops
from splitcodec.training.distill import train
from splitcodec.training.earlier import tunes_decoder_alone
from splitcodec.training.from_bundle import begin_from_bundle, fit_prior, layer_weights
from splitcodec.training.from_onnx import FromOnnx
from splitcodec.training.lead import Lead
from splitcodec.training.recipe import Recipe
from splitcodec.training.redecode import redecode
from splitcodec.training.run import Run
from splitcodec.wire.bundle import Bundle, device_half

Make = Callable[[], dict[str, Any]]


@pytest.fixture(scope="module")
def crops(recipe: Recipe, photos: Path) -> torch.Tensor:
    return centre_crops(find_photographs([photos])[:8], resize=72, crop=64).image_u8


@pytest.fixture(scope="module")
def pair(recipe: Recipe, finished: Path, bundle: Bundle, crops: torch.Tensor) -> tuple[Student, Student, torch.Tensor]:
    """Return the student of the run, that of its bundle, and what both encoders take of some crops."""
    teacher = build_teacher(recipe)
    run, found = build_student(recipe, teacher), build_student(recipe, teacher)
    run.load_state_dict(Run(finished).weights())
    stem, _ = Halves(Fabric(accelerator="cpu"), recipe, teacher=teacher).stem_and_feature(crops)
    begin_from_bundle("start", bundle, found, stem)
    return run.eval(), found, stem


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).std() / one.std()).item()


@torch.no_grad()
def test_a_bundle_gives_its_student_back(pair: tuple[Student, Student, torch.Tensor]) -> None:
    run, found, stem = pair
    found.eval()
    assert _apart(run.latent(stem), found.latent(stem)) < 2e-3
    for level in (0, 1):
        symbols = run.symbols(stem, level)
        assert _apart(run.reproduce(symbols, level), found.reproduce(symbols, level)) < 2e-3


@torch.no_grad()
def test_batch_norm_is_settled_so_that_training_goes_on_where_it_was(
    pair: tuple[Student, Student, torch.Tensor],
) -> None:
    _, found, stem = pair
    still = found.eval()(stem, quantise="round").feature_bchw
    learning = found.train()(stem, quantise="round").feature_bchw
    found.eval()
    assert _apart(still, learning) < 0.01


def test_priors_cost_what_the_tables_cost(bundle: Bundle, pair: tuple[Student, Student, torch.Tensor]) -> None:
    from splitcodec.model.bottleneck import Bottleneck

    bottleneck = pair[1].bottleneck
    assert isinstance(bottleneck, Bottleneck)
    assert fit_prior(bottleneck, bundle.tables[0]) < 0.02
    assert np.allclose(bottleneck.gains(), bundle.tables[0].gain_lc, rtol=1e-5)


def test_a_run_starts_from_a_bundle_and_counts_its_pictures(
    recipe_data: Make, bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate({**recipe_data(), "name": "next", "start": str(bundle.path), "stage2": None})
    report = train(recipe, photos=[photos], out=tmp_path / "next", report=lambda _: None)
    assert report["images_cumulative"] == report["images"] + 36
    assert [(one["key"], one["recipe"]) for one in report["builds_on"]] == [("start", "tiny-run@1")]


def test_an_old_bundle_s_decoder_learns_to_adapt(
    recipe_data: Make, bundle: Bundle, finished: Path, photos: Path, tmp_path: Path
) -> None:
    data = recipe_data()
    student = {**data["student"], "decoder": {**data["student"]["decoder"], "adapt": True}}
    stage = {**data["stage1"], "tune": "decoder"}
    data = {**data, "name": "next", "student": student, "start": str(bundle.path), "stage1": stage, "stage2": None}
    recipe = Recipe.model_validate({**data, "data": {**data["data"], "disturbed": 0.5}})
    train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None)

    def remade(old: Bundle, new: Bundle) -> dict[str, bytes]:
        assert (old.fingerprint, old.graph("encoder")) == (new.fingerprint, new.graph("encoder"))
        return {"golden/vectors.npz": b"anew"}

    found = redecode(bundle, [tmp_path / "run"], tmp_path / "bundle", remade=remade)
    assert tunes_decoder_alone(Run(tmp_path / "run").recipe())  # so `train` names `redecode` as what is next
    assert not tunes_decoder_alone(Run(finished).recipe())
    assert found.manifest.version == bundle.manifest.version + 1
    assert found.manifest.provenance["report"]["images_cumulative"] == 36 + stage["images"]
    assert found.fingerprint == bundle.fingerprint  # packets are the same, so devices need not know
    run = build_student(recipe, build_teacher(recipe))
    run.load_state_dict(Run(tmp_path / "run").weights())
    assert isinstance(run.decoder, TorchDecoder)
    assert run.decoder.film is not None
    assert next(run.decoder.film.factors[0].parameters()).any()
    ours, theirs = Decoder(found), FromOnnx(found.graph("decoder"), name="decoder.onnx")
    for rows, cols in ((8, 8), (5, 7)):
        symbols = torch.randint(-2, 3, (1, run.bottleneck.channels, rows, cols))
        wanted = run.eval().reproduce(symbols.float(), 1)
        latent = ours.latent_chw(symbols[0].numpy().astype(np.int32), 1)[None]
        assert _apart(wanted, torch.from_numpy(ours.features_bchw(latent))) < 2e-3
        assert _apart(wanted, theirs(torch.from_numpy(latent))) < 2e-3
    assert found.read("golden/vectors.npz") == b"anew"
    assert (
        "pictures more, 50 % of them noisy, blurred, flat or badly lit: packets" in found.read("MODEL_CARD.md").decode()
    )
    with pytest.raises(RunError, match="lacks layers of the run's; leave the share out"):
        redecode(bundle, [tmp_path / "run"], tmp_path / "no", remade=remade, share=0.5)
    with pytest.raises(RunError, match="it began with the decoder of"):
        redecode(found, [tmp_path / "run"], tmp_path / "no", remade=remade)
    with pytest.raises(BundlePart, match="half"):
        redecode(device_half(bundle), [tmp_path / "run"], tmp_path / "no", remade=remade)
    with pytest.raises(RunError, match="splitcodec export"):
        redecode(bundle, [finished], tmp_path / "no", remade=remade)
    with pytest.raises(OutputError, match="exists"):
        redecode(bundle, [tmp_path / "run"], tmp_path / "bundle", remade=remade)
    with pytest.raises(RunError, match="at least one"):
        redecode(bundle, [], tmp_path / "no", remade=remade)
    (tmp_path / "run" / "report.json").unlink()
    with pytest.raises(RunError, match="has not finished"):
        redecode(bundle, [tmp_path / "run"], tmp_path / "no", remade=remade)


def test_of_several_decoders_the_mean_is_taken(recipe_data: Make, bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    data = recipe_data()
    stage = {**data["stage1"], "tune": "decoder"}
    data = {**data, "name": "next", "start": str(bundle.path), "stage1": stage, "stage2": None}
    runs = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(runs):
        train(Recipe.model_validate({**data, "seed": seed}), photos=[photos], out=folder, report=lambda _: None)
    found = redecode(bundle, runs, tmp_path / "bundle", remade=lambda old, new: {})
    one, two = (Run(folder).weights()["decoder.layers.0.0.weight"] for folder in runs)
    assert not torch.equal(one, two)
    (note_one, note_two) = found.manifest.provenance["redecoded"]["mean_of"]
    assert note_one["began_with"] == note_two["began_with"] == bundle.ident
    report = found.manifest.provenance["report"]
    assert report["images"] == 2 * stage["images"]
    assert report["images_cumulative"] == 36 + report["images"]  # what both build upon counts once
    own = sum(Run(tmp_path / name).report()["processor_seconds"] for name in ("one", "two"))
    assert report["processor_seconds"] == pytest.approx(own)
    assert "2 runs" in found.read("MODEL_CARD.md").decode()
    student = build_student(Run(runs[0]).recipe(), build_teacher(Run(runs[0]).recipe()))
    wanted = {
        name: (value + Run(runs[1]).weights()[name]) / 2
        for name, value in Run(runs[0]).weights().items()
        if name.startswith("decoder.") and value.is_floating_point()
    }
    student.load_state_dict({**Run(runs[0]).weights(), **wanted})
    latent = torch.randn(1, bundle.manifest.channels, 8, 8)
    made = FromOnnx(found.graph("decoder"), name="decoder.onnx")(latent)
    assert _apart(student.eval().decoder(latent), made) < 2e-3
    half = redecode(bundle, runs, tmp_path / "half", remade=lambda old, new: {}, share=0.25)
    assert half.manifest.provenance["redecoded"]["share"] == 0.25
    assert "Its weights went 25 % of the way there" in half.read("MODEL_CARD.md").decode()
    before, after, between = (layer_weights(one, "decoder") for one in (bundle, found, half))
    assert before.keys() == after.keys() == between.keys()
    for name, value in between.items():
        assert value == pytest.approx(0.75 * before[name] + 0.25 * after[name], abs=1e-3), name
    assert any(not np.allclose(before[name], after[name], atol=1e-2) for name in before)
    for share in (0.0, 1.1, float("nan")):
        with pytest.raises(SettingsError, match="expected more than 0"):
            redecode(bundle, runs, tmp_path / "no", remade=lambda old, new: {}, share=share)


def test_a_bundle_leads_as_its_run_does(
    recipe_data: Make, bundle: Bundle, finished: Path, crops: torch.Tensor, photos: Path, tmp_path: Path
) -> None:
    data = recipe_data()
    student = {"kind": "patch", "patches": [{"width": 8, "kernel": 8, "stride": 8}]}
    student |= {key: data["student"][key] for key in ("channels", "decoder")}
    stage = {"kind": "latents", "images": 16, "batch": 8, "learning_rate": 1e-3}
    data = {**data, "name": "thin", "student": student, "lead": str(bundle.path), "stage1": stage, "stage2": None}
    recipe = Recipe.model_validate(data)
    by_run, by_bundle = (Lead(place, recipe, fabric=Fabric(accelerator="cpu")) for place in (finished, bundle.path))
    assert _apart(by_run.latent(crops), by_bundle.latent(crops)) < 2e-3
    assert train(recipe, photos=[photos], out=tmp_path / "thin", report=lambda _: None)["finished"]
    assert Run(tmp_path / "thin").report()["builds_on"][0]["recipe"] == "tiny-run@1"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"start": "nowhere"}, "start: no run in nowhere, nor a bundle"),
        ({"levels": {"lambdas": [0.5], "default": 0}, "stage1": {"images": 4, "batch": 1}}, "start: .* has 2 levels"),
        ({"student": {"widths": [12, 10]}}, r"start: .*encoder\.onnx has shape .* make the student's sizes"),
        ({"teacher": {"weights": "random"}}, "start: .* has another teacher"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(
    recipe_data: Make, bundle: Bundle, photos: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    data = {**recipe_data(), "start": str(bundle.path)}
    for key, value in changes.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) else value
    with pytest.raises(RecipeError, match=says):
        train(Recipe.model_validate(data), photos=[photos], out=tmp_path / "run", report=lambda _: None)
