from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from splitcodec.errors import OutputError
from splitcodec.evaluation.report import markdown, plot, write_report
from splitcodec.evaluation.result import Report


def test_three_files_are_written_and_nothing_else(report: Report, tmp_path: Path) -> None:
    paths = write_report(report, tmp_path / "new" / "out")
    assert [path.name for path in paths] == ["rd.json", "rd.png", "report.md"]
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == ["rd.json", "rd.png", "report.md"]
    assert json.loads(paths[0].read_bytes()) == json.loads(json.dumps(report.to_json()))


def test_the_plot_is_a_picture_of_some_size(report: Report) -> None:
    with Image.open(io.BytesIO(plot(report))) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500


def test_the_tables_hold_every_point_and_survive_a_bar_in_a_name(report: Report) -> None:
    text = markdown(report)
    assert text.count("\n| jpeg | quality") == 15
    assert text.count("\n| splitcodec | level") == 3
    assert "| other | a\\|b | 300 |  | 50.00 |" in text
    assert "## BD-rate and BD-accuracy" in text
    assert "\n| other | - | - | - |" in text
    assert "left out: 0003_broken.jpg (not a picture" in text


def test_a_folder_that_cannot_be_written_is_refused(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        write_report(report, tmp_path / "file")
    (tmp_path / "rd.json").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "rd.json"]
