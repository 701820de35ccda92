from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from splitcodec.errors import DataError
from splitcodec.evaluation.labels import labelled_pictures
from splitcodec.wire.bundle import Bundle


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, bundle: Bundle) -> list[tuple[str, int]]:
    return [(one.path.name, one.index) for one in labelled_pictures(root, bundle.manifest)]


def test_a_class_index_in_front_of_the_name_is_the_label(tmp_path: Path, tiny: Bundle) -> None:
    touch(
        tmp_path, "0009_a.jpg", "3_n01440764_tench.JPEG", "07_x.webp", "notes.txt", "unlabelled.jpg", "n00000001/z.jpg"
    )
    assert found(tmp_path, tiny) == [("0009_a.jpg", 9), ("07_x.webp", 7), ("3_n01440764_tench.JPEG", 3)]


def test_an_index_beyond_the_classes_is_refused(tmp_path: Path, tiny: Bundle) -> None:
    touch(tmp_path, "0010_a.jpg")
    with pytest.raises(DataError, match="class index 10; tiny@1 has classes 0 to 9"):
        found(tmp_path, tiny)


def test_as_many_wnid_folders_as_classes_are_taken_in_their_order(tmp_path: Path, tiny: Bundle) -> None:
    touch(tmp_path, *(f"n{7 * k:08d}/{k}.png" for k in range(10)), "README/x.png")
    assert found(tmp_path, tiny) == [(f"{k}.png", k) for k in range(10)]


def test_fewer_wnid_folders_need_the_bundles_own_list(tmp_path: Path, tiny: Bundle) -> None:
    touch(tmp_path, "n00000005/a.jpg", "n00000002/b.jpg")
    with pytest.raises(DataError, match="2 wnid folders, but tiny@1 has 10 classes"):
        found(tmp_path, tiny)
    wnids = [f"n{9 - k:08d}" for k in range(10)]
    manifest = replace(tiny.manifest, provenance={"wnids": wnids})
    assert [(one.path.name, one.index) for one in labelled_pictures(tmp_path, manifest)] == [("b.jpg", 7), ("a.jpg", 4)]
    touch(tmp_path, "n99999999/c.jpg")
    with pytest.raises(DataError, match="n99999999: not among the classes"):
        labelled_pictures(tmp_path, manifest)


@pytest.mark.parametrize("name", ["", "missing", "picture.jpg"])
def test_nothing_to_label_is_refused_with_what_was_expected(tmp_path: Path, tiny: Bundle, name: str) -> None:
    touch(tmp_path, "picture.jpg")
    with pytest.raises(DataError, match=r"expected files named <class index>_\*\.jpg"):
        found(tmp_path / name, tiny)


def test_pictures_that_classes_are_learned_from_are_measured_too(tmp_path: Path, tiny: Bundle) -> None:
    """A class of BMP files, or of folders by year, was left out of the score without a word."""
    names = tiny.manifest.classes
    touch(tmp_path, f"{names[3]}/2024/a.jpg", f"{names[3]}/b.BMP", f"{names[5]}/2025/may/c.tiff", f"{names[5]}/._d.jpg")
    assert sorted(found(tmp_path, tiny)) == [("a.jpg", 3), ("b.BMP", 3), ("c.tiff", 5)]


def test_folders_named_like_the_classes_are_labels(tmp_path: Path, tiny: Bundle) -> None:
    """A bundle of a user's own classes had no way to be evaluated but by renaming every file."""
    touch(tmp_path, "c3/a.jpg", "c0/b.png", "c0/notes.txt", "c0/._b.png", ".hidden/x.jpg")
    assert found(tmp_path, tiny) == [("b.png", 0), ("a.jpg", 3)]
    touch(tmp_path, "c77/z.jpg")
    with pytest.raises(DataError, match="c77: not among the classes of tiny@1"):
        found(tmp_path, tiny)


def test_a_folder_that_names_two_classes_is_refused(tmp_path: Path, tiny: Bundle) -> None:
    """ImageNet has two cranes; the bird's pictures were held against the machine."""
    manifest = replace(tiny.manifest, classes=("crane", *tiny.manifest.classes[1:-1], "crane"))
    touch(tmp_path, "crane/a.jpg")
    with pytest.raises(DataError, match=r"crane: classes 0 and 9 of tiny@1 .* 0_\*\.jpg"):
        labelled_pictures(tmp_path, manifest)
