from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from splitcodec.device.image import load_picture
from splitcodec.device.placed import crop_bhwc
from splitcodec.errors import DataError
from splitcodec.layouts.folders import find_photographs
from splitcodec.training.data import (
    Photographs,
    _mix,
    centre_crops,
    labels_of,
    names_digest,
    split_holdout,
)


def _source(paths: list[Path], *, memory_mb: int = 100, jitter: float = 0.2, seed: int = 1) -> Photographs:
    return Photographs(paths, crop=48, smallest_crop=0.35, jitter=jitter, memory_mb=memory_mb, seed=seed)


def _batches(source: Photographs, first: int, last: int, *, stream: int = 0) -> list[Tensor]:
    return [crops.image_u8 for crops in source.batches(first, last, batch=3, stream=stream)]


def test_photographs_are_found_below_and_in_order(photos: Path) -> None:
    found = find_photographs([photos])
    assert len(found) == 24
    assert found == sorted(found)
    assert find_photographs([photos, photos / "more"]) == found  # each once: a copy might be held out


def test_hidden_files_are_no_photographs(tmp_path: Path, photos: Path) -> None:
    """macOS leaves `._x.jpg` beside every x.jpg that it copies to another disk: half a folder could not be read."""
    for name in ("a.jpg", "._a.jpg", ".b.jpg"):
        shutil.copy(photos / "00.jpg", tmp_path / name)
    assert [path.name for path in find_photographs([tmp_path])] == ["a.jpg"]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match="no photographs below"):
        find_photographs([tmp_path])


def test_another_set_of_names_has_another_digest(tmp_path: Path, photos: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved)
    found = find_photographs([photos])
    digest = names_digest(found, [photos])
    assert names_digest(find_photographs([moved]), [moved]) == digest
    (moved / "00.jpg").rename(moved / "new.jpg")
    assert names_digest(find_photographs([moved]), [moved]) != digest


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError, match=r"no photographs below .*expected files ending in \.avif"):
        find_photographs([tmp_path])
    with pytest.raises(DataError, match=r"no folder at .*nowhere; give a folder of photographs"):
        find_photographs([tmp_path / "nowhere"])


def test_the_holdout_is_apart_and_the_same_for_a_seed() -> None:
    paths = [Path(f"{n}.jpg") for n in range(50)]
    training, held = split_holdout(paths, 4, seed=3)
    assert len(held) == 4
    assert sorted(training + held) == sorted(paths)
    assert split_holdout(paths, 4, seed=3) == (training, held)
    assert split_holdout(paths, 4, seed=4) != (training, held)
    assert len(split_holdout(paths, 1000, seed=3)[1]) == 5
    assert split_holdout(paths[:9], 4, seed=3)[1] == []


def test_batches_depend_on_seed_stream_and_step_alone(photos: Path) -> None:
    paths = find_photographs([photos])
    whole = _batches(_source(paths), 0, 6)
    assert whole[0].shape == (3, 3, 48, 48)
    assert whole[0].dtype == torch.uint8
    rest = _batches(_source(paths, memory_mb=1), 4, 6)  # resumed, and with other pictures in memory
    assert all(torch.equal(a, b) for a, b in zip(whole[4:], rest, strict=True))
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[0], _batches(_source(paths), 0, 1, stream=1)[0])
    assert not torch.equal(whole[0], _batches(_source(paths, seed=2), 0, 1)[0])
    assert _batches(_source(paths), 6, 6) == []


def test_memory_is_bounded(photos: Path) -> None:
    source = _source(find_photographs([photos]))
    source._room = 60_000  # two pictures
    _batches(source, 0, 4)
    assert 1 <= sum(a.nbytes for a in source._kept.values()) <= 60_000
    assert source._room >= 0


def test_broken_photographs_are_skipped(photos: Path, tmp_path: Path) -> None:
    good = tmp_path / "a.jpg"
    shutil.copy(photos / "00.jpg", good)
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    (tmp_path / "c.jpg").write_bytes(good.read_bytes()[:300])
    paths = find_photographs([tmp_path])
    assert [p.name for p in paths] == ["a.jpg", "b.jpg", "c.jpg"]
    assert len(_batches(_source(paths), 0, 4)) == 4
    assert len(centre_crops(paths, resize=60, crop=48).image_u8) == 1


def test_one_photograph_among_many_broken_ones_is_found(photos: Path, tmp_path: Path) -> None:
    """A hundred misses in a row ended a run, which a folder of thousands may well bring."""
    shutil.copy(photos / "00.jpg", tmp_path / "good.jpg")
    for number in range(400):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture")
    assert len(_batches(_source(find_photographs([tmp_path])), 0, 4)) == 4


def test_broken_photographs_alone_are_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    paths = find_photographs([tmp_path])
    with pytest.raises(DataError, match=r"none of 2 photographs can be read, .* among them"):
        _batches(_source(paths), 0, 1)
    with pytest.raises(DataError, match="no photographs left to train on"):
        _source([])


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (48, 48), (500, 130)])
def test_pictures_of_any_size_serve(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (10, 200, 90)).save(tmp_path / "a.png")
    (batch,) = _batches(_source([tmp_path / "a.png"], jitter=0.0), 0, 1)
    assert (batch == torch.tensor([10, 200, 90])[:, None, None]).all()


def test_grey_pictures_become_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(np.arange(100, dtype=np.uint8)[None].repeat(60, axis=0)).save(tmp_path / "a.png")
    (batch,) = _batches(_source([tmp_path / "a.png"], jitter=0.0), 0, 1)
    assert torch.equal(batch[:, 0], batch[:, 1])
    assert torch.equal(batch[:, 0], batch[:, 2])
    assert batch.float().std() > 1


def test_jitter_changes_colours_within_bounds(tmp_path: Path) -> None:
    Image.new("RGB", (60, 60), (128, 128, 128)).save(tmp_path / "a.png")
    source = Photographs([tmp_path / "a.png"], crop=8, smallest_crop=1.0, jitter=0.2, memory_mb=1, seed=0)
    batch = torch.cat([crops.image_u8 for crops in source.batches(0, 8, batch=4, stream=0)]).float()
    assert batch.std() > 5
    assert batch.min() >= 128 * 0.8 - 1
    assert batch.max() <= 128 * 1.2 + 1


def test_centre_crops_are_the_device_s_own(photos: Path) -> None:
    paths = find_photographs([photos])[:3]
    found = centre_crops(paths, resize=60, crop=48).image_u8.permute(0, 2, 3, 1).numpy()
    for path, crop in zip(paths, found, strict=True):
        assert np.array_equal(crop, crop_bhwc(load_picture(path), resize=60, crop=48)[0])


def test_centre_crops_of_nothing() -> None:
    assert centre_crops([], resize=60, crop=48).image_u8.shape == (0, 3, 48, 48)


def test_labels_are_the_names_of_folders(tmp_path: Path) -> None:
    colours = {"n02": (200, 0, 0), "n01": (0, 200, 0), "other": (0, 0, 200)}
    for name, colour in colours.items():
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 20), colour).save(tmp_path / name / "a.png")
    paths = find_photographs([tmp_path])
    labels = labels_of(paths, ["n01", "n02"])
    assert labels == [0, 1, -1]
    source = Photographs(paths, crop=8, smallest_crop=1.0, jitter=0.0, memory_mb=1, seed=0, labels=labels)
    (crops,) = source.batches(0, 1, batch=32, stream=0)
    brightest = crops.image_u8[:, :, 0, 0].argmax(1)
    assert torch.equal(crops.label_b, torch.tensor([1, 0, -1])[brightest])
    assert set(crops.label_b.tolist()) == {-1, 0, 1}


def test_pasted_crops_hold_two_photographs_and_have_no_label(tmp_path: Path) -> None:
    for name, value in (("a", 0), ("b", 255)):
        Image.new("RGB", (60, 60), (value,) * 3).save(tmp_path / f"{name}.png")
    paths = find_photographs([tmp_path])
    source = Photographs(paths, crop=16, smallest_crop=1.0, jitter=0.0, memory_mb=1, seed=0, labels=[0, 1], paste=0.5)
    (crops,) = source.batches(0, 1, batch=128, stream=0)
    mixed = torch.tensor([bool(image.min() < image.max()) for image in crops.image_u8])
    assert set(crops.image_u8.flatten().tolist()) == {0, 255}
    assert 0.1 < mixed.float().mean() < 0.4  # half are pasted into, half of those with the other photograph
    assert (crops.label_b[mixed] == -1).all()
    assert (crops.label_b[~mixed] >= 0).any()


def test_a_window_is_a_square_of_the_crop_at_its_own_scale(tmp_path: Path) -> None:
    columns = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 64, 3))
    Image.fromarray(np.ascontiguousarray(columns)).save(tmp_path / "a.png")
    source = Photographs([tmp_path / "a.png"], crop=64, smallest_crop=1.0, jitter=0.0, memory_mb=1, seed=0)
    (whole,) = source.batches(0, 1, batch=8, stream=0)
    (some,) = source.batches(0, 1, batch=8, stream=0, window=32)
    assert whole.image_u8.shape == (8, 3, 64, 64)
    assert some.image_u8.shape == (8, 3, 32, 32)
    for crops in (whole, some):  # one column more is four grey levels more, whatever the size
        step = crops.image_u8[:, 0, 5].float().diff(dim=1)[:, 4:-4].abs().mean(1)
        assert torch.allclose(step, torch.full_like(step, 4.0), atol=0.8)
    assert len({int(image.min()) for image in some.image_u8}) > 1


def test_mixed_crops_are_between_two(photos: Path) -> None:
    paths = find_photographs([photos])
    plain = Photographs(paths, crop=48, smallest_crop=0.35, jitter=0.0, memory_mb=100, seed=1, labels=[3] * 24)
    mixed = Photographs(paths, crop=48, smallest_crop=0.35, jitter=0.0, memory_mb=100, seed=1, labels=[3] * 24, mix=1.0)
    one, two = (next(source.batches(0, 1, batch=8, stream=0)) for source in (plain, mixed))
    assert (two.label_b == -1).all()
    assert (one.label_b == 3).all()
    assert not torch.equal(one.image_u8[0], two.image_u8[0])
    array, other = np.full((4, 4, 3), 10, np.uint8), np.full((4, 4, 3), 200, np.uint8)
    _mix(array, other, np.random.default_rng(0))
    assert len(np.unique(array)) == 1
    assert 10 < array[0, 0, 0] < 200
