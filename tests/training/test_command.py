"""From `train` to `evaluate`: a user's own photographs and teacher, by command alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from splitcodec.training import distill
from splitcodec.training.recipe import Recipe
from splitcodec.wire.bundle import open_bundle


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "splitcodec.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)


def test_from_photographs_to_answers(photos: Path, recipe_data: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    recipe, out, bundle = tmp_path / "recipe.yaml", tmp_path / "run", tmp_path / "bundle"
    recipe.write_text(yaml.safe_dump(recipe_data()), encoding="utf-8")
    changes = ("--set", "stage1.images=16", "--set", "precision=bf16-mixed")
    trained = run("train", recipe, "--photos", photos, "--out", out, *changes, "--json")
    assert trained.returncode == 0, trained.stderr
    said = trained.stderr.splitlines()
    assert all(line.startswith(("stage1: ", "stage2: ")) for line in said), said  # no empty line, nothing of Fabric's
    assert json.loads(trained.stdout)["images"] == 16 + 12
    other = run("train", recipe, "--photos", photos, "--out", out)
    assert (other.returncode, len(other.stderr.splitlines())) == (2, 1)
    assert "another recipe: stage1.images (was 16, is 24); go on with the recipe and the --set" in other.stderr
    exported = run("export", out, "-o", bundle)
    assert exported.returncode == 0, exported.stderr
    assert run("check", bundle).returncode == 0
    picture = sorted(photos.glob("*.jpg"))[0]
    encoded = run("encode", picture, "-b", bundle, "-o", tmp_path, "--json")
    packet = json.loads(encoded.stdout)[0]["packet"]
    answer = json.loads(run("answer", packet, "-b", bundle, "--json").stdout)
    assert answer["answers"]["classify"][0]["label"].startswith("kind ")
    labelled = tmp_path / "labelled"
    labelled.mkdir()
    for number, path in enumerate(sorted(photos.glob("*.jpg"))[:4]):
        (labelled / f"{number}_x.jpg").write_bytes(path.read_bytes())
    report = json.loads(run("evaluate", "-b", bundle, "--data", labelled, "--json").stdout)
    assert [p["setting"] for p in report["points"]] == ["level 0", "level 1"]
    again = run("export", out, "-o", bundle)
    assert again.returncode == 2
    assert "OutputError" in again.stderr


def test_a_wrong_key_is_named(photos: Path, recipe_data: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**recipe_data(), "lerning_rate": 1}), encoding="utf-8")
    done = run("train", recipe, "--photos", photos, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "RecipeError" in done.stderr
    assert "lerning_rate" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_refused(recipe_data: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    recipe, empty = tmp_path / "recipe.yaml", tmp_path / "empty"
    recipe.write_text(yaml.safe_dump(recipe_data()), encoding="utf-8")
    empty.mkdir()
    done = run("train", recipe, "--photos", empty, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "DataError" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_export_of_a_run_that_has_not_finished_says_so(
    recipe: Recipe, photos: Path, finished: Path, tmp_path: Path
) -> None:
    """It took the last checkpoint without a word, and nothing in the bundle told."""
    distill.train(recipe, photos=[photos], out=tmp_path / "run", report=lambda _: None, stop_after_s=0.0)
    early = run("export", tmp_path / "run", "-o", tmp_path / "early", "--json")
    assert early.returncode == 0, early.stderr
    assert json.loads(early.stdout)["finished"] is False
    assert len(early.stderr.splitlines()) == 1
    assert "has not finished: exported from its last checkpoint, stage1; `train` again goes on with it" in early.stderr
    bundle = open_bundle(tmp_path / "early")
    report = bundle.manifest.provenance["report"]
    assert (report["finished"], report["stage"], report["images"]) == (False, "stage1", recipe.stage1.batch)
    assert "4 pictures seen" in (card := bundle.read("MODEL_CARD.md").decode())
    assert "Not finished: the weights are those of its last checkpoint, in stage1." in card
    whole = run("export", finished, "-o", tmp_path / "whole", "--json")
    assert (json.loads(whole.stdout)["finished"], whole.stderr) == (True, "")
    assert "ot finished" not in open_bundle(tmp_path / "whole").read("MODEL_CARD.md").decode()
