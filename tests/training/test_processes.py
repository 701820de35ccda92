"""One run in several processes: as one outside, resumable, and plain words where one of them ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from safetensors.torch import load_file

from splitcodec.errors import RunError
from splitcodec.training.processes import feasible, first_says, launched, own_noise, scale, set_scale, together

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(photos: Path, recipe_data: Callable[[], dict[str, Any]], tmp_path: Path) -> Start:
    """Return a starter of `train` in two processes, each with one thread, behind the words of `through`."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(recipe_data()), encoding="utf-8")

    def go(*more: object, through: Sequence[str] = ()) -> subprocess.Popen[str]:
        command = [*through, sys.executable, "-m", "splitcodec.cli", "train", recipe, "--photos", photos]
        return subprocess.Popen(
            [str(one) for one in (*command, "--devices", 2, *more)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    return go


def test_two_processes_make_one_run(start: Start, tmp_path: Path) -> None:
    process = start("--out", tmp_path / "run", "--json", through=_nameless())
    out, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    final = json.loads(out)  # said once
    assert final["finished"]
    assert final["processor_seconds"] > 0
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len([line for line in log if line.get("stage") == "stage1" and "holdout" in line]) == 1
    assert final["images"] == json.loads((tmp_path / "run" / "report.json").read_bytes())["images"]
    assert all(line.startswith(("stage1: ", "stage2: ")) for line in said.splitlines()), said
    assert load_file(tmp_path / "run" / "student.safetensors")
    alone = [*map(str, process.args)] if isinstance(process.args, list) else []
    alone[alone.index("--devices") + 1] = "1"  # would be half-way only, for its steps are shorter
    done = subprocess.run(alone, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "--devices 2" in done.stderr


@pytest.mark.parametrize("kind", ["distill, tail_from: 0.5", "squares"])
def test_a_tail_learns_whose_layers_have_no_part_in_every_loss(start: Start, tmp_path: Path, kind: str) -> None:
    """What joins in later, or gives the answer where features alone count, has no gradient: processes waited for it."""
    stage = f"stage1={{kind: {kind}, images: 32, batch: 4, learning_rate: 1.0e-3, tail: true}}"
    process = start("--out", tmp_path / "run", "--set", stage, "--set", "stage2.tail=true")
    _, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert all(line.startswith(("stage1: ", "stage2: ")) for line in said.splitlines()), said


def test_when_one_is_killed_the_other_says_so_and_the_run_goes_on(start: Start, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("--out", run, "--set", "stage1.images=400000")
    helper = _helper_of(process)
    _wait_for(lambda: (run / "log.jsonl").exists() and '"step": 20' in (run / "log.jsonl").read_text())
    os.kill(helper, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (2, -signal.SIGKILL)  # Fabric kills what hangs in a sum of gradients
    assert "Traceback" not in said
    if process.returncode == 2:
        assert "another process of this run has ended" in said


def test_the_helper_ends_with_the_first(start: Start, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("--out", run, "--set", "stage1.images=400000")
    helper = _helper_of(process)
    _wait_for(lambda: (run / "log.jsonl").exists() and '"step": 20' in (run / "log.jsonl").read_text())
    process.kill()
    _, said = process.communicate(timeout=60)
    _wait_for(lambda: not _alive(helper))
    assert "Traceback" not in said


def test_what_is_refused_is_refused_once(start: Start, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("name: other\n", encoding="utf-8")
    process = start("--out", tmp_path / "run")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert len(said.splitlines()) == 1, said


def test_alone_a_process_asks_nobody() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    assert first_says(fabric, True)
    assert not first_says(fabric, False)
    before = torch.get_rng_state()
    own_noise(fabric, seed=1, step=2)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(RuntimeError, match="Connection closed") as found, together(fabric):
        raise RuntimeError("Connection closed by peer")
    assert not isinstance(found.value, RunError)


def test_more_processes_than_cores_are_refused_before_any_starts() -> None:
    with pytest.raises(RunError, match=r"--devices 100000: .*ask for fewer"):
        launched(100_000, precision="32-true")


@pytest.mark.parametrize(("processes", "out"), [(1, "hello\nsplitcodec\n"), (2, "splitcodec\n")])
def test_what_gloo_says_is_no_part_of_a_report(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], processes: int, out: str
) -> None:
    """torch 2.9 wrote its greeting to stdout, in front of the JSON of `train --devices 2 --json`."""
    monkeypatch.setattr(Fabric, "launch", lambda self: os.write(1, b"hello\n"))
    launched(processes, precision="32-true")
    print("splitcodec", flush=True)
    assert capfd.readouterr().out == out


def _nameless() -> list[str]:
    """Return the words that start a command on a machine whose name has no address, of which Gloo warned twice.

    None where that cannot be had: not on Linux, or no namespaces for this user.
    """
    words = ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname nowhere.invalid && exec "$@"', "sh"]
    try:
        return words if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0 else []
    except OSError:
        return []


def _helper_of(process: subprocess.Popen[str]) -> int:
    """Return the process that the first one started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _wait_for(lambda: any(_is_python(int(one)) for one in children.read_text().split()))
    return next(int(one) for one in children.read_text().split() if _is_python(int(one)))


def _is_python(pid: int) -> bool:
    return b"splitcodec.cli" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(true: Callable[[], bool], *, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_processor_that_imitates_bf16_trains_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took ten to twenty times as long."""
    monkeypatch.setattr("splitcodec.training.processes.multiplies_bf16", lambda: False)
    assert {feasible(one) for one in ("bf16-mixed", "32-true", "16-mixed")} == {"32-true"}  # 16 would become bf16
    monkeypatch.setattr("splitcodec.training.processes.multiplies_bf16", lambda: True)
    assert [feasible(one) for one in ("bf16-mixed", "16-mixed")] == ["bf16-mixed", "16-mixed"]


def test_the_scale_of_16_bits_goes_on() -> None:
    """It began anew with every session: the first steps of each were lost to losses that were scaled too far."""
    ran, goes_on = (Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu")) for _ in range(2))
    scaler = ran.strategy.precision.scaler
    scaler.scale(torch.ones(()))  # a first loss
    scaler.update(new_scale=128.0)
    set_scale(scale(ran), goes_on)
    assert goes_on.strategy.precision.scaler.get_scale() == 128.0
    assert scale(Fabric(accelerator="cpu", devices=1)) == {}
