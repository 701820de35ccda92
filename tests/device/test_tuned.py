from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitcodec.device import tuned as module
from splitcodec.device.client import Device
from splitcodec.device.tuned import (
    CodingTiming,
    CodingTimings,
    Timing,
    chosen,
    state_file,
    time_codings,
    tune,
    tuned,
)
from splitcodec.errors import OutputError, SettingsError
from splitcodec.evaluation.contextual import with_contexts
from splitcodec.wire.bundle import Bundle, derive
from tests.wire.test_contexts import contexts


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "splitcodec" / "tune.json"


@pytest.fixture
def both(tiny: Bundle) -> Bundle:
    """Return tiny with its own encoder as the INT8 one."""
    return derive(tiny, tiny.manifest, files={"encoder.int8.onnx": tiny.read("encoder.onnx")})


def test_a_choice_is_recorded_and_used(both: Bundle, state: Path, pictures: list[Image.Image]) -> None:
    assert state_file() == state
    assert tuned(both) is None
    assert Device(both, encoder="tuned").precision == "fp32"
    found = tune(both, threads=[1])
    assert found.recorded == state
    assert {(one.encoder, one.threads) for one in found.timings} == {("fp32", 1), ("int8", 1)}
    assert tuned(both) == found.choice
    assert found.to_json()["choice"]["why"]
    device = Device(both, encoder="tuned")
    assert device.precision == found.choice.encoder
    assert device.encode(pictures[0]) == Device(both, encoder=found.choice.encoder).encode(pictures[0])


def test_a_choice_holds_for_its_bundle_runtime_and_processor(
    both: Bundle, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(both, threads=[1])
    assert tuned(tiny) is None
    with monkeypatch.context() as other:
        other.setattr(module, "processor", lambda: "another one")
        assert tuned(both) is None
    with monkeypatch.context() as other:
        other.setattr(module, "runtime_version", lambda: "0.0")
        assert tuned(both) is None
    assert tuned(both) is not None


def test_other_choices_stay_and_a_dry_run_records_nothing(both: Bundle, tiny: Bundle, state: Path) -> None:
    assert tune(both, threads=[1], record=False).recorded is None
    assert not state.exists()
    tune(both, threads=[1])
    tune(tiny, threads=[1])
    assert tuned(both) is not None
    assert tuned(tiny) is not None
    assert [path.name for path in state.parent.iterdir()] == ["tune.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'{"x": 1}', b"[" * 100_000])
def test_a_damaged_file_is_no_choice(both: Bundle, state: Path, content: bytes) -> None:
    state.parent.mkdir(parents=True)
    state.write_bytes(content)
    assert tuned(both) is None
    tune(both, threads=[1])
    assert tuned(both) is not None


@pytest.mark.parametrize("entry", [None, [], {"encoder": "int4", "threads": 1, "why": ""}, {"encoder": "int8"}])
def test_a_damaged_choice_is_none(both: Bundle, state: Path, entry: object) -> None:
    tune(both, threads=[1])
    choices = json.loads(state.read_text())
    state.write_text(json.dumps(dict.fromkeys(choices, entry)))
    assert tuned(both) is None


def test_a_file_that_cannot_be_written_is_said_so(both: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    turns: list[int] = []
    with pytest.raises(OutputError, match=r"cannot record .*; set XDG_STATE_HOME to a folder that can be written, or"):
        tune(both, threads=[1], path=tmp_path / "file" / "tune.json", progress=lambda done, _: turns.append(done))
    assert turns == [], "said before a board has measured for a minute"


def test_a_choice_is_on_the_disk_before_it_has_its_name(
    tiny: Bundle, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power left an empty file, and with it the choices of all bundles were gone."""
    done: list[tuple[str, str]] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        done.append(("fsync", os.readlink(f"/proc/self/fd/{handle}")))
        real_fsync(handle)

    def replace(source: str, target: str) -> None:
        done.append(("replace", str(target)))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    tune(tiny, threads=[1])
    draft = str(state.with_name(f".tune.json.{os.getpid()}.part"))
    assert done == 2 * [("fsync", draft), ("replace", str(state)), ("fsync", str(state.parent))]
    assert [path.name for path in state.parent.iterdir()] == ["tune.json"]


def test_a_full_disk_keeps_the_choices_that_are_there(
    tiny: Bundle, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(tiny, threads=[1])
    was = state.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot record the choice: cannot write .*tune\.json: No space left on dev"):
        tune(tiny, threads=[1])
    assert state.read_bytes() == was
    assert [path.name for path in state.parent.iterdir()] == ["tune.json"]


def test_the_fastest_is_chosen_only_where_it_pays() -> None:
    fp32 = [Timing("fp32", 1, 10.0), Timing("fp32", 2, 9.8), Timing("fp32", 4, 6.0)]
    assert (chosen(fp32[:2]).encoder, chosen(fp32[:2]).threads) == ("fp32", 1)
    assert chosen(fp32).threads == 4
    assert "no INT8 encoder" in chosen(fp32).why
    assert chosen([*fp32, Timing("int8", 2, 5.0)]).encoder == "int8"
    close = chosen([*fp32, Timing("int8", 2, 5.9)])
    assert close.encoder == "fp32"
    assert "not worth" in close.why
    refused = chosen([*fp32, Timing("int8", 2, 1.0, refused="it saturates")])
    assert refused.encoder == "fp32"
    assert "it saturates" in refused.why


def test_codings_are_timed_and_say_below_which_rate_contexts_pay(tiny: Bundle) -> None:
    symbols = [np.random.default_rng(k).integers(-1, 2, (4, 4, 4)).astype(np.int32) for k in range(2)]
    alone = time_codings(tiny, symbols, level=1)
    assert [one.coding for one in alone.timings] == [0]
    assert alone.pays_below_kbit_per_s is None
    both = with_contexts(tiny, contexts(3, groups=(1, 2, 1), levels=3), note={"photographs": 1})
    found = time_codings(both, symbols, level=1)
    assert [one.coding for one in found.timings] == [0, 2]
    for coding, one in zip((0, 2), found.timings, strict=True):
        device = Device(both, threads=1, coding=coding)
        assert one.bytes == np.mean([len(device.pack(chw, level=1)) for chw in symbols])
        assert one.ms > 0
    channel, context = CodingTiming(0, 0.2, 1800.0), CodingTiming(2, 2.2, 1300.0)
    assert CodingTimings(4, (channel, context)).pays_below_kbit_per_s == 2000.0  # 500 bytes in 2 ms
    assert CodingTimings(4, (channel, CodingTiming(2, 2.2, 1900.0))).pays_below_kbit_per_s is None


def test_a_user_without_a_home_has_no_choice(both: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert tuned(both) is None
    with pytest.raises(SettingsError, match="set XDG_STATE_HOME"):
        tune(both, threads=[1])
