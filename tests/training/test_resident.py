from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from splitcodec.errors import DataError
from splitcodec.layouts.folders import find_photographs
from splitcodec.training.data import Photographs
from splitcodec.training.resident import Resident, fitting, resident

CPU = torch.device("cpu")


def _source(folder: Path, **changes: Any) -> Photographs:
    said = {"crop": 48, "smallest_crop": 0.35, "jitter": 0.0, "memory_mb": 100, "seed": 1, **changes}
    return Photographs(find_photographs([folder]), **said)


def _resident(source: Photographs) -> Resident:
    return Resident(source, source.decoded(2), device=CPU)


def test_crops_are_what_pillow_makes_of_the_same_boxes(photos: Path) -> None:
    source = _source(photos)
    pictures = source.decoded(2)
    here = _resident(source)
    for side in (48, 130):  # pictures are larger than the one and smaller than the other
        draw = here._drawn(np.random.default_rng(3), 12, side)
        found = here._cropped(draw, side)
        assert draw.smooth.any()
        assert not draw.smooth.all()
        assert draw.mirrored.any()
        for n in range(12):
            kind = Image.Resampling.BILINEAR if draw.smooth[n] else Image.Resampling.BICUBIC
            box = (draw.left[n], draw.top[n], draw.left[n] + draw.wide[n], draw.top[n] + draw.high[n])
            picture = Image.fromarray(pictures[draw.picture[n]][0]).resize((side, side), kind, box=box)
            if draw.mirrored[n]:
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            apart = np.abs(np.asarray(picture).astype(int) - found[n].permute(1, 2, 0).numpy())
            assert apart.mean() < 0.4
            assert apart.max() < 24  # Pillow rounds, and clips, between rows and columns


def test_batches_depend_on_seed_stream_and_step_alone(photos: Path) -> None:
    source = _source(photos, jitter=0.2, paste=0.4, mix=0.3)
    here = _resident(source)
    whole = [crops.image_u8 for crops in here.batches(0, 5, batch=6, stream=0)]
    assert whole[0].shape == (6, 3, 48, 48)
    assert whole[0].dtype == torch.uint8
    rest = [crops.image_u8 for crops in _resident(source).batches(3, 5, batch=6, stream=0)]
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[0], next(here.batches(0, 1, batch=6, stream=1)).image_u8)
    assert torch.equal(here.first(4), here.first(4))
    assert next(here.batches(0, 1, batch=2, stream=0, window=32)).image_u8.shape == (2, 3, 32, 32)


def test_pictures_that_are_touched_by_others_lose_their_label(photos: Path) -> None:
    plain, pasted, mixed = (
        _resident(_source(photos, labels=list(range(24)), **changes)) for changes in ({}, {"paste": 1.0}, {"mix": 1.0})
    )
    one, two, three = (next(here.batches(0, 1, batch=16, stream=0)) for here in (plain, pasted, mixed))
    assert one.label_b.min() >= 0
    assert (two.label_b == -1).all()
    assert (three.label_b == -1).all()
    same = (one.image_u8 == two.image_u8).all(1).float().mean((1, 2))
    assert 0.05 < float(same.min()) < float(same.max()) < 0.95  # a rectangle of another, the rest as it was
    assert ((one.image_u8 == three.image_u8).all(1).float().mean((1, 2)) < 0.6).all()


def test_windows_show_pictures_at_the_scale_of_crops(photos: Path) -> None:
    here = _resident(_source(photos))
    crops, windows = (here._drawn(np.random.default_rng(0), 400, side) for side in (48, 32))
    assert np.allclose(windows.wide, crops.wide * 32 / 48)
    assert (windows.left >= 0).all()
    rows, cols = here._rows[windows.picture], here._cols[windows.picture]
    assert (windows.left + windows.wide <= cols + 1e-9).all()
    assert (windows.top + windows.high <= rows + 1e-9).all()


def test_of_a_long_picture_the_middle_is_kept(tmp_path: Path) -> None:
    array = np.zeros((40, 200, 3), np.uint8)
    array[:, 60:140] = 200
    Image.fromarray(array).save(tmp_path / "long.png")
    here = _resident(_source(tmp_path, smallest_crop=1.0))
    assert here._image_u8.shape == (1, 3, 40, 80)
    assert (here._image_u8 == 200).all()


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_elsewhere_than_on_cuda_photographs_stay_where_they_were(photos: Path, kind: str) -> None:
    source = _source(photos)
    assert resident(source, torch.device(kind)) is source


def test_photographs_that_do_not_fit_are_not_decoded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitcodec.training.resident.SAMPLED", 4)
    seen: list[int] = []
    decoded = Photographs._decoded

    def noted(source: Photographs, index: int) -> Any:
        seen.append(index)
        return decoded(source, index)

    monkeypatch.setattr(Photographs, "_decoded", noted)
    assert fitting(_source(photos), room=100_000) is None
    assert sorted(seen) == [0, 6, 12, 18]
    source = _source(photos)
    source.memory = 100_000  # of the machine's own memory
    assert fitting(source, room=1e9) is None
    assert len(seen) == 8
    assert len(fitting(_source(photos), room=1e9) or []) == 24


def test_photographs_of_which_none_can_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    source = _source(tmp_path)
    with pytest.raises(DataError, match="none of the photographs can be read"):
        Resident(source, source.decoded(1), device=CPU)
