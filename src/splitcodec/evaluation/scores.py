"""How well boxes and label maps agree with the truth: COCO's mean average precision, mean IoU, pixel accuracy.

used by: tasks.py
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.device.placed import Letterbox
from splitcodec.edge.boxes import Found
from splitcodec.errors import MissingExtra
from splitcodec.layouts.sample import VOID

LEAST: Final = 0.02
"""Boxes of a lower score are not looked at, neither while a head learns nor when it is judged."""


class Precision(NamedTuple):
    """Mean average precision in per cent, at an overlap of 0.5 and over 0.5 to 0.95."""

    map50: float
    map: float


class Seen(NamedTuple):
    """Boxes of one picture in its own pixels: (N, 4) as x0, y0, x1, y1, scores, classes."""

    box_n4: NDArray[np.floating]
    score_n: NDArray[np.floating]
    label_n: NDArray[np.integer]


def seen_in(found: Found, place: Letterbox, *, size: tuple[int, int]) -> Seen:
    """Return boxes found in `size` (rows, columns) pixels of a network's input, in those of the picture."""
    shares_n4 = found.box_n4 / np.array([size[1], size[0]] * 2, np.float32)
    boxes = np.array([place.box_in_picture(box) for box in shares_n4.tolist()], np.float32)
    return Seen(boxes.reshape(-1, 4), found.score_n, found.label_n)


class Truth(NamedTuple):
    """The true boxes of one picture; spare ones count neither as found nor as missed."""

    box_n4: NDArray[np.floating]
    label_n: NDArray[np.integer]
    spare_n: NDArray[np.bool_]


def coco_package() -> Any:
    """Return the package of COCO's metric; who measures for hours asks for it first. Raises MissingExtra."""
    try:
        import faster_coco_eval
    except ModuleNotFoundError as error:
        raise MissingExtra(f"mAP needs {error.name}; install it with: pip install 'splitcodec[eval]'") from None
    return faster_coco_eval


def mean_precision(seen: Sequence[Seen], truth: Sequence[Truth], *, classes: int) -> Precision:
    """Return COCO's metric over pictures, of the classes that occur. Raises MissingExtra without faster-coco-eval."""
    judging = coco_package()
    boxes: list[dict[str, Any]] = []
    for picture, one in enumerate(truth):
        for box, label, spare in zip(one.box_n4.tolist(), one.label_n.tolist(), one.spare_n.tolist(), strict=True):
            sides = (box[2] - box[0], box[3] - box[1])
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": picture,
                    "category_id": label,
                    "bbox": [box[0], box[1], *sides],
                    "area": sides[0] * sides[1],
                    "iscrowd": int(spare),
                }
            )
    found = [
        {"image_id": picture, "category_id": label, "score": score, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for picture, one in enumerate(seen)
        for (x0, y0, x1, y1), score, label in zip(
            one.box_n4.tolist(), one.score_n.tolist(), one.label_n.tolist(), strict=True
        )
    ]
    if not found or not boxes:
        return Precision(0.0, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = judging.COCO(
            {
                "images": [{"id": picture} for picture in range(len(truth))],
                "annotations": boxes,
                "categories": [{"id": label, "name": str(label)} for label in range(classes)],
            }
        )
        judge = judging.COCOeval_faster(coco, coco.loadRes(found), "bbox", print_function=lambda *_: None)
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, -1]  # overlaps, recalls, classes; all sizes, most boxes
    return Precision(_mean(precision[:1]), _mean(precision))


def _mean(precision: NDArray[np.floating]) -> float:
    known = precision[precision > -1]
    return 100 * float(known.mean()) if known.size else 0.0


@final
class Confusion:
    """Counts of pixels by true class and by what was said."""

    def __init__(self, classes: int) -> None:
        self.count_kk = np.zeros((classes, classes), np.int64)

    def add(self, truth_hw: NDArray[np.uint8], said_hw: NDArray[np.uint8]) -> None:
        """Count one picture; pixels whose true label is VOID are left out."""
        classes = len(self.count_kk)
        counted = truth_hw != VOID
        pairs = truth_hw[counted].astype(np.int64) * classes + said_hw[counted]
        self.count_kk += np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    def merge(self, other: Confusion) -> None:
        """Count what another one has counted."""
        self.count_kk += other.count_kk

    @property
    def miou(self) -> float:
        """Return the mean over classes that occur of intersection over union, per cent."""
        right = np.diag(self.count_kk).astype(np.float64)
        either = self.count_kk.sum(0) + self.count_kk.sum(1) - right
        occurs = self.count_kk.sum(1) > 0
        return 100 * float((right[occurs] / either[occurs]).mean()) if occurs.any() else 0.0

    @property
    def accuracy(self) -> float:
        """Return the share of pixels that are right, per cent."""
        total = self.count_kk.sum()
        return 100 * float(np.trace(self.count_kk) / total) if total else 0.0


@final
class Tally:
    """What was said of one picture after another at one setting: boxes are kept, label maps counted alone."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._seen: list[Seen] = []
        self._confusion: Confusion | None = None
        self._bytes = self._pictures = 0

    def add(self, said: Seen | Confusion, *, size: int = 0) -> None:
        """Take one more picture into account, and the bytes that it took."""
        self._pictures += 1
        self._bytes += size
        if isinstance(said, Seen):
            self._seen.append(said)
            return
        if self._confusion is None:
            self._confusion = Confusion(self._classes)
        self._confusion.merge(said)

    @property
    def bytes_mean(self) -> float:
        """Return the mean bytes of a picture."""
        return self._bytes / self._pictures

    def scores(self, truth: Sequence[Truth]) -> dict[str, float]:
        """Return the scores by their names, per cent; `truth` is that of the same pictures where they hold boxes."""
        if self._confusion is not None:
            return {"miou": self._confusion.miou, "pixel_accuracy": self._confusion.accuracy}
        return mean_precision(self._seen, truth, classes=self._classes)._asdict()
