from __future__ import annotations

import time
from pathlib import Path
from typing import final

import pytest
import torch
from lightning_fabric import Fabric

from splitcodec.training.distill import train
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run
from splitcodec.training.spent import Clock, Spent, all_of, device_name, spent_of


@final
class _Clocks:
    """Clocks that stand still until they are told."""

    def __init__(self) -> None:
        self.wall, self.processor = 100.0, 7.0

    def monotonic(self) -> float:
        return self.wall

    def process_time(self) -> float:
        return self.processor


def test_a_lap_tells_wall_and_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(Fabric(accelerator="cpu", devices=1))
    begin = time.process_time()
    while time.process_time() - begin < 0.05:
        pass
    busy = clock.lap()  # by the machine's own clocks
    assert busy.processor_seconds is not None
    assert busy.processor_seconds >= 0.05
    assert busy.device_seconds == {}
    now = _Clocks()
    monkeypatch.setattr("splitcodec.training.spent.time", now)
    clock = Clock(Fabric(accelerator="cpu", devices=1))
    now.wall, now.processor = 102.0, 7.5
    assert clock.lap() == Spent(2.0, 0.5)
    assert clock.lap() == Spent(0.0, 0.0)
    now.wall, now.processor = 112.0, 8.5
    assert clock.restart() == 112.0
    now.wall = 112.25
    assert clock.lap() == Spent(0.25, 0.0)
    assert clock.of_others() == 0.0


def test_of_several_processes_all_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes, of which the other two took twice as long as this one."""
    fabric = Fabric(accelerator="cpu", devices=1)
    monkeypatch.setattr(Fabric, "world_size", 3)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda told: told.mul_(5))
    monkeypatch.setattr("splitcodec.training.spent.device_name", lambda _: "Abacus")
    clock = Clock(fabric)
    laps = [clock.lap() for _ in range(3)]
    assert laps[0].device_seconds == {"Abacus": 3 * laps[0].seconds}
    assert clock.of_others() == pytest.approx(4 * sum(one.processor_seconds or 0.0 for one in laps), rel=1e-4)
    assert clock.of_others() == 0.0


def test_a_processor_is_no_accelerator() -> None:
    assert device_name(torch.device("cpu")) is None
    assert device_name(torch.device("mps")) == "mps"


def test_what_is_not_known_is_not_told() -> None:
    known, unknown = Spent(60.0, 90.0, {"H100": 60.0}), Spent(6.0)
    assert all_of([known, known]).told() == {
        "seconds": 120.0,
        "processor_seconds": 180.0,
        "device_seconds": {"H100": 120.0},
    }
    assert all_of([known, unknown]).told("_cumulative") == {"seconds_cumulative": 66.0}
    assert all_of([]) == Spent(0, 0)


@pytest.mark.parametrize("value", ["many", None, True, [1], -1, 10**400, float("nan")])
def test_a_stranger_s_report_may_say_anything(value: object) -> None:
    report = {"seconds": value, "processor_seconds": value, "device_seconds": {"H100": value}}
    assert spent_of(report) == Spent(0.0, None, {"H100": 0.0})
    assert spent_of({"device_seconds": value}) == Spent(0.0)


def test_what_is_told_is_read_again() -> None:
    spent = Spent(1.5, 2.5, {"H100": 0.5})
    for suffix in ("", "_cumulative"):
        assert spent_of(spent.told(suffix), suffix) == spent


def test_a_run_tells_its_processor_time_over_all_sessions(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    taken = []
    for _ in range(20):
        begin = time.process_time()
        done = train(recipe, photos=[photos], out=tmp_path, report=lambda _: None, stop_after_s=0.0)["finished"]
        taken.append(time.process_time() - begin)
        if done:
            break
    final = Run(tmp_path).report()
    assert len(taken) > 2
    assert 0 < final["processor_seconds"] <= sum(taken) + 0.1
    assert "device_seconds" not in final
