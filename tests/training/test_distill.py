from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import pytest
import torch

from splitcodec.errors import DataError, OutputError, RecipeError, RunError, TeacherError
from splitcodec.training import distill, spent
from splitcodec.training.distill import Progress, train
from splitcodec.training.processes import holding
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run

Make = Callable[[], dict[str, Any]]


def _quiet(_: Progress) -> None:
    pass


def _same(found: Path, wanted: Path) -> None:
    a, b = Run(found).weights(), Run(wanted).weights()
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    counts_a, counts_b = Run(found).counts(), Run(wanted).counts()
    assert counts_a is not None
    assert counts_b is not None
    assert (counts_a == counts_b).all()
    assert Run(found).report()["holdout"] == Run(wanted).report()["holdout"]


def test_a_run_ends_with_everything_that_export_needs(finished: Path, recipe: Recipe) -> None:
    done = Run(finished)
    report, counts = done.report(), done.counts()
    assert report["finished"]
    assert report["images"] == 24 + 12
    assert report["photographs"] == 22
    assert [level["level"] for level in report["holdout"]] == [0, 1]
    assert all(0 <= level["agreement"] <= 100 and level["bytes_estimate"] > 12 for level in report["holdout"])
    assert counts is not None
    assert counts.shape[:2] == (2, 6)
    assert (counts.sum(axis=2) == 22 * 8 * 8).all()
    assert done.recipe() == recipe
    assert json.loads((finished / "config.json").read_bytes())["name"] == "tiny-run"
    assert list((finished / "tensorboard").iterdir())
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [6, 3]
    assert all(math.isfinite(line["loss"]) for line in lines if "loss" in line)
    assert not any(str(finished.parent) in json.dumps(line) for line in lines)


def test_stopped_and_resumed_after_every_step_gives_exactly_the_same_weights(
    tmp_path: Path, recipe: Recipe, photos: Path, finished: Path
) -> None:
    images = []
    for _ in range(20):
        torch.rand(3)  # a session's own random numbers must not matter
        final = train(recipe, photos=[photos], out=tmp_path, report=_quiet, stop_after_s=0.0)
        images.append(final["images"])
        if final["finished"]:
            break
    assert images[:3] == [4, 8, 12]
    assert images[-1] == 36
    assert len(images) > 6
    _same(tmp_path, finished)


@pytest.mark.parametrize("killed_at", [1, 4, 6])
def test_killed_while_writing_a_checkpoint_gives_exactly_the_same_weights(
    *, tmp_path: Path, recipe: Recipe, photos: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Steps are lost, then done again: the same batches, the same noise, the same optimizer."""
    real, left = torch.save, killed_at

    def killed(value: object, path: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            path.write_bytes(b"half a file")
            raise KeyboardInterrupt
        real(value, path)

    with monkeypatch.context() as patch:
        patch.setattr(distill, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, photos=[photos], out=tmp_path, report=_quiet)
    train(recipe, photos=[photos], out=tmp_path, report=_quiet)
    _same(tmp_path, finished)


def test_a_run_that_another_process_trains_is_left_alone(tmp_path: Path, recipe: Recipe, photos: Path) -> None:
    """Two commands on one folder replaced each other's checkpoints."""
    train(recipe, photos=[photos], out=tmp_path, report=_quiet, stop_after_s=0.0)
    before = Run(tmp_path).weights()
    with holding(tmp_path), pytest.raises(RunError, match=r"another process trains this run; let it end, or stop it"):
        train(recipe, photos=[photos], out=tmp_path, report=_quiet)
    assert all(torch.equal(one, before[name]) for name, one in Run(tmp_path).weights().items())
    assert train(recipe, photos=[photos], out=tmp_path, report=_quiet)["finished"]


def test_a_finished_run_started_again_stays_as_it_is(
    tmp_path: Path, recipe: Recipe, photos: Path, finished: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    final = train(recipe, photos=[photos], out=tmp_path / "run", report=_quiet)
    assert final["images"] == 36
    _same(tmp_path / "run", finished)


def _changed(make: Make, **changes: Any) -> Recipe:
    data = make()
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        place[last] = value
    return Recipe.model_validate(data)


def test_training_lowers_the_loss_and_reports_its_progress(tmp_path: Path, recipe_data: Make, photos: Path) -> None:
    wanted = _changed(
        recipe_data,
        stage1={"images": 640, "batch": 8, "learning_rate": 1e-2},
        levels__lambdas=[1e-3, 1e-4],
        stage2__batch=2,
        precision="32-true",
    )
    seen: list[Progress] = []
    train(wanted, photos=[photos], out=tmp_path, report=seen.append)
    bars = [p for p in seen if not p.message]
    first = [p for p in bars if p.stage == "stage1"]
    assert first[-1].loss < 0.95 * first[0].loss
    assert [p.images for p in first] == [160, 320, 480, 640]
    assert all(p.of_images == 640 and len(p.kilobytes) == 2 and p.images_per_s > 0 for p in first)
    last = bars[-1]
    assert (last.stage, last.images, last.of_images) == ("stage2", 12, 12)
    assert [p.stage for p in seen if "agreement held out" in p.message] == ["stage1", "stage2"]


@final
class _Clock:
    """A clock that goes on by 10 ms whenever somebody looks: a busy machine's steps take no longer."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 0.01
        return self._now

    process_time = monotonic


def test_a_stage_of_minutes_ends_by_the_clock_and_resumes(
    tmp_path: Path, recipe_data: Make, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock()
    for module in (distill, spent):
        monkeypatch.setattr(module, "time", clock)
    wanted = _changed(recipe_data, stage1={"minutes": 0.02, "batch": 8, "learning_rate": 1e-3}, stage2=None)
    seen: list[Progress] = []
    assert train(wanted, photos=[photos], out=tmp_path, report=seen.append, stop_after_s=0.4)["finished"] is False
    final = train(wanted, photos=[photos], out=tmp_path, report=seen.append)
    assert final["finished"]
    assert final["seconds"] == 1.2  # and a look of the clock at most
    assert final["images"] % 8 == 0
    assert final["images"] > 8 * 20
    assert [one["share"] for one in final["validation"]][-1] == 1.0
    again = train(wanted, photos=[photos], out=tmp_path, report=_quiet)
    assert again["images"] == final["images"]


def test_minutes_on_several_devices_are_refused_before_the_first_stage(
    tmp_path: Path, recipe_data: Make, photos: Path
) -> None:
    """It was said when that stage came, after all of the one before, once by each process."""
    wanted = _changed(recipe_data, stage2={"minutes": 0.1, "batch": 4, "learning_rate": 1e-3})
    with pytest.raises(RunError, match="a stage of so many minutes runs on one device"):
        train(wanted, photos=[photos], out=tmp_path / "run", report=_quiet, devices=2)
    assert not (tmp_path / "run").exists()


def test_stage_2_changes_the_decoder_alone(tmp_path: Path, recipe: Recipe, photos: Path, recipe_data: Make) -> None:
    train(_changed(recipe_data, stage2=None), photos=[photos], out=tmp_path / "one", report=_quiet)
    train(recipe, photos=[photos], out=tmp_path / "two", report=_quiet)
    one, two = Run(tmp_path / "one").weights(), Run(tmp_path / "two").weights()
    changed = {name.split(".")[0] for name in one if not torch.equal(one[name], two[name])}
    assert changed == {"decoder"}


def test_few_photographs_leave_nothing_to_hold_out(tmp_path: Path, recipe: Recipe, photos: Path) -> None:
    (tmp_path / "few").mkdir()
    for name in ("00.jpg", "01.png"):
        shutil.copy(photos / name, tmp_path / "few")
    (tmp_path / "few" / "broken.jpg").write_bytes(b"no picture")
    final = train(recipe, photos=[tmp_path / "few"], out=tmp_path / "run", report=_quiet)
    assert final["finished"]
    assert final["holdout"] == []


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"student__halvings": 0}, RecipeError, r"student\.halvings: the latent's stride would be 2, the cut's is 4"),
        ({"teacher__crop": 60}, RecipeError, r"teacher\.crop: 60 pixels with a latent of stride 8"),
        ({"teacher__classes": "nowhere.txt"}, RecipeError, r"teacher\.classes: cannot read nowhere\.txt"),
        ({"teacher__classes": None}, TeacherError, "size mismatch"),
        ({"teacher__cut": "blocks.77"}, TeacherError, "no layer 'blocks.77'"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused_before_anything_is_written(
    *, tmp_path: Path, photos: Path, recipe_data: Make, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        train(_changed(recipe_data, **changes), photos=[photos], out=tmp_path / "run", report=_quiet)
    assert not (tmp_path / "run").exists()


def test_a_run_whose_weights_are_no_numbers_is_refused(tmp_path: Path, recipe_data: Make, photos: Path) -> None:
    """No checkpoint holds them, so the last one stays good."""
    wanted = _changed(recipe_data, stage1__learning_rate=1e30, stage1__clip=None)
    with pytest.raises(RunError, match=r"stage1: .* no numbers any more at step 6; lower stage1\.learning_rate"):
        train(wanted, photos=[photos], out=tmp_path / "run", report=_quiet)
    assert Run(tmp_path / "run").load() is None


def test_an_empty_file_of_class_names_is_refused(tmp_path: Path, photos: Path, recipe_data: Make) -> None:
    (tmp_path / "names.txt").write_text("\n \n")
    wanted = _changed(recipe_data, teacher__classes=str(tmp_path / "names.txt"))
    with pytest.raises(RecipeError, match=r"teacher\.classes: .*names\.txt is empty"):
        train(wanted, photos=[photos], out=tmp_path / "run", report=_quiet)


def test_no_photographs_and_another_run_s_folder_are_refused(
    tmp_path: Path, recipe: Recipe, recipe_data: Make, photos: Path, finished: Path
) -> None:
    with pytest.raises(DataError, match="no photographs below"):
        train(recipe, photos=[tmp_path], out=tmp_path / "run", report=_quiet)
    with pytest.raises(RunError, match=r"another recipe: seed \(was 0, is 5\); go on with"):
        train(_changed(recipe_data, seed=5), photos=[photos], out=finished, report=_quiet)


def test_what_is_refused_at_the_start_leaves_nothing_behind(
    tmp_path: Path, recipe: Recipe, recipe_data: Make, photos: Path, finished: Path
) -> None:
    """A folder with a recipe in it stayed, which the mended recipe's run then was not allowed into."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.jpg").write_bytes(b"no picture")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    small = {**recipe_data(), "lead": str(finished), "levels": {"lambdas": [0.5], "default": 0}}
    for out in ("deep/new", "mine"):
        with pytest.raises(DataError, match="none of 1 photographs can be read"):
            train(recipe, photos=[tmp_path / "broken"], out=tmp_path / out, report=_quiet)
        assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(RecipeError, match="levels, channels or decoder differ"):
        train(Recipe.model_validate(small), photos=[photos], out=tmp_path / "new", report=_quiet)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(OutputError, match=r"notes\.txt: cannot be made"):  # before any photograph is read
        train(recipe, photos=[tmp_path / "broken"], out=tmp_path / "mine" / "notes.txt" / "run", report=_quiet)


def test_a_third_stage_may_tune_everything_again(
    tmp_path: Path, recipe: Recipe, photos: Path, recipe_data: Make
) -> None:
    stage = {"images": 8, "batch": 4, "learning_rate": 1e-3, "tune": "all", "balance": 0.5}
    longer = Recipe.model_validate({**recipe_data(), "stage3": stage})
    train(recipe, photos=[photos], out=tmp_path / "two", report=lambda _: None)
    train(longer, photos=[photos], out=tmp_path / "three", report=lambda _: None)
    two, three = Run(tmp_path / "two"), Run(tmp_path / "three")
    assert three.report()["images"] == two.report()["images"] + 8
    before, after = two.weights(), three.weights()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"squeeze", "bottleneck", "decoder"}


def test_a_stage_may_learn_from_windows_of_the_crops(
    tmp_path: Path, recipe: Recipe, photos: Path, recipe_data: Make
) -> None:
    data = recipe_data()
    some = Recipe.model_validate({**data, "stage1": {**data["stage1"], "window": 32}})
    train(recipe, photos=[photos], out=tmp_path / "whole", report=lambda _: None)
    train(some, photos=[photos], out=tmp_path / "window", report=lambda _: None)
    whole, window = Run(tmp_path / "whole"), Run(tmp_path / "window")
    sizes = []
    for run in (whole, window):
        lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
        sizes.append(next(line["kilobytes"] for line in lines if "step" in line and "kilobytes" in line))
    others, first = sizes
    assert all(less < 0.5 * more for less, more in zip(first, others, strict=True))  # a quarter of the pixels
    assert window.report()["images"] == whole.report()["images"]
    assert len(window.report()["validation"]) == len(whole.report()["validation"])
