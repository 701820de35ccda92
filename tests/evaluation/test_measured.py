"""What is made of all pictures together, against cases that can be done by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitcodec.evaluation.bench import Read
from splitcodec.evaluation.codecs import codecs_named
from splitcodec.evaluation.measured import Measured
from splitcodec.evaluation.result import OURS, TEACHER
from splitcodec.evaluation.rivals import Entrant
from splitcodec.evaluation.sweep import Setting

IMAGES = 100


@pytest.fixture(scope="module")
def measured() -> Measured:
    """Return two levels of ours, one of a bundle of our kind, and JPEG, whose middle setting is not on its hull."""
    unused: Any = None
    ours, kin = (Entrant(name, unused, unused, unused, ours=True) for name in (OURS, "large"))
    (jpeg,) = codecs_named(["jpeg"])
    settings = [Setting(ours, 0), Setting(ours, 1), Setting(kin, 0), *(Setting(jpeg, q, 100) for q in (5, 20, 50))]
    right, sizes = (60, 85, 70, 40, 30, 80), (100, 1000, 300, 120, 900, 2000)  # per cent, bytes
    reads = [
        Read(
            Path(f"{n}"),
            n < 90,
            np.array([n < one for one in right]),
            np.array(sizes) + n % 2 * 2 - 1,
            np.array([n % 2, 3.0]),
        )
        for n in range(IMAGES)
    ]
    return Measured(settings, reads, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], floors=[12, 12, 12, 60, 60, 60], crop=224)


def test_points_are_means_and_what_they_lose_to_the_teacher(measured: Measured) -> None:
    points = measured.points()
    assert measured.teacher_top1 == 90
    assert [(one.method, one.bytes_mean, one.top1) for one in points] == [
        (OURS, 100, 60),
        (OURS, 1000, 85),
        ("large", 300, 70),
        ("jpeg", 120, 40),
        ("jpeg", 900, 30),
        ("jpeg", 2000, 80),
    ]
    assert [one.payload_mean for one in points] == [88, 988, 288, 60, 840, 1940]
    assert [one.encode_ms for one in points] == [1, 2, 3, 4, 5, 6]
    assert measured.overhead() == [0.5, 3.0]
    assert [one.resolution for one in points] == [224, 224, 224, 100, 100, 100]
    for one in points:
        assert one.top1_ci95 is not None
        low, high = one.top1_ci95
        assert low <= one.top1 - 90 <= high < 0


def test_photographs_are_drawn_again_with_what_is_no_payload(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitcodec.evaluation.measured.Resampled", lambda *arrays, **told: (arrays, told))
    found: Any = measured.resampled()
    (right_ns, bytes_ns, teacher_n), told = found
    assert told == {"methods": [OURS, OURS, "large", "jpeg", "jpeg", "jpeg"], "floors": [12, 12, 12, 60, 60, 60]}
    assert right_ns.sum(axis=0).tolist() == [60, 85, 70, 40, 30, 80]
    assert bytes_ns.mean(axis=0).tolist() == [100, 1000, 300, 120, 900, 2000]
    assert teacher_n.sum() == 90


def test_levels_are_held_against_the_nearest_in_bytes_on_a_hull(measured: Measured) -> None:
    found = {(one.a, one.b): one for one in measured.contrasts()}
    ours, jpeg = [f"{OURS} level {level}" for level in (0, 1)], [f"jpeg quality {q}, 100 px" for q in (5, 50)]
    assert list(found) == [
        (ours[0], TEACHER),
        (ours[0], "large level 0"),
        (ours[0], jpeg[0]),
        (ours[1], TEACHER),
        (ours[1], "large level 0"),
        (ours[1], jpeg[1]),  # twice as many bytes are nearer than an eighth
    ]
    differences = [one.top1 for one in found.values()]
    assert differences == pytest.approx([-30, -10, 20, -5, 15, 5])
    assert all(one.low <= one.top1 <= one.high for one in found.values())
    assert (found[ours[1], jpeg[1]].bytes_a, found[ours[1], jpeg[1]].bytes_b) == (1000, 2000)


def test_bundles_of_our_kind_are_held_against_what_is_not_ours(measured: Measured) -> None:
    (one,) = measured.contrasts_of_kin()
    assert (one.a, one.b, one.method_b) == ("large level 0", "jpeg quality 5, 100 px", "jpeg")
    assert one.top1 == pytest.approx(30)
