"""mAP, mIoU and pixel accuracy against cases that can be done by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from splitcodec.device.placed import Letterbox
from splitcodec.edge.boxes import Found
from splitcodec.errors import MissingExtra
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.scores import Confusion, Seen, Tally, Truth, mean_precision, seen_in
from splitcodec.evaluation.tasks import evaluate_task
from splitcodec.wire.bundle import Bundle

BOX = np.array([[10, 10, 50, 50], [60, 10, 90, 40]], np.float32)
TRUTH = Truth(BOX, np.array([0, 1]), np.array([False, False]))


def seen(box: np.ndarray, score: list[float], label: list[int]) -> Seen:
    return Seen(box, np.array(score), np.array(label))


def test_perfect_boxes_score_a_hundred() -> None:
    got = mean_precision([seen(BOX, [0.9, 0.8], [0, 1])], [TRUTH], classes=3)
    assert got.map50 == pytest.approx(100)
    assert got.map == pytest.approx(100)


def test_all_objects_of_one_class_in_a_picture_count() -> None:
    truth = Truth(BOX, np.array([1, 1]), np.array([False, False]))
    assert mean_precision([seen(BOX, [0.9, 0.8], [1, 1])], [truth], classes=2).map == pytest.approx(100)


def test_loose_boxes_count_at_half_overlap_alone() -> None:
    loose = BOX + np.array([0, 0, 12, 0], np.float32)  # overlaps of 40 / 52 and 30 / 42
    got = mean_precision([seen(loose, [0.9, 0.8], [0, 1])], [TRUTH], classes=2)
    assert got.map50 == pytest.approx(100)
    assert 40 < got.map < 60


def test_a_missed_class_counts_as_nothing_and_a_spare_box_not_at_all() -> None:
    one = seen(BOX[:1], [0.9], [0])
    assert mean_precision([one], [TRUTH], classes=2).map50 == pytest.approx(50)
    spare = Truth(BOX, np.array([0, 1]), np.array([False, True]))
    assert mean_precision([one], [spare], classes=2).map50 == pytest.approx(100)
    nothing = seen(BOX[:0], [], [])
    assert mean_precision([nothing], [TRUTH], classes=2) == (0, 0)


def test_without_its_package_nothing_is_measured_first(
    tiny: Bundle, tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pictures were scored, minutes of them, before the extra was named."""
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingExtra, match=r"mAP needs faster_coco_eval.*splitcodec\[eval\]"):
        evaluate_task("efficientnet-lite0", tmp_path, task="detect", split="val")
    monkeypatch.setitem(sys.modules, "bjontegaard", None)
    with pytest.raises(MissingExtra, match=r"BD-rate needs bjontegaard.*splitcodec\[eval\]"):
        evaluate(tiny, labelled, codecs=["jpeg", "hevc"])


def test_label_maps() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 2]], np.uint8))
    assert confusion.accuracy == pytest.approx(200 / 3)
    assert confusion.miou == pytest.approx(50)  # 1/2 and 1/2; class 2 does not occur
    wrong = Confusion(3)
    wrong.add(np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 2, 1, 2]], np.uint8))
    assert wrong.miou == pytest.approx(75)  # 1/2 and 1/1; class 2 is said and does not occur
    assert Confusion(2).miou == Confusion(2).accuracy == 0


def test_a_tally_of_label_maps_keeps_counts_alone() -> None:
    tally, whole = Tally(2), Confusion(2)
    random = np.random.default_rng(0)
    for size in (10, 30):
        truth_hw, said_hw = random.integers(0, 2, (2, 8, 8), dtype=np.uint8)
        one = Confusion(2)
        for confusion in (one, whole):
            confusion.add(truth_hw, said_hw)
        tally.add(one, size=size)
    assert tally.bytes_mean == 20
    assert tally.scores([]) == {"miou": whole.miou, "pixel_accuracy": whole.accuracy}


def test_a_tally_of_boxes_scores_them() -> None:
    tally = Tally(3)
    tally.add(seen(BOX, [0.9, 0.8], [0, 1]), size=10)
    assert tally.scores([TRUTH]) == pytest.approx({"map50": 100, "map": 100})


def test_boxes_count_in_their_own_picture_and_beyond_the_tenth() -> None:
    """Twelve objects side by side in the second picture, found in the order of their scores; the first one's is not."""
    corner = np.arange(12, dtype=np.float32)[:, None] * 40
    many = np.concatenate([corner, corner, corner + 36, corner + 36], axis=1)
    truth = [
        Truth(BOX[:1], np.array([0]), np.array([False])),
        Truth(many, np.zeros(12, int), np.zeros(12, bool)),
    ]
    scores = np.linspace(0.9, 0.3, 12)
    missed = seen(many[5:6], [0.1], [0])  # where only the other picture has an object
    found = mean_precision([missed, Seen(many, scores, np.zeros(12, int))], truth, classes=1)
    assert found.map50 == found.map == pytest.approx(100 * 93 / 101)  # recalls of 0 to 0.92, in hundredths


def test_boxes_lie_in_the_pixels_of_the_picture() -> None:
    """Of 200 x 100 pixels, which the network saw as 64 x 32 in 64 x 40 (columns, rows)."""
    place = Letterbox((200, 100), wide=64, high=32, cols=64, rows=40)
    found = Found(np.array([[16, 8, 32, 20], [-5, 30, 70, 40]], np.float32), np.array([0.5, 0.25]), np.array([3, 1]))
    got = seen_in(found, place, size=(40, 64))
    np.testing.assert_allclose(got.box_n4, [[50, 25, 100, 62.5], [0, 93.75, 200, 100]])
    assert (got.score_n.tolist(), got.label_n.tolist()) == ([0.5, 0.25], [3, 1])
    none = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert seen_in(none, place, size=(40, 64)).box_n4.shape == (0, 4)
