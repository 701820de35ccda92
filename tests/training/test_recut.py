"""A bundle that is cut later: the same packets and the same answers from another head, decoder and tail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from splitcodec import Device, Edge
from splitcodec.errors import BundlePart, RunError, TeacherError
from splitcodec.training.build import build_teacher
from splitcodec.training.graphs import FromPixels, LogitsOnly, to_onnx
from splitcodec.training.recipe import Recipe
from splitcodec.training.recut import recut
from splitcodec.wire.bundle import Bundle, derive, split_device
from tests.training.conftest import draw

CUT = "blocks.2"


@pytest.fixture(scope="module")
def onto(bundle: Bundle, recipe: Recipe) -> Bundle:
    """Return a bundle whose head and tail are those of the later cut (its decoder is not)."""
    changed = recipe.teacher.model_copy(update={"cut": CUT, "later": ()})
    teacher = build_teacher(recipe.model_copy(update={"teacher": changed}))
    scale, offset = recipe.teacher.affine()
    pixels = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    head = FromPixels(nn.Sequential(teacher.stem, teacher.rest), scale=scale, offset=offset).eval()
    step = bundle.manifest.stride
    files = {
        "head.onnx": to_onnx(head, pixels, source="image_bhwc", target="feature_bchw", rows=1, cols=2, step=step),
        "tail_classify.onnx": to_onnx(
            LogitsOnly(teacher.tail).eval(),
            head(pixels),
            source="feature_bchw",
            target="logits",
            rows=2,
            cols=3,
            step=1,
        ),
    }
    return derive(bundle, bundle.manifest, files=files)


def test_answers_and_packets_stay(bundle: Bundle, onto: Bundle, recipe: Recipe, tmp_path: Path) -> None:
    made = recut(bundle, recipe, CUT, onto, tmp_path / "later")
    assert made.fingerprint == bundle.fingerprint
    assert made.manifest.version == bundle.manifest.version + 1
    assert made.manifest.provenance["recut"] == {"from": bundle.ident, "was": "blocks.1", "cut": CUT}
    assert made.graph("tail_classify") == onto.graph("tail_classify")
    device = Device(bundle, threads=1)
    for seed, size in enumerate(((72, 72), (90, 64))):
        packet = device.encode(draw(size, seed))
        assert Device(made, threads=1).encode(draw(size, seed)) == packet
        before, after = (Edge(one, threads=1).answer(packet, top=10)["answers"]["classify"] for one in (bundle, made))
        by_label = [{one["label"]: one["p"] for one in found} for found in (before, after)]
        assert by_label[0].keys() == by_label[1].keys()
        for label, share in by_label[0].items():
            np.testing.assert_allclose(by_label[1][label], share, atol=1e-3)


def test_what_does_not_fit_is_refused(bundle: Bundle, onto: Bundle, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(BundlePart):
        recut(split_device(bundle, tmp_path / "half"), recipe, CUT, onto, tmp_path / "no")
    with pytest.raises(RunError, match="its teacher or cut"):
        recut(bundle, recipe, CUT, bundle, tmp_path / "no")
    with pytest.raises(RunError, match="its teacher or cut"):
        recut(onto, recipe, CUT, onto, tmp_path / "no")
    with pytest.raises(TeacherError):
        recut(bundle, recipe, "blocks.0", onto, tmp_path / "no")
    assert not (tmp_path / "no").exists()
