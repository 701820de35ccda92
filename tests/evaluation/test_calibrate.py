from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundleNotFound, DataError, GraphError, OutputError, PacketBundle, SettingsError
from splitcodec.evaluation import calibrate as module
from splitcodec.evaluation.calibrate import Calibration, calibrate
from splitcodec.evaluation.golden import FILE, make_golden
from splitcodec.evaluation.refit import Counts
from splitcodec.evaluation.replay import replay
from splitcodec.wire.bundle import Bundle, derive, open_bundle, split_device, write_folder

COUNT = 20


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 20 dark, plain photographs in two folders, and two broken ones."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(2)
    (folder / "deeper").mkdir()
    for k in range(COUNT):
        colours = Image.fromarray(random.integers(0, 60, (3, 3, 3), dtype=np.uint8))
        colours.resize((80, 80)).save(folder / ("deeper" if k % 2 else ".") / f"{k:02d}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "deeper" / "cut.png").write_bytes((folder / "00.png").read_bytes()[:80])
    (folder / "notes.txt").write_text("not a picture, and not listed")
    return folder


@pytest.fixture(scope="module")
def whole(tiny: Bundle, pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the tiny bundle with golden vectors."""
    vectors = make_golden(Device(tiny, threads=1), Edge(tiny, threads=1), pictures[:4])
    folder = tmp_path_factory.mktemp("whole") / "tiny"
    return write_folder(derive(tiny, tiny.manifest, files={FILE: vectors}), folder)


@pytest.fixture(scope="module")
def done(whole: Bundle, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return calibrate(whole, [photos], tmp_path_factory.mktemp("out") / "mine", threads=2)


def test_packets_of_photographs_like_these_get_shorter(done: Calibration) -> None:
    assert (done.photographs, done.held_out) == (16, 4)
    assert [one.level for one in done.levels] == [0, 1, 2]
    assert done.levels[2].after < done.levels[2].before
    assert done.change < 0
    assert done.change == pytest.approx(np.mean([100 * (one.after / one.before - 1) for one in done.levels]))


def test_the_sizes_are_those_of_packets(done: Calibration, whole: Bundle, photos: Path) -> None:
    paths = [path for path in module.shuffled([photos]) if path.name not in ("broken.jpg", "cut.png")]
    for bundle, name in ((whole, "before"), (done.bundle, "after")):
        device = Device(bundle, threads=1)
        for one in done.levels:
            sizes = [len(device.encode(path, level=one.level)) for path in paths[: done.held_out]]
            assert getattr(one, name) == np.mean(sizes)


def test_each_level_has_its_own_share_of_clipped_symbols(
    tiny: Bundle, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counts, "clipped", lambda _, level: 1.5 * level)
    done = calibrate(tiny, [photos], tmp_path / "x", threads=1)
    assert [one["clipped_percent"] for one in done.to_json()["levels"]] == [0.0, 1.5, 3.0]


def test_broken_photographs_are_listed(done: Calibration) -> None:
    assert sorted(Path(name).name for name, _ in done.skipped) == ["broken.jpg", "cut.png"]
    assert all(why for _, why in done.skipped)
    assert len(done.to_json()["skipped"]) == 2


def test_only_tables_and_what_hangs_on_them_change(done: Calibration, whole: Bundle, photos: Path) -> None:
    new = done.bundle
    assert new.ident == whole.ident
    assert new.fingerprint != whole.fingerprint == done.was
    changed = {name for name in whole.manifest.files if whole.read(name) != new.read(name)}
    assert changed == {"tables.npz", FILE, "MODEL_CARD.md"}
    assert set(new.manifest.files) == set(whole.manifest.files)
    note = new.manifest.provenance["calibrated"]
    assert (note["photographs"], note["held_out"], note["strength"]) == (16, 4, done.strength)
    assert note["fingerprint_before"] == whole.fingerprint.hex()
    told = new.manifest.to_json() + new.read("MODEL_CARD.md")
    assert str(photos).encode() not in told
    assert photos.name.encode() not in told


def test_golden_vectors_are_remade_without_a_users_pictures(done: Calibration, whole: Bundle) -> None:
    assert replay(done.bundle, threads=1).answers
    old, new = (dict(np.load(bundle.path / FILE)) for bundle in (whole, done.bundle))
    for name in ("image_bhwc", "symbols_lnchw", "top_ln"):
        assert np.array_equal(old[name], new[name])


def test_answers_stay_and_both_shores_need_the_new_bundle(done: Calibration, whole: Bundle, photos: Path) -> None:
    old, new = Device(whole, threads=1), Device(done.bundle, threads=1)
    for level in range(3):
        before, after = (device.symbols(photos / "00.png", level=level) for device in (old, new))
        assert np.array_equal(before, after)
    packet = new.encode(photos / "00.png")
    assert (
        Edge(done.bundle, threads=1).answer(packet)["answers"]
        == Edge(whole, threads=1).answer(old.encode(photos / "00.png"))["answers"]
    )
    with pytest.raises(PacketBundle):
        Edge(whole, threads=1).answer(packet)


def test_the_same_again_gives_the_same_fingerprint(
    done: Calibration, whole: Bundle, photos: Path, tmp_path: Path
) -> None:
    again = calibrate(whole, [photos], tmp_path / "again", threads=1)
    assert again.bundle.fingerprint == done.bundle.fingerprint
    assert again.levels == done.levels


def test_a_devices_half_gets_the_same_tables(done: Calibration, whole: Bundle, photos: Path, tmp_path: Path) -> None:
    half = calibrate(split_device(whole, tmp_path / "half"), [photos], tmp_path / "out", threads=1)
    assert half.bundle.is_device_half
    assert half.bundle.fingerprint == done.bundle.fingerprint
    assert not replay(half.bundle, threads=1).answers
    packet = Device(half.bundle, threads=1).encode(photos / "00.png")
    assert Edge(done.bundle, threads=1).answer(packet)


def test_progress_ends_at_the_end(whole: Bundle, photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    calibrate(whole, [photos], tmp_path / "x", threads=1, progress=lambda now, all_: seen.append((now, all_)))
    assert seen == sorted(seen)
    assert seen[0] == (0, 26)
    assert seen[-1] == (26, 26)


def test_a_bundle_without_golden_vectors_stays_without(tiny: Bundle, photos: Path, tmp_path: Path) -> None:
    assert not calibrate(tiny, [photos, photos], tmp_path / "x", threads=1).bundle.has(FILE)


def test_the_fewest_photographs(tiny: Bundle, photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "._00.png").write_bytes(b"Mac OS X")  # hidden: no photograph
    for name in ("broken.jpg", "00.png", "02.png"):
        (few / name).write_bytes((photos / name).read_bytes())
    done = calibrate(tiny, [few], tmp_path / "x", threads=1)
    assert (done.photographs, done.held_out, len(done.skipped)) == (1, 1, 1)
    (few / "02.png").unlink()
    with pytest.raises(DataError, match="1 of 2 photographs can be read, expected at least 2"):
        calibrate(tiny, [few], tmp_path / "y", threads=1)
    assert not (tmp_path / "y").exists()


def test_refusals(tiny: Bundle, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        calibrate(tiny, [photos], photos)
    with pytest.raises(DataError, match="no photographs"):
        calibrate(tiny, [tmp_path], tmp_path / "new" / "x")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="no folder at"):
        calibrate(tiny, [tmp_path / "none"], tmp_path / "x")
    with pytest.raises(BundleNotFound):
        calibrate(tmp_path / "none", [photos], tmp_path / "x")
    with pytest.raises(SettingsError, match="threads 0"):
        calibrate(tiny, [photos], tmp_path / "x", threads=0)
    with pytest.raises(SettingsError, match="codings"):
        calibrate(replace(tiny, manifest=replace(tiny.manifest, codings=(0, 3))), [photos], tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(
    tiny: Bundle, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    told: list[int] = []
    with pytest.raises(OutputError, match="cannot be made"):
        calibrate(tiny, [photos], tmp_path / "file" / "mine", progress=lambda done, of: told.append(done))
    assert not told


def test_an_interrupted_run_leaves_nothing(tiny: Bundle, photos: Path, tmp_path: Path) -> None:
    def stop(now: int, _: int) -> None:
        if now == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(tiny, [photos], tmp_path / "x", progress=stop, threads=1)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_encoder_is_no_broken_photograph(tiny: Bundle, photos: Path, tmp_path: Path) -> None:
    wrong = derive(tiny, tiny.manifest, files={"encoder.onnx": tiny.graph("head")})
    with pytest.raises(GraphError):
        calibrate(wrong, [photos], tmp_path / "x", threads=1)


def test_a_zip_can_be_calibrated(whole: Bundle, done: Calibration, photos: Path, tmp_path: Path) -> None:
    from splitcodec.wire.bundle import write_zip

    write_zip(whole, tmp_path / "whole.zip")
    result = calibrate(tmp_path / "whole.zip", [photos], tmp_path / "out", threads=1)
    assert open_bundle(tmp_path / "out").fingerprint == result.bundle.fingerprint == done.bundle.fingerprint


def test_a_fifth_of_those_that_can_be_read_is_measured_and_all_others_are_learned_from(
    tiny: Bundle, photos: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for k in range(10):
        (mixed / f"{k}.png").write_bytes((photos / f"{2 * k:02d}.png").read_bytes())
        (mixed / f"broken{k}.png").write_bytes(b"no picture")
    done = calibrate(tiny, [mixed], tmp_path / "x", threads=1)
    assert (done.photographs, done.held_out, len(done.skipped)) == (8, 2, 10)


def test_the_order_has_nothing_to_do_with_names(tmp_path: Path) -> None:
    """Or a fifth of the photographs would be one class, or one evening."""
    for k in range(40):
        (tmp_path / f"{k:02d}.jpg").touch()
    found = [int(path.stem) for path in module.shuffled([tmp_path])]
    assert sorted(found) == list(range(40))
    assert abs(np.corrcoef(found, range(40))[0, 1]) < 0.5
    assert module.shuffled([tmp_path]) == [tmp_path / f"{k:02d}.jpg" for k in found]


def test_a_photograph_counts_once_however_its_folder_is_spelt(tmp_path: Path) -> None:
    """Twice, it was measured as well as counted."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for place in (inner / "x.jpg", inner.parent / "y.jpg"):
        place.touch()
    found = module.shuffled([inner.parent, inner, inner.parent / ".." / "a"])
    assert sorted(path.name for path in found) == ["x.jpg", "y.jpg"]
