from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from splitcodec.errors import OutputError, RunError
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run, State
from splitcodec.training.spent import Spent
from splitcodec.training.tabulate import dump_counts
from splitcodec.wire.tabulate import empty_counts


def _save(run: Run, step: int) -> None:
    run.save({"w": torch.full((3,), float(step))}, {"optimizer": {"step": step}}, State("stage1", step, 4 * step, 0.5))


def _step(run: Run) -> int:
    found = run.load()
    assert found is not None
    student, trainer, state = found
    assert student["w"].tolist() == [float(state.step)] * 3
    assert trainer == {"optimizer": {"step": state.step}}
    return state.step


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.load() is None
    for step in (1, 2, 3):
        _save(run, step)
        assert _step(run) == step
        assert len(list(tmp_path.glob("checkpoint.*"))) == 1
    assert run.weights()["w"].tolist() == [3.0] * 3


FILES = ["student.safetensors", "trainer.pt", "state.json"]


@pytest.mark.parametrize("killed_at", range(8))
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Also twice in a row: the half-written checkpoint is the one to write over, not the whole one."""
    run = Run(tmp_path)
    _save(run, 1)
    for step in (2, 3):
        with _killed_after(killed_at, monkeypatch):
            _save(run, step)
        assert _step(run) in {1, step, step - 1}
        assert _step(Run(tmp_path)) >= 1
    _save(run, 9)
    assert _step(run) == 9


def test_a_loss_of_power_leaves_a_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one went before a byte of the new one need have been on the disk."""
    run, order = Run(tmp_path), list[str]()
    _save(run, 1)
    place = tmp_path / "checkpoint.b"
    synced, replaced, removed = os.fsync, os.replace, Path.unlink

    def fsync(handle: int) -> None:
        order.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        synced(handle)

    def replace(source: Path, target: Path) -> None:
        order.append("named")
        replaced(source, target)

    def unlink(path: Path) -> None:
        order.append("removed")
        removed(path)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Path, "unlink", unlink)
    _save(run, 2)
    named, first_removed = order.index("named"), order.index("removed")
    assert {"student.safetensors", "trainer.pt", "state.json.part"} == set(order[:named])
    assert {place.name, tmp_path.name} == set(order[named + 1 : first_removed])


@contextmanager
def _killed_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stop at the given change of the disk, which is still done for half if it writes a file."""
    left = calls

    def count(real: Callable[..., Any], target: Callable[..., Path | None]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                if path := target(*args):
                    path.write_bytes(b"half")
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr("splitcodec.training.run.save_file", count(save_file, lambda _, path: Path(path)))
        patch.setattr(torch, "save", count(torch.save, lambda _, path: Path(path)))
        patch.setattr(Path, "write_text", count(Path.write_text, lambda path, _: Path(path)))
        patch.setattr(os, "replace", count(os.replace, lambda *_: None))
        patch.setattr(Path, "unlink", count(Path.unlink, lambda _: None))
        try:
            yield
        except KeyboardInterrupt:
            return


def test_time_adds_up_over_sessions(tmp_path: Path) -> None:
    run, state = Run(tmp_path), State()
    state.advance(images=4, spent=Spent(2.0, 3.0, {"H100": 2.0}))
    state.processor_seconds += 1.5
    run.save({"w": torch.zeros(1)}, {}, state)
    found = run.load()
    assert found is not None
    found[2].advance(images=4, spent=Spent(1.0, 1.0, {"A100": 1.0}))
    wanted = {"seconds": 3.0, "processor_seconds": 5.5, "device_seconds": {"H100": 2.0, "A100": 1.0}}
    assert found[2].spent().told() == wanted


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_falls_back_to_the_other(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path)
    _save(run, 1)
    (tmp_path / "checkpoint.a").rename(tmp_path / "kept")
    _save(run, 2)
    (tmp_path / "checkpoint.a").rename(tmp_path / "checkpoint.b")
    (tmp_path / "kept").rename(tmp_path / "checkpoint.a")
    assert _step(run) == 2
    (tmp_path / "checkpoint.b" / name).write_bytes(b"half")
    assert _step(run) == 1


def test_no_whole_checkpoint_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    _save(run, 1)
    (tmp_path / "checkpoint.a" / "trainer.pt").write_bytes(b"half")
    with pytest.raises(RunError, match=r"no checkpoint in .* is whole; remove its checkpoint folders"):
        run.load()
    (tmp_path / "checkpoint.a" / "state.json").unlink()
    with pytest.raises(RunError, match="is whole"):
        run.load()


class _Code:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, ("ran-from-a-pickle",)


def test_a_checkpoint_with_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path)
    run.save({"w": torch.zeros(1)}, {"optimizer": _Code()}, State())
    with pytest.raises(RunError, match="is whole"):
        run.load()
    assert not (tmp_path / "ran-from-a-pickle").exists()


def test_another_recipe_in_the_same_folder_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    run = Run(tmp_path)
    run.begin(recipe, photographs=5, folders=["photos"])
    run.begin(recipe, photographs=5, folders=["photos"])
    assert run.recipe() == recipe
    changed = recipe.model_dump(mode="json") | {"seed": 1}
    changed["student"]["widths"] = list(range(1, 33))
    changed["stage1"] |= {"images": 99, "batch": 2, "learning_rate": 0.5}
    with pytest.raises(RunError) as caught:
        run.begin(Recipe.model_validate(changed), photographs=5, folders=["photos"])
    assert str(caught.value) == (
        f"{tmp_path} holds a run of another recipe: student.widths (was [12, 12], is [1, 2, 3, 4, 5, 6, 7, 8, 9, "
        f"10, 11, 1...), stage1.images (was {recipe.stage1.images}, is 99), stage1.batch (was {recipe.stage1.batch}, "
        f"is 2), stage1.learning_rate (was {recipe.stage1.learning_rate}, is 0.5) and 1 more; go on with the recipe "
        "and the --set that it began with, choose another --out, or remove it"
    )
    with pytest.raises(RunError, match=r"another recipe: stage2 \(was \{.*\.\.\., is null\); go on with"):
        run.begin(recipe.model_copy(update={"stage2": None}), photographs=5, folders=["photos"])


def test_provenance_holds_no_paths(tmp_path: Path, recipe: Recipe) -> None:
    run = Run(tmp_path)
    run.begin(recipe, photographs=5, folders=["photos"])
    found = run.provenance()
    assert found["photographs"] == 5
    assert found["folders"] == ["photos"]
    assert set(found) == {"recipe", "commit", "photographs", "folders", "torch", "python", "teacher_sha256"}
    assert "/" not in json.dumps(found)


def test_a_commit_is_that_of_the_code_or_unknown(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    run = Run(tmp_path / "run")
    run.begin(recipe, photographs=5, folders=[])
    assert run.provenance()["commit"] == "unknown"


def test_a_run_without_weights_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(RunError, match="holds no trained student; run `splitcodec train"):
        run.weights()
    assert run.counts() is None
    assert run.report() == {}


def test_the_end_of_a_run_is_written(tmp_path: Path, recipe: Recipe) -> None:
    run = Run(tmp_path)
    run.begin(recipe, photographs=5, folders=[])
    _save(run, 1)
    channels_last = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    run.finish({"w": channels_last}, {"finished": True})
    assert torch.equal(run.weights()["w"], channels_last)
    assert run.report() == {"finished": True}
    assert json.loads((tmp_path / "config.json").read_bytes())["name"] == recipe.name
    assert not list(tmp_path.glob("*.part"))


@contextmanager
def _full_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond `limit` bytes: writes fail as on a full disk (EFBIG in place of ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("tensor_in", ["student", "trainer"])
def test_a_full_disk_is_named_and_the_last_checkpoint_stays(tmp_path: Path, tensor_in: str) -> None:
    run = Run(tmp_path)
    _save(run, 1)
    large: dict[str, Tensor] = {"w": torch.zeros(300_000)}
    small: dict[str, Tensor] = {"w": torch.zeros(1)}
    student, trainer = (large, small) if tensor_in == "student" else (small, large)
    with _full_disk(100_000), pytest.raises(OutputError, match=r"cannot write the checkpoint .*free some space"):
        run.save(student, {"optimizer": trainer}, State("stage1", 2))
    assert _step(run) == 1


def test_a_full_disk_at_the_end_and_in_the_log(tmp_path: Path, recipe: Recipe) -> None:
    run = Run(tmp_path)
    run.begin(recipe, photographs=5, folders=[])
    run.log({"text": "x" * 100})
    with _full_disk(50):
        with pytest.raises(OutputError, match=r"cannot write .*log\.jsonl"):
            run.log({"text": "x" * 100})
        with pytest.raises(OutputError, match=r"cannot write .*student\.safetensors"):
            run.finish({"w": torch.zeros(100)}, {})
        with pytest.raises(OutputError, match=r"cannot write .*symbols\.npz"):
            run.keep_counts(bytes(100))
    assert not (tmp_path / "student.safetensors").exists()


def test_a_line_that_a_full_disk_cut_short_does_not_spoil_the_next(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log({"step": 1})
    with _full_disk(20), pytest.raises(OutputError, match=r"cannot write .*log\.jsonl"):
        run.log({"step": 2})
    assert not (tmp_path / "log.jsonl").read_bytes().endswith(b"\n")
    for step in (3, 4):
        run.log({"step": step})
    first, _, *others = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in (first, *others)] == [{"step": 1}, {"step": 3}, {"step": 4}]


def test_counts_are_those_of_the_final_weights_alone(tmp_path: Path) -> None:
    """Levels are moved before symbols are counted; a checkpoint, which stands in for lost weights, has them unmoved."""
    run = Run(tmp_path)
    _save(run, 1)
    run.keep_counts(dump_counts(empty_counts(1, 1)))
    with _full_disk(50), pytest.raises(OutputError, match=r"cannot write .*student\.safetensors"):
        run.keep("student.safetensors", {"w": torch.zeros(100)})
    assert run.counts() is None
    run.keep("student.safetensors", {"w": torch.zeros(100)})
    assert run.counts() is not None


def test_going_on_keeps_where_a_run_was_started(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    monkeypatch.setattr("splitcodec.training.run._commit", lambda: "first")
    run.begin(recipe, photographs=5, folders=["photos"], names="those")
    begun = run.provenance()
    monkeypatch.setattr("splitcodec.training.run._commit", lambda: "later")
    run.begin(recipe, photographs=5, folders=["photos"], names="those")
    assert run.provenance() == begun
    assert begun["commit"] == "first"


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file"):
        Run(tmp_path / "file").begin(recipe, photographs=5, folders=[])


def test_a_run_goes_on_with_its_own_photographs_alone(tmp_path: Path, recipe: Recipe) -> None:
    run = Run(tmp_path)
    run.begin(recipe, photographs=24, folders=["photos"], names="a")
    run.begin(recipe, photographs=24, folders=["elsewhere"], names="a")
    with pytest.raises(RunError, match=r"began on 24 photographs, now there are 25, .* choose another --out"):
        run.begin(recipe, photographs=25, folders=["photos"], names="b")
    assert run.provenance()["names"] == "a"


@pytest.mark.parametrize("name", ["provenance.json", "report.json", "student.safetensors", "symbols.npz"])
@pytest.mark.parametrize("left", [b"", b"{", b"[1]"])
def test_a_file_that_was_copied_in_part_is_named(tmp_path: Path, recipe: Recipe, name: str, left: bytes) -> None:
    """A copy from another machine that broke off, or a disk that lost power, ended in a traceback."""
    run = Run(tmp_path)
    run.begin(recipe, photographs=24, folders=["photos"])
    run.keep_counts(dump_counts(empty_counts(1, 1)))
    run.finish({"w": torch.zeros(100)}, {"finished": True})
    (tmp_path / name).write_bytes(left)
    read = {"provenance.json": run.provenance, "report.json": run.report, "symbols.npz": run.counts}.get(
        name, run.weights
    )
    with pytest.raises(RunError, match=rf"{re.escape(name)} is damaged .*copy the run anew, or remove that file"):
        read()
