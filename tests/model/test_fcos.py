"""Which place sees which box, and what the loss says of that."""

from __future__ import annotations

import math

import pytest
import torch

from splitcodec.edge import boxes as edge
from splitcodec.model.fcos import Boxes, Fcos, Raw, assign, corners, places
from splitcodec.model.pyramid import Level

STRIDES = (8, 16)
SIZE = (64, 96)


def truth(*found: tuple[float, float, float, float, int]) -> Boxes:
    return Boxes(
        torch.tensor([[one[:4] for one in found]], dtype=torch.float32), torch.tensor([[one[4] for one in found]])
    )


def test_places_are_the_edges_own() -> None:
    place, stride = places(SIZE, STRIDES, device=torch.device("cpu"))
    assert torch.equal(place, torch.from_numpy(edge.places(SIZE, STRIDES)))
    assert stride.tolist() == [8.0] * 96 + [16.0] * 24


def test_small_boxes_go_to_the_fine_level_and_spare_ones_nowhere() -> None:
    place, stride = places((128, 192), STRIDES, device=torch.device("cpu"))
    found = truth((8, 8, 32, 32, 3), (0, 0, 192, 128, 5), (128, 80, 180, 120, -2), (0, 0, 0, 0, -1))
    box, label = assign(found, place, stride, strides=STRIDES)
    fine, coarse = label[0, :384], label[0, 384:]
    assert set(fine.tolist()) == {-1, -2, 3}
    assert set(coarse.tolist()) == {-1, 5}
    for index in torch.nonzero(label[0] == 3).flatten():
        x, y = place[index].tolist()
        assert 8 < x < 32
        assert 8 < y < 32
        assert box[0, index].tolist() == [8, 8, 32, 32]


def test_of_two_boxes_the_smaller_is_seen() -> None:
    place, stride = places(SIZE, STRIDES, device=torch.device("cpu"))
    _, label = assign(truth((0, 0, 60, 60, 1), (20, 20, 40, 40, 2)), place, stride, strides=STRIDES)
    middle = int(((place - 28).abs().sum(1) + (stride - 8)).argmin())
    assert label[0, middle] == 2


def test_a_perfect_answer_loses_little_and_a_picture_without_boxes_is_no_trouble() -> None:
    torch.manual_seed(0)
    levels = (Level(6, 8), Level(10, 16))
    head = Fcos(levels, 7, width=8, depth=1).train()
    maps = [torch.randn(2, 6, 8, 12), torch.randn(2, 10, 4, 6)]
    raw = head(maps)
    assert raw.class_bnk.shape == (2, 120, 7)
    found = truth((8, 8, 32, 32, 3))
    one = Raw(raw.class_bnk[:1], raw.edge_bn4[:1], raw.quality_bn[:1])
    place, stride = places(SIZE, STRIDES, device=torch.device("cpu"))
    box, label = assign(found, place, stride, strides=STRIDES)
    seen = label[0] >= 0
    logits = torch.full((1, 120, 7), -9.0)
    logits[0, seen, 3] = 9.0
    x, y = place.unbind(-1)
    edges = torch.stack([x - box[0, :, 0], y - box[0, :, 1], box[0, :, 2] - x, box[0, :, 3] - y], -1)[None]
    perfect = Raw(logits, edges, torch.full((1, 120), 9.0))
    good, bad = head.loss(perfect, found, size=SIZE), head.loss(one, found, size=SIZE)
    assert sum(good.values()) < 0.01 < sum(bad.values())
    assert torch.allclose(corners(place[seen], edges[0, seen]), box[0, seen])
    empty = truth((0, 0, 0, 0, -1))
    nothing = head.loss(one, empty, size=SIZE)
    assert all(torch.isfinite(value) for value in nothing.values())
    assert nothing["box"] == 0


def test_a_place_takes_boxes_near_its_middle_and_of_its_level_s_size() -> None:
    """Within a stride and a half of the middle; whose farthest edge is more than 4 and up to 8 strides away."""
    middle, stride = torch.tensor([[100.0, 100.0]]), torch.tensor([8.0])

    def taken(box: tuple[float, float, float, float], *, strides: tuple[int, ...]) -> bool:
        _, label = assign(truth((*box, 3)), middle, stride, strides=strides)
        return bool(label.item() == 3)

    assert taken((40, 60, 164, 140), strides=(8, 16))  # the farthest edge is 64 away
    assert not taken((40, 60, 164.5, 140), strides=(8, 16))
    assert taken((40, 60, 164.5, 140), strides=(4, 8))  # the last level takes all that are larger
    assert taken((98, 98, 102, 102), strides=(8, 16))  # the first all that are smaller
    assert not taken((68, 98, 132, 102), strides=(4, 8, 16))
    assert taken((67.5, 98, 132, 102), strides=(4, 8, 16))
    assert taken((77, 90, 146.5, 110), strides=(8, 16))
    assert not taken((77, 90, 147, 110), strides=(8, 16))  # 12 from its middle is too far
    assert not taken((90, 77, 110, 147), strides=(8, 16))
    assert not taken((100.0, 90, 110, 110), strides=(8, 16))  # on its edge


def test_a_head_is_held_against_its_teacher_where_that_is_sure() -> None:
    """Three places: the teacher is sure of the first, half of the second, and of nothing at the third."""
    head = Fcos((Level(6, 8),), 1, width=8, depth=1)
    sure = torch.tensor([0.8, 0.4, 0.05])
    same = torch.logit(sure)[None, :, None]
    edges, quality = torch.full((1, 3, 4), 4.0), torch.zeros(1, 3)
    neck = (torch.tensor([1.0, -1.0]).view(1, 1, 1, 2),)
    teacher = Raw(same, edges, quality, neck)
    nothing = head.apart(teacher, teacher, size=(8, 24))
    assert nothing["class"].item() == nothing["box"].item() == nothing["neck"].item() == 0
    assert nothing["quality"].item() == pytest.approx(math.log(2) * 1.2 / 1.25)  # an entropy of its own

    off = Raw(torch.zeros(1, 3, 1), edges, quality + 2.0, (neck[0] + 0.5,))
    found = head.apart(off, teacher, size=(8, 24))
    focal = sum((p - 0.5) ** 2 * math.log(2) for p in sure.tolist())
    assert found["class"].item() == pytest.approx(4 * focal / 1.25, rel=1e-5)
    assert found["quality"].item() == pytest.approx((math.log(1 + math.exp(2)) - 1) * 1.2 / 1.25, rel=1e-5)
    assert found["neck"].item() == pytest.approx(0.25 / 2)  # of a variance of 2

    wide = edges.clone()
    wide[0, 1, 2], wide[0, 2] = 12.0, 40.0  # the second twice as wide, an overlap of a half; the third counts not
    assert head.apart(Raw(same, wide, quality, neck), teacher, size=(8, 24))["box"].item() == pytest.approx(
        0.4 * 0.5 / 1.25
    )


def test_the_loss_is_a_sum_over_places_and_classes_for_each_place_that_sees_a_box() -> None:
    """Of answers that say a half of everything, and boxes twice as wide as the true one; spare ones count not."""
    head = Fcos((Level(6, 8), Level(10, 16)), 7, width=8, depth=1)
    place, stride = places(SIZE, STRIDES, device=torch.device("cpu"))
    found = truth((8, 8, 32, 32, 3), (56, 20, 80, 44, -2))
    box, label = assign(found, place, stride, strides=STRIDES)
    seeing, spare = int((label >= 0).sum()), int((label == -2).sum())
    assert seeing > 1
    assert spare > 1
    x, y = place.unbind(-1)
    edges = torch.stack([x - box[0, :, 0], y - box[0, :, 1], box[0, :, 2] + 24 - x, box[0, :, 3] - y], -1)[None]
    loss = head.loss(Raw(torch.zeros(1, 120, 7), edges, torch.full((1, 120), 2.0)), found, size=SIZE)
    empty = 120 - spare - seeing
    focal = math.log(2) / 4 * (seeing * (0.25 + 6 * 0.75) + empty * 7 * 0.75)  # Lin et al. 2017: alpha 0.25, gamma 2
    assert loss["class"].item() == pytest.approx(focal / seeing, rel=1e-5)
    assert loss["box"].item() == pytest.approx(0.5)  # one less the overlap, which is all of the hull
    assert loss["quality"].item() == pytest.approx(math.log(1 + math.exp(2)) - 0.5 * 2)
