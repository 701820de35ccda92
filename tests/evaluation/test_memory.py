from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitcodec.errors import DataError, OutputError
from splitcodec.evaluation import memory
from splitcodec.evaluation.codecs import Codec, Images, PillowCodec
from splitcodec.evaluation.machine import machine
from splitcodec.evaluation.memory import Memory
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.sweep import Setting
from splitcodec.wire.bundle import Bundle
from tests.evaluation.conftest import COUNT, Make

IMAGE = np.zeros((8, 8, 3), np.uint8)


def test_what_was_kept_is_found_by_the_next_run_but_for_a_line_cut_off(tiny: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "new" / "codecs"
    first = Memory(path, teacher=tiny)
    keys = [first.key(IMAGE, codec="jpeg", value=value, side=None) for value in (5, 10)]
    assert first.recall(keys[0]) is None
    first.keep({key: (3, size) for size, key in enumerate(keys, start=700)})
    path.write_text(path.read_text().removesuffix(" ok\n")[:-1])
    again = Memory(path, teacher=tiny)
    assert [again.recall(key) for key in keys] == [(3, 700), None]
    assert again.recalled == 1
    again.keep({keys[1]: (4, 9)})
    assert Memory(path, teacher=tiny).recall(keys[1]) == (4, 9)


def test_a_name_depends_on_picture_setting_and_teacher(tiny: Bundle, like_tiny: Make, tmp_path: Path) -> None:
    first = Memory(tmp_path / "codecs", teacher=tiny)
    retrained = like_tiny("other", files={"head.onnx": tiny.read("encoder.onnx")})
    names = {
        first.key(image, codec=codec, value=value, side=side)
        for image in (IMAGE, IMAGE + 1, IMAGE.reshape(4, 16, 3))
        for codec in ("jpeg", "webp")
        for value in (1, 2)
        for side in (None, 4)
    }
    assert len(names) == 24
    assert Memory(tmp_path / "codecs", teacher=retrained).key(IMAGE, codec="jpeg", value=1, side=None) not in names
    assert Memory(tmp_path / "codecs", teacher=like_tiny("same")).key(IMAGE, codec="jpeg", value=1, side=4) in names


def test_results_of_another_build_of_a_codec_do_not_count(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were found again after ffmpeg or libjxl had changed."""
    name = Memory(tmp_path / "codecs", teacher=tiny).key(IMAGE, codec="hevc", value=1, side=None)
    monkeypatch.setattr(memory, "codec_versions", lambda: {"ffmpeg": "another"})
    assert Memory(tmp_path / "codecs", teacher=tiny).key(IMAGE, codec="hevc", value=1, side=None) != name


def test_the_number_of_cores_changes_no_name(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = Memory(tmp_path / "codecs", teacher=tiny).key(IMAGE, codec="hevc", value=1, side=None)
    monkeypatch.setattr(memory, "machine", lambda: {**machine(), "cores": 1000})
    assert Memory(tmp_path / "codecs", teacher=tiny).key(IMAGE, codec="hevc", value=1, side=None) == name


def test_a_second_run_codes_nothing_again_and_finds_the_same(
    tiny: Bundle, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def brief(codec: Codec, crop: int) -> list[Setting]:
        return [Setting(codec, 40), Setting(codec, 40, 32)]

    coded: list[int] = []
    encode = PillowCodec.encode

    def counted(self: PillowCodec, images: Images, setting: int) -> list[bytes]:
        coded.append(len(images))
        return encode(self, images, setting)

    monkeypatch.setattr(PillowCodec, "encode", counted)
    found = []
    for _ in range(2):
        coded.clear()
        run = evaluate(tiny, labelled, codecs=["jpeg"], sweep=brief, memory_file=tmp_path / "codecs", threads=2)
        found.append((run, len(coded)))
    (first, many), (second, few) = found
    assert many - few == 2 * COUNT  # what is left: flat pictures and timing
    assert [replace(one, encode_ms=None) for one in first.points] == [
        replace(one, encode_ms=None) for one in second.points
    ]
    assert not any("earlier run" in note for note in first.notes)
    assert f"{2 * COUNT} results of codecs" in " ".join(second.notes)


def test_a_run_that_is_refused_leaves_no_file(tiny: Bundle, tmp_path: Path) -> None:
    """The file was made before the pictures were looked at."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0001_a.jpg").write_bytes(b"no picture")
    for place in (tmp_path / "codecs", tmp_path / "new" / "codecs"):
        with pytest.raises(DataError, match="none of 1 pictures can be read"):
            evaluate(tiny, tmp_path / "data", codecs=["jpeg"], memory_file=place)
    assert [one.name for one in tmp_path.iterdir()] == ["data"]


def test_a_place_where_nothing_can_be_kept_is_refused_at_once(tiny: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        Memory(tmp_path / "file" / "codecs", teacher=tiny)


def test_a_file_that_is_none_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot remember"):
        Memory(tmp_path, teacher=tiny)
    (tmp_path / "other").write_text("a b c ok\n")
    with pytest.raises(OutputError, match="cannot remember"):
        Memory(tmp_path / "other", teacher=tiny)


def test_a_file_of_somebody_elses_is_left_alone(tiny: Bundle, tmp_path: Path) -> None:
    """Lines were written behind whatever it was."""
    notes = tmp_path / "notes.txt"
    notes.write_text("buy milk\n")
    with pytest.raises(OutputError, match=r"cannot remember in it \(it holds something else\)"):
        Memory(notes, teacher=tiny)
    assert notes.read_text() == "buy milk\n"
