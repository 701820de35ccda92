"""Which place sees which box, and what the loss says of that."""

from __future__ import annotations

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
