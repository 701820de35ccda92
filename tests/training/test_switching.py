from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splitcodec.edge.decoder import Decoder
from splitcodec.errors import DataError, RunError
from splitcodec.model.switched import Switch
from splitcodec.training import switching
from splitcodec.training.distill import train
from splitcodec.training.from_bundle import layer_weights
from splitcodec.training.recipe import Recipe
from splitcodec.training.redecode import redecode
from splitcodec.wire.bundle import Bundle

Make = Callable[[], dict[str, Any]]


@pytest.fixture(scope="module")
def runs(recipe_data: Make, bundle: Bundle, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return runs of the bundle's decoder: on disturbed pictures, and on clean ones alone."""
    folders = []
    for share in (0.5, 0.0):
        data = recipe_data()
        stage = {**data["stage1"], "tune": "decoder", "images": 12}
        data |= {"name": "next", "start": str(bundle.path), "stage1": stage, "stage2": None}
        recipe = Recipe.model_validate({**data, "data": {**data["data"], "disturbed": share}})
        folders.append(tmp_path_factory.mktemp("runs") / "run")
        train(recipe, photos=[photos], out=folders[-1], report=lambda _: None)
    return folders


def _remade(old: Bundle, new: Bundle) -> dict[str, bytes]:
    return {}


@pytest.fixture(scope="module")
def made(bundle: Bundle, runs: list[Path], photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(switching, "CROPS", 80)
        out = tmp_path_factory.mktemp("made") / "bundle"
        seen = list[tuple[int, int]]()
        found = redecode(bundle, runs[:1], out, remade=_remade, switch=[photos], progress=lambda *now: seen.append(now))
    assert seen == [(1, 2), (2, 2)]
    return found


def test_a_bundle_keeps_its_decoder_and_has_the_other_beside_it(bundle: Bundle, made: Bundle) -> None:
    before, after = layer_weights(bundle, "decoder"), layer_weights(made, "decoder")
    assert before.keys() < after.keys()
    assert all(np.array_equal(one, after[name]) for name, one in before.items())
    assert any(one.any() for name, one in after.items() if name.startswith("beside."))
    assert made.fingerprint == bundle.fingerprint  # packets are the same
    told = made.manifest.provenance["redecoded"]["switch"]
    assert told["photographs"] == 2
    assert 0 <= told["clean_untouched"] <= 100
    assert "It decodes only packets that look disturbed, the old one all others" in made.read("MODEL_CARD.md").decode()


def test_it_decodes_grids_of_any_size_and_several_at_once(made: Bundle) -> None:
    decoder = Decoder(made)
    for rows, cols in ((8, 8), (5, 7)):
        latent = np.random.default_rng(0).normal(size=(3, made.manifest.channels, rows, cols)).astype(np.float32)
        found = decoder.features_bchw(latent)
        for one, wanted in zip(latent, found, strict=True):
            assert decoder.features_bchw(one[None])[0] == pytest.approx(wanted, abs=1e-4)


def test_it_may_be_made_again_and_begins_runs(
    recipe_data: Make, made: Bundle, bundle: Bundle, runs: list[Path], photos: Path, tmp_path: Path
) -> None:
    """A run that begins with it begins with the decoder of clean pictures; `redecode` refuses older runs."""
    data = recipe_data()
    stage = {**data["stage1"], "tune": "decoder", "images": 4, "learning_rate": 1e-9}
    data |= {"name": "next", "start": str(made.path), "stage1": stage, "stage2": None}
    train(Recipe.model_validate(data), photos=[photos], out=tmp_path / "run", report=lambda _: None)
    again = redecode(made, [tmp_path / "run"], tmp_path / "again", remade=_remade)
    before, after = layer_weights(bundle, "decoder"), layer_weights(again, "decoder")
    assert before.keys() == after.keys()
    assert all(after[name] == pytest.approx(one, abs=0.05) for name, one in before.items())
    with pytest.raises(RunError, match="it began with the decoder of"):
        redecode(made, runs[:1], tmp_path / "no", remade=_remade, switch=[photos])


def test_it_is_the_same_every_time(
    made: Bundle, bundle: Bundle, runs: list[Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "CROPS", 80)
    torch.manual_seed(7)
    redecode(bundle, runs[:1], tmp_path / "bundle", remade=_remade, switch=[photos])
    assert (tmp_path / "bundle" / "decoder.onnx").read_bytes() == made.read("decoder.onnx")


def test_what_cannot_be_switched_is_refused(bundle: Bundle, runs: list[Path], photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has seen clean pictures alone"):
        redecode(bundle, runs[1:], tmp_path / "no", remade=_remade, switch=[photos])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        redecode(bundle, runs[:1], tmp_path / "no", remade=_remade, switch=[tmp_path / "empty"])
    assert not (tmp_path / "no").exists()


def test_it_learns_from_pictures_and_the_same_ones_disturbed(
    bundle: Bundle, runs: list[Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it tells of those held out is what they got: all or none here."""
    monkeypatch.setattr(switching, "CROPS", 80)
    monkeypatch.setattr(switching, "disturbed", lambda image_u8, share: torch.zeros_like(image_u8))
    really = switching._learn
    black = switching._Look(bundle)(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    for logit, told in ((-9.0, (100.0, 0.0)), (9.0, (0.0, 100.0))):
        given = list[torch.Tensor]()

        def learn(switch: Switch, *seen: torch.Tensor, logit: float = logit, given: list[torch.Tensor] = given) -> None:
            given.extend(seen)
            torch.nn.init.zeros_(switch.say.weight)
            torch.nn.init.constant_(switch.get_parameter("say.bias"), logit)

        monkeypatch.setattr(switching, "_learn", learn)
        found = redecode(bundle, runs[:1], tmp_path / str(logit), remade=_remade, switch=[photos])
        clean, spoilt = given
        assert len(clean) == len(spoilt) == 80
        assert torch.allclose(spoilt, black.repeat(40, 1, 1, 1), atol=1e-5)
        assert not torch.allclose(clean, spoilt, atol=1e-2)
        switch = found.manifest.provenance["redecoded"]["switch"]
        assert (switch["clean_untouched"], switch["disturbed_found"]) == told
    monkeypatch.setattr(switching, "_learn", really)
    found = redecode(bundle, runs[:1], tmp_path / "learned", remade=_remade, switch=[photos])
    switch = found.manifest.provenance["redecoded"]["switch"]
    assert (switch["clean_untouched"], switch["disturbed_found"]) == (100.0, 100.0)


def test_levels_are_dealt_out_in_turn(bundle: Bundle) -> None:
    image_u8 = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8).expand(4, -1, -1, -1)
    low, high, again, _ = switching._Look(bundle)(image_u8)
    assert torch.equal(low, again)
    assert not torch.allclose(low, high, atol=1e-3)


def test_it_learns_what_tells_them_apart_and_is_wary() -> None:
    torch.manual_seed(0)
    clean, found = torch.rand(400, 6, 1, 1), torch.rand(400, 6, 1, 1)
    found[:200, 0] += 2.0  # the other half looks as clean ones do
    switch, threads = Switch(3), torch.get_num_threads()
    switching._learn(switch, clean, found)
    assert torch.get_num_threads() == threads
    assert not any(one.requires_grad for one in switch.parameters())
    with torch.no_grad():
        assert (switch(clean) == 0).float().mean() > 0.98
        assert (switch(found[200:]) == 0).float().mean() > 0.98
        assert switch(found[:200]).mean() > 0.9
