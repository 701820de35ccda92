"""The script in benchmarks/ that takes the prior away."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from splitcodec.evaluation.points import read_points
from tests.evaluation.conftest import COUNT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import ablations

    return ablations


def test_without_the_prior_answers_stay_and_bytes_do_not(
    script: ModuleType, tiny_folder: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "points.json"
    assert script.main(["--data", str(labelled), "--bundle", str(tiny_folder), "--out", str(out)]) == 0
    body = json.loads(out.read_bytes())
    ours = {one["setting"]: one for one in body["ours"]}
    gains = {one["setting"]: one for one in body["points"] if one["method"] == script.GAINS}
    assert set(ours) == set(gains) == {"level 0", "level 1", "level 2"}
    assert all(gains[level]["top1"] == ours[level]["top1"] for level in ours)
    assert set(body["bd_rate"]) == {script.GAINS, script.UNIFORM}
    points, _ = read_points([out], images=COUNT, taken=["splitcodec"])
    assert len(points) == 3 + len(script.STEPS)
    assert "uniform, deflate, 256 steps: " in capsys.readouterr().out
    assert str(tmp_path) not in out.read_text()
    assert body["command"] == "python benchmarks/ablations.py --data DIR --bundle tiny --out points.json --threads 1"


def test_many_steps_lose_nothing_and_cost_more(script: ModuleType) -> None:
    latent = np.random.default_rng(0).normal(size=(4, 8, 8)).astype(np.float32)
    seen = {steps: script.uniform(latent, steps=steps) for steps in script.STEPS}
    errors = [float(np.abs(one - latent).max()) for one, _ in seen.values()]
    sizes = [size for _, size in seen.values()]
    assert errors == sorted(errors)
    assert errors[0] <= (latent.max() - latent.min()) / 255 / 2 + 1e-5
    assert sizes == sorted(sizes, reverse=True)
    flat, size = script.uniform(np.full((2, 3, 3), 1.5, np.float32), steps=256)
    np.testing.assert_allclose(flat, 1.5, atol=1e-5)
    assert size < 20


def test_symbols_are_bytes_as_long_as_they_fit(script: ModuleType) -> None:
    symbols = np.random.default_rng(1).integers(-128, 128, (2, 5, 5)).astype(np.int32)
    plain = len(zlib.compress(symbols.astype(np.int8).tobytes(), 9))
    assert plain - 8 <= script.deflated(symbols) <= plain
    assert script.deflated(symbols * 4) > script.deflated(symbols)


def test_a_folder_without_labels_is_refused(
    script: ModuleType, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--data", str(tmp_path), "--bundle", str(tiny_folder)]) == 2
    assert "holds no labelled picture" in capsys.readouterr().err


def test_nothing_is_reported_of_pictures_that_cannot_be_read(
    script: ModuleType, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It wrote a report of NaN, and left with 0."""
    (tmp_path / "0001_broken.jpg").write_bytes(b"no picture")
    out, options = tmp_path / "points.json", ["--data", str(tmp_path), "--bundle", str(tiny_folder), "--out"]
    assert script.main([*options, str(out)]) == 2
    assert "none of 1 pictures" in capsys.readouterr().err
    assert not out.exists()
    (tmp_path / "file").write_bytes(b"")
    assert script.main([*options, str(tmp_path / "file" / "points.json")]) == 2
    assert "cannot be made" in capsys.readouterr().err.splitlines()[0]


def test_budgets_that_make_no_sense_are_refused(
    script: ModuleType, tiny_folder: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import budget

    options = ["--data", str(labelled), "--bundle", str(tiny_folder), "--out", str(tmp_path / "budget.json")]
    for more, why in ((["--budgets", "x"], "--budgets 'x'"), (["--most", "0"], "--most 0; expected at least 1")):
        assert budget.main([*options, *more]) == 2
        assert why in capsys.readouterr().err
    assert budget.main([*options, "--budgets", "500"]) == 0
    told = json.loads((tmp_path / "budget.json").read_bytes())
    assert (told["photographs"], told["budgets"][0]["refused"]) == (COUNT, 0)
    assert "0003_broken.jpg" in capsys.readouterr().err
