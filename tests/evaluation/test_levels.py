from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from splitcodec.cli.contexts import _latents
from splitcodec.cli.show import progress
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundlePart, SettingsError
from splitcodec.evaluation.contextual import with_contexts
from splitcodec.evaluation.golden import FILE, make_golden
from splitcodec.evaluation.levels import Placed, mean_price, nearest, place, with_levels
from splitcodec.evaluation.replay import replay
from splitcodec.wire.bundle import Bundle, derive, device_half, open_bundle, write_folder
from splitcodec.wire.tabulate import REACH, empty_counts, gains_at, geometric_prior, tables_of
from tests.cli.test_cli import refused, run
from tests.wire.test_contexts import contexts

Latents = list[NDArray[np.float32]]


@pytest.fixture(scope="module")
def whole(tiny: Bundle, pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the tiny bundle with golden vectors."""
    vectors = make_golden(Device(tiny, threads=1), Edge(tiny, threads=1), pictures[:3])
    return write_folder(derive(tiny, tiny.manifest, files={FILE: vectors}), tmp_path_factory.mktemp("whole") / "tiny")


@pytest.fixture(scope="module")
def latents(whole: Bundle, pictures: list[Image.Image]) -> Latents:
    device = Device(whole, threads=1)
    return [device.encoder.latent_chw(device.crop(picture)) for picture in pictures]


def _sizes(bundle: Bundle, latents: Latents) -> list[float]:
    return [mean_price(gain_c, latents) for gain_c in bundle.tables[0].gain_lc]


def _packets(bundle: Bundle, latents: Latents) -> list[float]:
    device = Device(bundle, threads=1)
    levels = range(bundle.manifest.levels)
    return [float(np.mean([len(device.pack_latent(one, level=level)) for one in latents])) for level in levels]


def test_gains_lie_on_lines_between_levels_and_beyond() -> None:
    log_lc = np.array([[0.0, 0.0], [1.0, 1.0], [4.0, 2.0]])
    assert gains_at(log_lc, 1.0).tolist() == [1.0, 1.0]
    assert gains_at(log_lc, 1.5).tolist() == [2.5, 1.5]
    assert gains_at(log_lc, -1.0).tolist() == [-2.0, -1.0]  # along the line from level 2 to level 0
    assert gains_at(log_lc, 3.0).tolist() == [6.0, 3.0]
    assert gains_at(log_lc[:2], -1.0).tolist() == [-1.0, -1.0]
    assert gains_at(log_lc[:1], -2.0).tolist() == [-0.6, -0.6]  # of one level all alike


def test_sizes_that_are_asked_for_come_out(whole: Bundle, latents: Latents) -> None:
    old = _sizes(whole, latents)
    wanted = [old[0] * 0.8, (old[0] + old[1]) / 2, old[2] * 1.001, old[2] * 1.2]
    placed = place(whole.tables[0], latents, wanted)
    assert placed[0].place < 0 < placed[1].place < 1
    assert placed[2].place == 2.0  # has that size already
    assert placed[3].place > 2
    new = with_levels(whole, placed, latents, default=1)
    assert _sizes(new, latents) == pytest.approx(wanted, rel=0.03)  # of few symbols
    assert np.array_equal(new.tables[0].gain_lc[2], whole.tables[0].gain_lc[2])
    sizes = _packets(new, latents)
    assert sizes == sorted(sizes)
    assert sizes == pytest.approx([one.bytes_mean for one in placed])


def test_sizes_are_those_of_packets_however_few_the_photographs() -> None:
    """Of five photographs levels of 250 bytes had 273: sizes were told by frequencies that no table has."""
    shipped = open_bundle("efficientnet-lite0")
    device = Device(shipped, threads=1)
    latents = [device.encoder.latent_chw(device.crop(photo.read())) for photo in PHOTOGRAPHS]
    placed = place(shipped.tables[0], latents, [250.0, 500.0])
    packets = _packets(with_levels(shipped, placed, latents, default=0), latents)
    assert packets == pytest.approx([one.bytes_mean for one in placed])
    assert packets == pytest.approx([250, 500], abs=1)


def test_the_new_bundle_is_whole(whole: Bundle, latents: Latents, tmp_path: Path) -> None:
    placed = place(whole.tables[0], latents, [size * 0.9 for size in _sizes(whole, latents)])
    new = write_folder(with_levels(whole, placed, latents, default=2, version=9), tmp_path / "new")
    assert (new.ident, new.manifest.levels, new.manifest.default_level) == ("tiny@9", 3, 2)
    assert new.fingerprint != whole.fingerprint
    assert new.graph("encoder") == whole.graph("encoder")
    assert new.manifest.provenance["placed"]["from"] == whole.ident
    assert replay(new).levels == 3


def test_contexts_go_since_they_belong_to_the_old_levels(
    whole: Bundle, latents: Latents, pictures: list[Image.Image]
) -> None:
    carded = derive(whole, whole.manifest, files={"MODEL_CARD.md": b"# tiny@1\n\nSomething else."})
    old = with_contexts(carded, contexts(3, groups=(1, 2, 1), levels=3), note={"photographs": 3})
    sizes = _sizes(old, latents)
    new = with_levels(old, place(old.tables[0], latents, sizes[:2]), latents, default=0)
    assert old.contexts is not None
    assert new.contexts is None
    assert new.manifest.codings == (0,)
    assert "contexts" in old.manifest.provenance
    assert "contexts" not in new.manifest.provenance
    assert not new.has("contexts.npz")
    assert "coded by context" in old.read("MODEL_CARD.md").decode()
    assert "coded by context" not in new.read("MODEL_CARD.md").decode()
    assert Edge(new, threads=1).answer(Device(new, threads=1).encode(pictures[0]))["level"] == 0


def test_levels_are_stretched_by_six_and_no_further(
    whole: Bundle, latents: Latents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the page calls somewhat: gains of trained levels say little further out."""
    tables = whole.tables[0]
    log_gain_lc, last = np.log(tables.gain_lc.astype(np.float64)), tables.levels - 1

    def price(gain_c: NDArray[np.float32], _: Latents) -> float:  # of few symbols the true one stands still out there
        return 5000 + 100 * float(np.log(gain_c).mean())

    monkeypatch.setattr("splitcodec.evaluation.levels.mean_price", price)
    for at, further in ((-5.9, -6.1), (last + 5.9, last + 6.1)):
        near, far = (price(np.exp(gains_at(log_gain_lc, one)).astype(np.float32), latents) for one in (at, further))
        (placed,) = place(tables, latents, [near])
        assert placed.place == pytest.approx(at, abs=0.01)
        with pytest.raises(SettingsError, match="can be stretched to"):
            place(tables, latents, [far])


@pytest.mark.parametrize(
    ("sizes", "why"),
    [([], "1 to 16"), ([50.0, 40.0], "rising"), ([50.0, 50.0], "rising"), ([1e7], "can be stretched to")],
)
def test_sizes_that_cannot_be_had_are_refused(whole: Bundle, latents: Latents, sizes: list[float], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        place(whole.tables[0], latents, sizes)


def test_a_device_s_half_is_refused(whole: Bundle, latents: Latents) -> None:
    placed = [Placed(0.0, 50.0, 50.0)]
    with pytest.raises(BundlePart, match="half"):
        with_levels(device_half(whole), placed, latents, default=0)
    with pytest.raises(SettingsError, match="default level 1"):
        with_levels(whole, placed, latents, default=1)


def test_the_default_level_moves_with_its_size() -> None:
    placed = [Placed(-1.0, 1, 1), Placed(0.4, 2, 2), Placed(1.8, 3, 3)]
    assert [nearest(placed, level) for level in (0, 1, 2)] == [1, 1, 2]


def test_rows_hold_what_was_counted_and_what_was_not() -> None:
    seen = empty_counts(1, 2)
    seen[0, 0, REACH] = 900
    seen[0, 0, REACH + 3] = 100
    prior = geometric_prior(seen)
    assert prior.sum(axis=2) == pytest.approx(1.0)
    magnitude_s = np.abs(np.arange(-REACH, REACH + 1))
    assert (prior * magnitude_s).sum(axis=2)[0] == pytest.approx([301 / 1001, 1])  # with one symbol of magnitude 1 more
    tables = tables_of(prior, seen, np.ones((1, 2), np.float32))
    low, high = tables.range_of(0)
    assert high[0] >= 3
    assert (low <= -1).all()
    assert (high >= 1).all()


def test_the_command_says_where_levels_lie(
    whole: Bundle, latents: Latents, pictures: list[Image.Image], tmp_path: Path
) -> None:
    for k, picture in enumerate(pictures):
        picture.save(tmp_path / f"{k}.png")
    sizes = _sizes(whole, latents)
    asked = f"{sizes[0]:.0f},{sizes[1]:.0f}"
    arguments = ["levels", str(whole.path), "--photos", str(tmp_path), "-o", str(tmp_path / "out"), "--json"]
    done = run(*arguments, "--bytes", asked)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [one["level"] for one in told["levels"]] == [0, 1]
    assert (told["default"], whole.manifest.default_level) == (1, 1)
    assert (tmp_path / "out" / "manifest.json").is_file()
    refused(run(*arguments, "--bytes", asked), "exists")
    elsewhere = [*arguments[:4], "-o", str(tmp_path / "no")]
    refused(run(*elsewhere, "--bytes", "12,many"), "expected numbers")
    refused(run(*elsewhere, "--bytes", "1000000"), "can be stretched to")
    assert not (tmp_path / "no").exists()


def test_the_card_counts_the_levels_that_are_there(whole: Bundle, latents: Latents) -> None:
    card = b"# tiny@1\n\n12 parameters. 3 rate levels, 4 latent channels.\n"
    old = derive(whole, whole.manifest, files={"MODEL_CARD.md": card})
    new = with_levels(old, place(old.tables[0], latents, _sizes(old, latents)[:2]), latents, default=0, version=2)
    told = new.read("MODEL_CARD.md").decode()
    assert told.startswith("# tiny@2\n\n12 parameters. 2 rate levels, 4 latent channels.\n\n`splitcodec levels`")


def test_a_card_that_is_no_utf8_stops_nothing(whole: Bundle, latents: Latents) -> None:
    odd = derive(whole, whole.manifest, files={"MODEL_CARD.md": b"# caf\xe9\n"})
    new = with_levels(odd, [Placed(1.0, 50.0, 50.0)], latents, default=0)
    assert "levels of 50 bytes" in new.read("MODEL_CARD.md").decode()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--bytes", "50,40"], "rising"),
        (["--bytes", "nan"], "rising"),
        (["--bytes", "50,inf"], "rising"),
        (["--bytes", "5"], "more than 12 bytes"),
        (["--bytes", "50", "--default", "1"], "default level 1: expected 0 to 0"),
    ],
)
def test_wrong_options_are_refused_before_photographs_are_read(
    whole: Bundle, tmp_path: Path, options: list[str], why: str
) -> None:
    """The folder holds no photograph, which would be the refusal if it was looked at first."""
    refused(run("levels", whole.path, "--photos", tmp_path, *options, "-o", tmp_path / "new"), "SettingsError", why)


def test_no_more_photographs_are_read_than_count(whole: Bundle, pictures: list[Image.Image], tmp_path: Path) -> None:
    for k, picture in enumerate(pictures[:6]):
        picture.save(tmp_path / f"{k}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with progress() as bar:
        found, skipped = _latents(whole, sorted(tmp_path.glob("[0-9b]*.png")), threads=1, bar=bar, most=4)
    assert (len(found), len(skipped)) == (4, 0)
    with progress() as bar:
        found, skipped = _latents(whole, sorted(tmp_path.glob("[0-9b]*.png")), threads=1, bar=bar)
    assert (len(found), len(skipped)) == (6, 1)
