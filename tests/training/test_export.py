from __future__ import annotations

import io
import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import OutputError, RunError, TeacherError
from splitcodec.layouts.folders import find_photographs
from splitcodec.model.student import Student
from splitcodec.model.teacher import Teacher
from splitcodec.session import Graph
from splitcodec.training.build import Halves, build_student, build_teacher
from splitcodec.training.data import centre_crops
from splitcodec.training.distill import train
from splitcodec.training.export import export
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run
from splitcodec.training.validate import bits_of, validate
from splitcodec.wire.bundle import Bundle, open_bundle


def _golden(bundle: Bundle) -> bytes:
    """Stand in for the real golden vectors: the drafted bundle must already work on both shores."""
    packet = Device(bundle, threads=1).encode(np.zeros((64, 64, 3), np.uint8))
    Edge(bundle, threads=1).answer(packet)
    file = io.BytesIO()
    np.savez(file, packets=np.frombuffer(packet, np.uint8))
    return file.getvalue()


@pytest.fixture(scope="module")
def bundle(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "tiny-run"
    export(finished, folder, golden=_golden)
    assert [p.name for p in folder.parent.iterdir()] == ["tiny-run"]  # no draft is left
    return open_bundle(folder)


@pytest.fixture(scope="module")
def trained(finished: Path, recipe: Recipe) -> tuple[Teacher, Student]:
    teacher = build_teacher(recipe)
    student = build_student(recipe, teacher)
    student.load_state_dict(Run(finished).weights())
    student.eval()
    return teacher, student


def _scaled(photos: Path, count: int) -> torch.Tensor:
    return (centre_crops(find_photographs([photos])[:count], resize=72, crop=64).image_u8.float() / 255 - 0.5) / 0.5


def test_the_manifest_says_what_was_trained(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.ident == "tiny-run@1"
    assert (manifest.stride, manifest.channels, manifest.levels, manifest.default_level) == (8, 6, 2, 1)
    assert manifest.classes == tuple(f"kind {n}" for n in range(10))
    assert manifest.encoder["macs"] > 0
    assert manifest.encoder["bytes"] == len(bundle.graph("encoder"))
    assert manifest.provenance["report"]["images"] == 36
    assert "wnids" not in manifest.provenance
    assert {"encoder.onnx", "decoder.onnx", "head.onnx", "tail_classify.onnx", "golden/vectors.npz"} <= set(
        manifest.files
    )


def test_nothing_in_the_bundle_names_a_folder_of_this_machine(bundle: Bundle, recipe: Recipe) -> None:
    here = {str(Path(recipe.teacher.weights).parent), str(Path.cwd()), str(Path.home()) + "/", "site-packages"}
    for path in bundle.path.rglob("*"):
        if path.is_file():
            text = path.read_bytes().decode("latin-1")
            assert not [name for name in here if name in text], path.name


def test_the_model_card(bundle: Bundle) -> None:
    card = bundle.read("MODEL_CARD.md").decode()
    assert card.startswith("# tiny-run@1\n")
    assert "weights: own.safetensors" in card
    assert "10 classes of its own" in card
    assert "on 22 unlabelled photographs" in card  # two of 24 are held out
    assert json.loads(card.split("```json\n")[1].split("```")[0])["name"] == "tiny-run"


def test_the_model_card_tells_whole_packets(bundle: Bundle, trained: tuple[Teacher, Student], finished: Path) -> None:
    """Estimates left out the 12 bytes around the symbols."""
    recipe = Run(finished).recipe()
    halves = Halves(Fabric(accelerator="cpu", devices=1), recipe, teacher=trained[0])
    blank = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    held = validate(trained[1], halves, check=blank, autocast=nullcontext)
    trained[1].eval()
    with torch.no_grad():
        symbols = trained[1].symbols(trained[0].stem(torch.full((2, 3, 64, 64), -1.0)), 1)
    assert held[1]["bytes_estimate"] == pytest.approx(12 + bits_of(trained[1].tabled(), symbols, level=1) / 2 / 8, 1e-3)
    rows = [f"| {one['level']} | {one['bytes_estimate']:.0f} | " for one in Run(finished).report()["holdout"]]
    assert all(row in bundle.read("MODEL_CARD.md").decode() for row in rows)


@pytest.mark.parametrize("level", [0, 1])
def test_the_device_s_symbols_are_the_student_s(
    bundle: Bundle, trained: tuple[Teacher, Student], photos: Path, level: int
) -> None:
    device = Device(bundle, threads=1)
    paths = find_photographs([photos])
    found = np.stack([device.symbols(path, level=level) for path in paths])
    with torch.no_grad():
        wanted = trained[1].symbols(trained[0].stem(_scaled(photos, len(paths))), level).numpy()
    assert found.shape == wanted.shape == (24, 6, 8, 8)
    assert wanted.std() > 0.3
    assert (found == wanted).mean() >= 0.99
    assert np.abs(found - wanted).max() <= 1


def test_the_trip_there_and_back(bundle: Bundle, trained: tuple[Teacher, Student], photos: Path) -> None:
    device, edge = Device(bundle, threads=1), Edge(bundle, threads=1)
    path = find_photographs([photos])[3]
    for level in (0, 1):
        packet = device.encode(path, level=level)
        answer = edge.answer(packet)
        assert answer["bundle"] == "tiny-run@1"
        with torch.no_grad():
            symbols = torch.from_numpy(device.symbols(path, level=level))[None].float()
            logits = trained[0].tail(trained[1].reproduce(symbols, level))[0][0]
        best = answer["answers"]["classify"][0]
        probability = torch.softmax(logits, 0)[best["index"]].item()
        assert best["p"] == pytest.approx(probability, abs=2e-3)
        assert best["p"] == pytest.approx(torch.softmax(logits, 0).max().item(), abs=2e-3)
        assert best["label"] == f"kind {best['index']}"


@pytest.mark.parametrize("size", [(1, 64, 64), (2, 64, 64), (3, 96, 72), (1, 8, 16)])
def test_head_and_tail_in_the_bundle_are_the_teacher(
    bundle: Bundle, trained: tuple[Teacher, Student], size: tuple[int, int, int]
) -> None:
    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
    head, tail = (Graph(bundle.graph(name), name=name, threads=1) for name in ("head", "tail_classify"))
    with torch.no_grad():
        feature = trained[0].head((pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)
        logits = trained[0].tail(feature)[0]
    found = head(pixels.numpy())
    np.testing.assert_allclose(found, feature.numpy(), rtol=0, atol=5e-3 * float(feature.abs().max()))
    np.testing.assert_allclose(tail(found), logits.numpy(), rtol=0, atol=1e-2 * float(logits.abs().max()))


def test_an_existing_folder_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("mine")
    with pytest.raises(OutputError, match="exists; choose another folder"):
        export(finished, tmp_path / "out", golden=lambda _: b"")
    assert (tmp_path / "out" / "file").read_text() == "mine"


def test_what_a_killed_export_left_behind_is_no_obstacle(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "out.draft").mkdir()
    assert export(finished, tmp_path / "out", golden=_golden).ident == "tiny-run@1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.draft"]


def test_a_run_without_weights_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(finished / "recipe.yaml", tmp_path / "run")
    with pytest.raises(RunError, match="holds no trained student"):
        export(tmp_path / "run", tmp_path / "out", golden=lambda _: b"")
    assert not (tmp_path / "out").exists()


def test_a_layer_that_is_none_is_said_before_graphs_are_made(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitcodec.training.export._graphs", lambda *_: pytest.fail("made"))
    with pytest.raises(TeacherError, match=r"no layer 'blocks\.9'"):
        export(finished, tmp_path / "out", golden=lambda _: b"", maps=["blocks.9"])


def test_a_teacher_whose_file_has_been_replaced_is_refused(
    recipe: Recipe, finished: Path, photos: Path, tmp_path: Path
) -> None:
    """Head and tail came from the new weights, behind a student that had learned from the old ones."""
    weights = tmp_path / "own.safetensors"
    shutil.copy(recipe.teacher.weights, weights)
    stage = recipe.stage1.model_copy(update={"images": recipe.stage1.batch})
    teacher = recipe.teacher.model_copy(update={"weights": str(weights)})
    recipe = recipe.model_copy(update={"teacher": teacher, "stage1": stage, "stage2": None})
    train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None, stop_after_s=0.0)
    state = load_file(weights)
    save_file({name: value * 1.5 for name, value in state.items()}, weights)
    told = "own.safetensors is another file than this run learned from"
    with pytest.raises(RunError, match=told):
        train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None)
    with pytest.raises(RunError, match=told):
        export(tmp_path / "run", tmp_path / "out", golden=_golden)
    save_file(state, weights)
    assert export(tmp_path / "run", tmp_path / "out", golden=_golden).manifest.provenance["teacher_sha256"]


def test_photographs_in_a_folder_whose_name_is_no_text_make_a_bundle(
    recipe: Recipe, photos: Path, tmp_path: Path
) -> None:
    """The run went to its end, and could not be exported then."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/fotos-\xe9"))
    shutil.copytree(photos, folder)
    brief = recipe.stage1.model_copy(update={"images": recipe.stage1.batch})
    recipe = recipe.model_copy(update={"stage1": brief, "stage2": None})
    assert train(recipe, photos=[folder], out=tmp_path / "run", report=lambda _: None)["finished"]
    export(tmp_path / "run", tmp_path / "bundle", golden=_golden)
    assert open_bundle(tmp_path / "bundle").manifest.provenance["folders"] == ["fotos-\\udce9"]
    assert "fotos-\\udce9" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")
