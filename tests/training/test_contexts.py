"""Networks of coding id 2: learned in torch, computed in NumPy, the same to the last bit; and worth their bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.errors import OutputError, SettingsError
from splitcodec.training import contexts as learning
from splitcodec.training.context_memory import Learned, Memory
from splitcodec.training.context_network import Network
from splitcodec.training.contexts import fit
from splitcodec.wire.bundle import open_bundle
from splitcodec.wire.context_coder import ContextCoder
from splitcodec.wire.contexts import Contexts
from splitcodec.wire.reading import Reading, networks_of, places_of


@pytest.fixture(scope="module")
def latents() -> NDArray[np.float32]:
    """Return latents in which a few hidden pictures set size and sign of all channels."""
    random = np.random.default_rng(3)
    size = np.exp(random.normal(0, 0.9, (96, 1, 6, 6)))
    sign = random.normal(size=(96, 2, 6, 6))
    mixed = np.einsum("cs,nsij->ncij", random.normal(size=(12, 2)), sign)
    noise = random.normal(0, 0.25, (96, 12, 6, 6))
    found: NDArray[np.float32] = (size * (mixed + noise) * np.linspace(2, 0.4, 12)[:, None, None]).astype(np.float32)
    return found.clip(-15, 15)


GAINS = np.stack([np.full(12, 0.7), np.full(12, 1.6)]).astype(np.float32)


def test_they_save_bytes_that_tables_cannot(latents: NDArray[np.float32]) -> None:
    told: list[tuple[int, int]] = []
    made = fit(latents[:64], GAINS, steps=60, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (120, 120)
    coder = ContextCoder(made)
    for level, gain_c in enumerate(GAINS):
        symbols = [np.rint(one * gain_c[:, None, None]).astype(np.int32) for one in latents]
        counts = [np.unique([one[c] for one in symbols[:64]], return_counts=True) for c in range(12)]
        entropy = sum(float(-(n * np.log2(n / n.sum())).sum()) for _, n in counts) / 64 / 8
        payloads = [coder.encode(one, level) for one in symbols[64:]]
        assert np.mean([len(payload) for payload in payloads]) < 0.93 * entropy + 4
        for payload, one in zip(payloads, symbols[64:], strict=True):
            assert np.array_equal(coder.decode(payload, one.shape, level=level), one)


def test_torch_and_numpy_choose_the_same_rows(latents: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    whole = Network.whole

    def keep(network: Network) -> object:
        symbols = np.rint(latents[5] * GAINS[len(kept)][:, None, None])[order_c][None].astype(np.float32)
        kept.append([(told.mean.detach(), told.width.detach()) for told in network.told(torch.from_numpy(symbols))])
        return whole(network)

    order_c = np.argsort(-(latents * GAINS[1][:, None, None]).std(axis=(0, 2, 3)), kind="stable")
    monkeypatch.setattr(Network, "whole", keep)
    made = fit(latents, GAINS, steps=25)
    assert np.array_equal(order_c, made.order_c)
    for level, told in enumerate(kept):
        symbols_chw = np.rint(latents[5] * GAINS[level][:, None, None]).astype(np.int32)
        symbols_nc = symbols_chw.reshape(12, -1)[made.order_c].T[places_of((6, 6)).raster_n]
        reading, phases = Reading(networks_of(made, level), (6, 6)), iter(told)
        for step in made.steps():
            (row_nc,), (whole_nc,) = reading.rows()
            pieces = [next(phases) for _ in step.phases]
            mean_nc, width_nc = (
                np.concatenate([piece[k][0].flatten(1).T.numpy() for piece in pieces]) for k in range(2)
            )
            assert np.array_equal((8 * whole_nc + (row_nc & 7) - 4) / 8, mean_nc)
            own_nc = (row_nc >> 3) - level * 72  # sets of 24 widths, the ends repeated 24 times between them
            assert np.array_equal(own_nc.clip(0, 23), width_nc)
            reading.put(symbols_nc[reading.part][None])
        assert next(phases, None) is None


def _size(made: Contexts, latents: NDArray[np.float32], level: int) -> float:
    coder, gain = ContextCoder(made), GAINS[level][:, None, None]
    return float(np.mean([len(coder.encode(np.rint(one * gain).astype(np.int32), level)) for one in latents]))


def test_they_learn_on_from_earlier_ones(latents: NDArray[np.float32]) -> None:
    earlier = fit(latents[:64], GAINS, steps=40)
    as_they_were = fit(latents[:64], GAINS, steps=1, start=earlier)
    for name in ("base_lkc", "into_lha", "into_bias_lsh", "out_lkcht", "out_bias_lkc"):
        before, after = getattr(earlier, name).astype(int), getattr(as_they_were, name).astype(int)
        assert np.abs(before - after).max() <= 0.02 * np.abs(before).max() + 2, name
    later = fit(latents[:64], GAINS, steps=60, start=earlier)
    assert np.array_equal(later.order_c, earlier.order_c)
    for level in range(2):
        assert _size(later, latents[64:], level) < _size(earlier, latents[64:], level)
    with pytest.raises(SettingsError, match="contexts to begin with: 2 levels"):
        fit(latents, GAINS[:1], steps=1, start=earlier)


def test_levels_share_sets_of_rows(latents: NDArray[np.float32]) -> None:
    gains = np.stack([np.full(12, gain) for gain in (0.3, 0.5, 0.8, 1.2, 1.6)]).astype(np.float32)
    made = fit(latents, gains, steps=10)
    assert made.widths == 24 + 2 * 72
    sets = [made.freq_ks[576 * one : 576 * one + 192] for one in range(3)]
    for number, (one, other) in enumerate(pairwise(sets)):
        assert not np.array_equal(one, other)
        between = made.freq_ks[576 * number + 192 : 576 * (number + 1)]
        assert np.array_equal(between, np.concatenate([np.tile(one[-8:], (24, 1)), np.tile(other[:8], (24, 1))]))
    used = [{int(row) >> 3 for row in Reading(networks_of(made, k), (6, 6)).rows()[0].ravel()} for k in range(5)]
    for rows, first in zip(used, (0, 0, 72, 72, 144), strict=True):
        assert first <= min(rows)
        assert max(rows) < first + 24
    again = fit(latents, gains, steps=1, start=made)
    assert made.widths == again.widths
    assert np.abs(made.out_bias_lkc.astype(int) - again.out_bias_lkc).max() < 72 * 512 / 2
    symbols_chw = np.rint(latents[3] * gains[4][:, None, None]).astype(np.int32)
    coder = ContextCoder(again)
    assert np.array_equal(coder.decode(coder.encode(symbols_chw, 4), (12, 6, 6), level=4), symbols_chw)


@pytest.mark.parametrize("levels", range(1, 17))
def test_sets_of_rows_fit(levels: int) -> None:
    sets = [learning._set_of(level, levels) for level in range(levels)]
    assert sets[0] == 0
    assert sets == sorted(sets)
    assert sets.count(sets[-1]) == 1
    assert max(map(sets.count, sets)) <= (2 if levels < 12 else 3)
    assert 8 * (24 + 72 * sets[-1]) <= 4096  # what a file may have


def test_a_kill_costs_one_level(latents: NDArray[np.float32], tmp_path: Path) -> None:
    kept, told = tmp_path / "kept", list[int]()

    class Killed(Exception):
        pass

    def until(step: int) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            told.append(done)
            if done == step:
                raise Killed

        return tell

    whole = fit(latents[:32], GAINS, steps=8)
    with pytest.raises(Killed):
        fit(latents[:32], GAINS, steps=8, memory=kept, progress=until(11))
    assert kept.exists()
    told.clear()
    again = fit(latents[:32], GAINS, steps=8, memory=kept, progress=until(-1))
    assert told[0] == 9
    assert again.shared_bytes() == whole.shared_bytes()
    told.clear()
    once_more = fit(latents[:32], GAINS, steps=8, memory=kept, progress=until(-1))  # had it not been put away
    assert not told
    assert once_more.shared_bytes() == whole.shared_bytes()


@pytest.mark.parametrize("damage", ["another call's", "cut short"])
def test_what_was_kept_is_taken_for_nothing_else(latents: NDArray[np.float32], tmp_path: Path, damage: str) -> None:
    kept = tmp_path / "kept"
    other = Memory(kept, [b"another"])
    other.save(Learned(random=torch.get_rng_state()))
    assert other.load() is not None
    if damage == "cut short":
        kept.write_bytes(kept.read_bytes()[:-40])
        assert other.load() is None
    made = fit(latents[:32], GAINS, steps=2, memory=kept)
    assert made.shared_bytes() == fit(latents[:32], GAINS, steps=2).shared_bytes()


def test_what_is_kept_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def noted(name: str) -> Callable[..., None]:
        real: Callable[..., None] = getattr(os, name)

        def call(*rest: object) -> None:
            done.append(name)
            real(*rest)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name))
    memory = Memory(tmp_path / "kept", [b""])
    done.clear()  # whether the folder can be written is tried first
    memory.save(Learned())
    assert done == ["fsync", "replace", "fsync"]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_memory_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    """It was after the first level's."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: cannot be"):
        Memory(tmp_path / "file" / "kept", [b""])


def test_too_little_is_refused(latents: NDArray[np.float32]) -> None:
    with pytest.raises(SettingsError, match="15 photographs"):
        fit(latents[:15], GAINS)
    with pytest.raises(SettingsError, match="0 steps"):
        fit(latents, GAINS, steps=0)


def test_one_channel_needs_no_network() -> None:
    made = fit(
        np.random.default_rng(1).normal(size=(16, 1, 2, 2)).astype(np.float32), np.ones((1, 1), np.float32), steps=2
    )
    symbols_chw = np.array([[[0, 1], [-1, 0]]], np.int32)
    coder = ContextCoder(made)
    assert np.array_equal(coder.decode(coder.encode(symbols_chw, 0), (1, 2, 2), level=0), symbols_chw)


def test_the_command_makes_a_bundle(tiny_folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(24):
        Image.effect_noise((70, 70), 20 + 5 * k).convert("RGB").save(photos / f"{k:02}.png")
    words = ["contexts", str(tiny_folder), "--photos", str(photos), "--steps", "3", "-o", str(tmp_path / "out")]
    told = CliRunner().invoke(app, [*words, "--version", "7"])
    assert told.exit_code == 0, told.output
    made = open_bundle(str(tmp_path / "out"))
    assert (made.ident, made.manifest.codings) == ("tiny@7", (0, 2))
    assert made.manifest.provenance["contexts"]["photographs"] == 22
    again = CliRunner().invoke(app, [*words, "--json"])
    assert again.exit_code == 2 or "exists" in str(again.exception)
    earlier = str(tmp_path / "out")
    more = ["contexts", earlier, "--photos", str(photos), "--steps", "2", "--start", earlier]
    told = CliRunner().invoke(app, [*more, "-o", str(tmp_path / "more"), "--json"])
    assert told.exit_code == 0, told.output
    assert open_bundle(str(tmp_path / "more")).manifest.provenance["contexts"]["start"] == "tiny@7"
    assert not list(tmp_path.glob(".*"))
    both = CliRunner().invoke(app, [*more, "--like", earlier, "-o", str(tmp_path / "both")])
    assert both.exit_code != 0
    assert "give one of both" in str(both.exception)
    few = CliRunner().invoke(app, [*words[:-1], str(tmp_path / "few"), "--photos", str(tmp_path / "none")])
    assert few.exit_code != 0
