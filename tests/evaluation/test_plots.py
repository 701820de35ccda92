from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from splitcodec.evaluation.codecs import CODECS
from splitcodec.evaluation.drawing import Kind, styles
from splitcodec.evaluation.plots import _elsewhere, curves, frontier
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.result import Corner, Report
from splitcodec.wire.bundle import Bundle


@pytest.mark.parametrize("draw", [curves, frontier])
def test_few_methods_and_many_are_drawn(draw: Callable[[Report], bytes], report: Report, arena: Report) -> None:
    for one in (report, arena, replace(report, codecs=(), encoders={})):
        with Image.open(io.BytesIO(draw(one))) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 500
            colours = picture.convert("RGB").getcolors(1 << 24)
            assert colours is not None
            assert len(colours) > 50


def test_one_picture_that_the_teacher_reads_wrong_is_drawn_without_a_warning(
    tiny: Bundle, labelled: Path, tmp_path: Path
) -> None:
    (wrong,) = labelled.glob("*_0.png")
    (tmp_path / wrong.name).write_bytes(wrong.read_bytes())
    one = evaluate(tiny, tmp_path, codecs=["jpeg"], threads=1)
    assert (one.images, one.teacher_top1) == (1, 0.0)
    for draw in (curves, frontier):
        draw(one)  # matplotlib's warnings are errors here


def test_the_frontier_reads_hulls_three_points_below_the_teacher(report: Report, arena: Report) -> None:
    corners = {one.method: one for one in arena.frontier()}
    assert list(corners) == arena.methods
    assert (corners["jpeg"].macs, corners["paper"].macs) == (0, 500_000_000)
    assert next(one.macs for one in report.frontier() if one.method == "other") is None
    for one in corners.values():
        best = max(point.top1 for point in arena.of(one.method))
        least = min(arena.of(one.method), key=lambda point: (point.bytes_mean, -point.top1)).top1
        assert one.top1 == pytest.approx(max(min(arena.teacher_top1 - 3, best), least))
        assert min(p.bytes_mean for p in arena.of(one.method)) <= one.bytes
        assert one.bytes <= max(p.bytes_mean for p in arena.of(one.method))


def test_methods_that_never_pass_the_score_say_where_they_stand(arena: Report) -> None:
    teacher = arena.teacher_top1
    assert _elsewhere(arena, Corner("it", 1, 100.0, teacher - 3.0)) == ""
    assert _elsewhere(arena, Corner("it", 1, 100.0, teacher - 13.21)) == ", at -13.2"


def test_a_method_is_drawn_alike_in_every_plot() -> None:
    """A codec's colour was its place among those that one plot happened to show, so jpeg was avif's elsewhere."""
    few: dict[str, Kind] = {"splitcodec": "ours", "hevc": "codec", "jpeg": "codec", "paper": "rival"}
    many: dict[str, Kind] = {**{one.name: "codec" for one in CODECS}, "kin": "ours", "new": "codec", **few}
    assert styles(few).items() <= styles(many).items()
    drawn = styles(many)
    assert len({one for name, one in drawn.items() if name != "new"}) == len(drawn) - 1
    assert drawn["new"].colour != drawn["kin"].colour
    several: dict[str, Kind] = {f"far{k}": "ours" for k in range(9)}
    assert len(set(styles(several).values())) == 4  # more than there are: they come again
