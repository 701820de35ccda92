"""mAP, mIoU and pixel accuracy against cases that can be done by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from splitcodec.errors import MissingExtra
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.scores import Confusion, Seen, Tally, Truth, mean_precision
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
