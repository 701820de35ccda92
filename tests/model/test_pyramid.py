"""The backbone behind the cut, at even and odd sizes."""

from __future__ import annotations

import pytest
import torch

from splitcodec.errors import TeacherError
from splitcodec.model.neck import Pyramid
from splitcodec.model.pyramid import Backbone, Level
from splitcodec.model.teacher import Teacher, load_teacher

LAYERS = ("blocks.1", "blocks.2", "blocks.3")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(1)
    return load_teacher("tf_efficientnet_lite0", weights="random", cut="blocks.1", later=LAYERS[1:], crop=64)


def test_its_maps_are_the_teachers_later_features(teacher: Teacher) -> None:
    backbone = Backbone(teacher, cut="blocks.1", layers=LAYERS, crop=64)
    assert backbone.levels == (Level(24, 4), Level(40, 8), Level(80, 16))
    feature = torch.randn(1, 24, 16, 12)
    _, *later = teacher.tail(feature)
    maps = backbone(feature)
    assert maps[0] is feature
    for ours, theirs in zip(maps[1:], later, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_odd_maps_lose_no_row(teacher: Teacher) -> None:
    backbone = Backbone(teacher, cut="blocks.1", layers=LAYERS, crop=64)
    sizes = [tuple(one.shape[-2:]) for one in backbone(torch.randn(1, 24, 13, 9))]
    assert sizes == [(13, 9), (7, 5), (4, 3)]


def test_the_feature_may_be_left_out(teacher: Teacher) -> None:
    assert [level.stride for level in Backbone(teacher, cut="blocks.1", layers=LAYERS[1:], crop=64).levels] == [8, 16]


def test_a_second_layer_of_the_cuts_stride_makes_the_first_map_a_finer_one() -> None:
    layers = ("blocks.3.0", "blocks.4", "blocks.5")
    teacher = load_teacher("tf_efficientnet_lite0", weights="random", cut=layers[0], later=layers[1:], crop=64)
    backbone = Backbone(teacher, cut=layers[0], layers=layers, crop=64)
    assert backbone.levels == (Level(80, 8, doubled=True), Level(112, 16), Level(192, 32))
    maps = backbone(torch.randn(1, 80, 13, 9))
    assert [one.shape[-2:] for one in Pyramid(backbone.levels, 8)(maps)] == [(26, 18), (13, 9), (7, 5)]


def test_layers_out_of_order_are_refused() -> None:
    teacher = load_teacher(
        "tf_efficientnet_lite0", weights="random", cut="blocks.1", later=("blocks.2", "blocks.3", "blocks.4"), crop=64
    )
    with pytest.raises(TeacherError, match="one layer per stride"):
        Backbone(teacher, cut="blocks.1", layers=("blocks.2", "blocks.3", "blocks.4"), crop=64)


def test_two_layers_of_one_stride_behind_the_cut_come_first() -> None:
    teacher = load_teacher(
        "tf_efficientnet_lite0", weights="random", cut="blocks.1", later=("blocks.3", "blocks.4", "blocks.6"), crop=64
    )
    backbone = Backbone(teacher, cut="blocks.1", layers=("blocks.3", "blocks.4", "blocks.6"), crop=64)
    assert [(level.stride, level.doubled) for level in backbone.levels] == [(8, True), (16, False), (32, False)]
    assert not backbone.keeps_feature
