from __future__ import annotations

from splitcodec.demo.equal import Equal
from splitcodec.demo.page import render
from splitcodec.demo.photos import PHOTOGRAPHS
from splitcodec.demo.trip import DemoResult, Jpeg, Trip
from splitcodec.wire.answer import Guess

BEST, WORST = Guess(index=0, label="<b>tom & cat</b>", p=0.9), Guess(index=1, label="dog", p=0.1)


def trip(*, alike: bool = True, jpeg: Jpeg | None = None, equal: tuple[Jpeg, Equal] | None = None) -> Trip:
    answers = (BEST, WORST) if alike else (WORST, BEST)
    return Trip(PHOTOGRAPHS[0], 1, 900, 400, 250.0, answers, (BEST, WORST), {"encoder": 1.5}, jpeg, b"crop", equal)


def page(*trips: Trip) -> str:
    return render(DemoResult("x@1", 37.5, 60.0, trips, {"system": "S", "processor": "P", "cores": 2}, "index.html"))


def test_labels_are_text_not_markup() -> None:
    text = page(trip())
    assert "&lt;b&gt;tom &amp; cat&lt;/b&gt;" in text
    assert "<b>tom" not in text


def test_without_a_jpeg_that_reads_as_well_the_page_says_so() -> None:
    text = page(trip())
    assert "No JPEG up to quality 95 is" in text
    assert 'class="bars"' not in text


def test_another_label_than_the_teachers_is_admitted() -> None:
    told = "the packet gets another label than the untouched picture"
    assert told in page(trip(alike=False))
    assert told not in page(trip())


def test_sums_and_bars_compare_packet_and_jpeg() -> None:
    text = page(trip(jpeg=Jpeg(40, b"x" * 4500, 1100.0, (BEST,))), trip())
    assert "<b>900 bytes</b>for 1 pictures; as JPEG 4,500, 5.0 times as many" in text
    assert "width:20.0%" in text
    assert "<b>2 of 2</b>" in text


def test_the_jpeg_of_equal_accuracy_stands_beside_and_the_luckiest_is_named() -> None:
    lucky = Jpeg(12, b"x" * 1200, 320.0, (BEST,))
    shown = trip(jpeg=lucky, equal=(Jpeg(50, b"x" * 9000, 2000.0, (BEST,)), Equal(50, 82.4, 82.2, 500)))
    text = page(shown)
    assert "<b>900 bytes</b>for 1 pictures; as JPEG 9,000, 10.0 times as many" in text
    assert "quality 50, 9,000 bytes" in text
    assert "The smallest JPEG that would have done, all tried: 1,200 bytes, 0.32 s (quality 12)." in text
    assert "as many right (82.4 % top-1) as packets of this level (82.2 %)" in text
    assert "JPEG of equal accuracy, quality 50: 9,000 bytes, 2.00 s" in shown.lines()[0]
    assert shown.to_json()["jpeg_of_equal_accuracy"]["packet_top1"] == 82.2
    none = trip(equal=shown.equal)
    assert "all tried: none up to quality 95." in page(none)
