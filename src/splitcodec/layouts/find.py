"""A folder -> the data set in it: which layout it is, and one split of it."""

from __future__ import annotations

from pathlib import Path

from splitcodec.errors import DataError
from splitcodec.layouts import camvid, coco, voc
from splitcodec.layouts.sample import DataSet, Task


def read_split(folder: str | Path, *, split: str, task: Task) -> DataSet:
    """Read a split of the data set in `folder`: COCO 2017 or PASCAL VOC for boxes, CamVid or VOC for label maps.

    Raises DataError for a folder of no such layout, or with files missing.
    """
    try:
        return _read(Path(folder), split=split, task=task)
    except OSError as error:  # a folder that this user may not look into, a name that no file can have
        raise DataError(f"{str(folder)[:300]}: cannot be read ({error.strerror or error})") from None


def _read(root: Path, *, split: str, task: Task) -> DataSet:
    if not root.is_dir():
        raise DataError(f"no folder at {root}; give the folder of a data set")
    if voc.home(root) is not None:
        return voc.read(root, split=split, task=task)
    if task == "detect":
        if (root / "annotations").is_dir():
            return coco.read(root, split=split)
        raise DataError(
            f"{root}: neither PASCAL VOC (JPEGImages, Annotations, ImageSets) nor COCO 2017 (annotations, train2017)"
        )
    if (root / f"{split}annot").is_dir() or (root / "trainannot").is_dir():
        return camvid.read(root, split=split)
    raise DataError(f"{root}: neither CamVid (train, trainannot) nor PASCAL VOC (JPEGImages, SegmentationClass)")
