"""The INT8 encoder of a bundle with a three-layer encoder: made, measured, replayed, tuned."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

import splitcodec
from splitcodec.cli import app
from splitcodec.device.client import Device
from splitcodec.device.encoder import FILES
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundlePart, DataError, GoldenMismatch, GraphError, SettingsError
from splitcodec.evaluation.agreement import agreement
from splitcodec.evaluation.golden import FILE, FILE_INT8, make_golden
from splitcodec.evaluation.int8 import with_int8
from splitcodec.evaluation.replay import replay, replay_int8
from splitcodec.training.quantise import quantise_encoder
from splitcodec.wire.bundle import Bundle, derive, open_bundle, split_device, write_folder
from tests.training.conftest import encoder_of


def three_layers() -> bytes:
    """Return an encoder of stride 16 for `tiny`: two convolutions with ReLU, one that gives the latent."""
    random = np.random.default_rng(5)
    weights = {
        "w1": random.normal(size=(12, 3, 4, 4)) / 7,
        "b1": random.normal(size=12) / 10,
        "w2": random.normal(size=(16, 12, 4, 4)) / 14,
        "b2": random.normal(size=16) / 10,
        "w3": random.normal(size=(4, 16, 1, 1)) / 2,
        "b3": np.zeros(4),
    }
    nodes = [
        helper.make_node("Conv", ["bchw", "w1", "b1"], ["c1"], strides=[4, 4]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], strides=[4, 4]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["latent_bchw"]),
    ]
    return encoder_of(weights, nodes)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    for number in range(12):
        coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((90, 80), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def plain(tiny: Bundle, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    bundle = derive(tiny, tiny.manifest, files={"encoder.onnx": three_layers()})
    golden = make_golden(Device(bundle), Edge(bundle), [photos / "0.png", photos / "1.png"])
    bundle = derive(bundle, bundle.manifest, files={FILE: golden})
    return write_folder(bundle, tmp_path_factory.mktemp("plain") / "three")


@pytest.fixture(scope="module")
def crops(plain: Bundle, photos: Path) -> list[NDArray[np.uint8]]:
    return [Device(plain).crop(path) for path in sorted(photos.glob("*.png"))]


@pytest.fixture(scope="module")
def made(plain: Bundle, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, dict[str, object]]:
    out = tmp_path_factory.mktemp("made") / "int8"
    arguments = ["quantise", str(plain.path), "--photos", str(photos), "-o", str(out), "--threads", "1", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return open_bundle(out), json.loads(done.stdout)


def test_quantise_adds_an_encoder_and_changes_nothing_else(
    plain: Bundle, made: tuple[Bundle, dict[str, object]]
) -> None:
    bundle, told = made
    old, new = plain.manifest.files, bundle.manifest.files
    assert set(new) - set(old) == {FILES["int8"], FILE_INT8}
    assert all(new[name] == entry for name, entry in old.items() if name != "MODEL_CARD.md")
    assert (bundle.fingerprint, bundle.ident) == (plain.fingerprint, plain.ident)
    noted = bundle.manifest.provenance["int8"]
    assert noted == {**told["int8"], "splitcodec": splitcodec.__version__}  # type: ignore[dict-item]
    assert noted["calibrator"] in ("minmax", "percentile")
    assert told["bytes"] == new[FILES["int8"]].bytes
    assert (told["path"], told["fingerprint"]) == (str(bundle.path), bundle.fingerprint.hex())


def test_a_name_is_kept_or_given(plain: Bundle, photos: Path, tmp_path: Path) -> None:
    command = ["quantise", str(plain.path), "--photos", str(photos), "--threads", "1", "--levels", "0"]
    kept = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "kept")])
    assert kept.stdout.splitlines()[-1].startswith("It is still called tiny@1, "), kept.output
    told = CliRunner().invoke(app, [*command, "--version", "2", "-o", str(tmp_path / "told"), "--json"])
    assert json.loads(told.stdout)["bundle"] == open_bundle(tmp_path / "told").ident == "tiny@2"


def test_symbols_are_close_and_packets_are_answered(made: tuple[Bundle, dict[str, object]], photos: Path) -> None:
    bundle, edge = made[0], Edge(made[0])
    fp32, int8 = Device(bundle, threads=1), Device(bundle, threads=1, encoder="int8")
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    off = [np.abs(fp32.symbols(path, level=2) - int8.symbols(path, level=2)) for path in photos.glob("*.png")]
    assert 0.8 < np.mean([(one == 0).mean() for one in off]) < 1.0
    assert max(one.max() for one in off) <= 2
    assert edge.answer(int8.encode(photos / "0.png"))["bundle"] == bundle.ident


def test_the_device_half_keeps_both_encoders(made: tuple[Bundle, dict[str, object]], tmp_path: Path) -> None:
    half = split_device(made[0], tmp_path / "half")
    assert half.has(FILES["int8"])
    assert replay(half).int8_equal == 1.0


def test_golden_vectors_of_the_int8_encoder_replay(made: tuple[Bundle, dict[str, object]], tmp_path: Path) -> None:
    assert replay_int8(made[0]) == 1.0
    steps: list[tuple[int, int]] = []
    assert replay(made[0], on_step=lambda *one: steps.append(one)).to_json()["int8_equal"] == 1.0
    assert steps[-1] == (len(steps), len(steps))
    wrong = derive(made[0], made[0].manifest, files={FILE_INT8: made[0].read(FILE)})
    other = derive(wrong, wrong.manifest, files={FILES["int8"]: _shifted(made[0])})
    with pytest.raises(GoldenMismatch, match=r"encoder\.int8\.onnx.*its other encoder may be used here"):
        replay_int8(other)
    result = replay(other)  # the bundle is right, and runs in fp32
    assert result.int8_equal is None
    assert "encoder.int8.onnx" in result.to_json()["int8_refused"]
    told = CliRunner().invoke(app, ["check", str(write_folder(other, tmp_path / "other").path)])
    assert told.exit_code == 0
    assert "INT8 may not be used here" in told.stderr


def test_golden_pictures_lie_in_a_bundle_once_and_earlier_files_repeat_them(
    made: tuple[Bundle, dict[str, object]],
) -> None:
    both, alone = (np.load(io.BytesIO(made[0].read(name)), allow_pickle=False) for name in (FILE, FILE_INT8))
    assert set(both.files) - set(alone.files) == {"image_bhwc"}
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **{**alone, "image_bhwc": both["image_bhwc"]})
    repeated = derive(made[0], made[0].manifest, files={FILE_INT8: file.getvalue()})
    assert replay_int8(repeated) == 1.0


def _shifted(bundle: Bundle) -> bytes:
    """Return the bundle's INT8 graph with another bias: what a processor that saturates would give."""
    import onnx

    model = onnx.load_from_string(bundle.read(FILES["int8"]))
    bias = next(one for one in model.graph.initializer if one.name.endswith("_corrected_bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 3, bias.name))
    return bytes(model.SerializeToString())


def test_calibrator_bias_and_what_stays_float(plain: Bundle, crops: list[NDArray[np.uint8]]) -> None:
    graph, tables = plain.read("encoder.onnx"), plain.tables[0]
    whole = quantise_encoder(graph, crops, tables=tables, level=2)
    part = quantise_encoder(graph, crops, tables=tables, level=2, keep_float=1)
    assert whole.calibrator == min(whole.tried, key=lambda name: whole.tried[name])
    assert (len(whole.kept_float), len(part.kept_float)) == (0, 1)
    assert part.error < whole.error < 1 / 12
    bundle = with_int8(plain, whole.graph, note={})
    fp32, int8 = Device(bundle, threads=1), Device(bundle, threads=1, encoder="int8")
    off = np.mean([int8.encoder.latent_chw(crop) - fp32.encoder.latent_chw(crop) for crop in crops[3:]], axis=(0, 2, 3))
    assert np.abs(off).max() < 1e-3
    wide = np.zeros((1, 96, 160, 3), np.uint8)
    assert int8.encoder.latents_bchw(wide).shape == (1, 4, 6, 10)
    assert b"/" + b"tmp" not in whole.graph


def test_products_do_not_saturate(plain: Bundle, crops: list[NDArray[np.uint8]]) -> None:
    """x86 without VNNI adds products in 16 bits; without optimisation the same graph is computed in floats."""
    import onnxruntime

    made = quantise_encoder(plain.read("encoder.onnx"), crops, tables=plain.tables[0], level=2)
    found = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(made.graph, options, providers=["CPUExecutionProvider"])
        found.append(np.concatenate([session.run(None, {"image_bhwc": crop})[0] for crop in crops]))
    off = np.abs(found[1] - found[0])
    assert np.mean(off > 0.02 * found[0].std()) < 0.02  # an 8-bit rounding turns over here and there


def test_photographs_that_are_measured_are_not_calibrated_on(plain: Bundle, photos: Path, tmp_path: Path) -> None:
    """`--held-out` may lie within `--photos`."""
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "held").mkdir()
    for number in range(5):
        (tmp_path / "photos" / f"{number}.png").rename(tmp_path / "photos" / "held" / f"{number}.png")
    quantise = ["quantise", str(plain.path), "-o", str(tmp_path / "out"), "--photos", str(tmp_path / "photos")]
    quantise += ["--threads", "1", "--json", "--held-out"]
    done = CliRunner().invoke(app, [*quantise, str(tmp_path / "photos" / "held")])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["int8"]["photographs"], told["int8"]["agreement_lost"]["photographs"]) == (7, 5)
    shutil.rmtree(tmp_path / "out")
    done = CliRunner().invoke(app, [*quantise, str(tmp_path / "photos")])
    assert "--held-out has every photograph of --photos" in str(done.exception)
    (tmp_path / "one").mkdir()
    shutil.copy(photos / "0.png", tmp_path / "one")
    done = CliRunner().invoke(app, [*quantise[:4], "--photos", str(tmp_path / "one")])
    assert "one photograph; expected at least 2" in str(done.exception)


def test_what_cannot_be_quantised_is_refused(tiny: Bundle, plain: Bundle, crops: list[NDArray[np.uint8]]) -> None:
    with pytest.raises(GraphError, match="nothing to quantise"):
        quantise_encoder(tiny.read("encoder.onnx"), crops, tables=tiny.tables[0], level=1)
    with pytest.raises(DataError, match="at least 4"):
        quantise_encoder(plain.read("encoder.onnx"), crops[:3], tables=plain.tables[0], level=1)
    with pytest.raises(GraphError, match="made ready"):
        quantise_encoder(b"no graph", crops, tables=plain.tables[0], level=1)
    with pytest.raises(BundlePart, match="splitcodec quantise"):
        Device(plain, encoder="int8")
    with pytest.raises(SettingsError, match="expected fp32 or int8"):
        Device(plain, encoder="int4")  # type: ignore[arg-type]


def test_agreement_of_an_encoder_with_itself_is_whole(plain: Bundle, photos: Path) -> None:
    same = with_int8(plain, plain.read("encoder.onnx"), note={})
    found = agreement(same, sorted(photos.iterdir()), threads=1)
    assert (found.loss, found.interval) == (0.0, (0.0, 0.0))
    assert [one.symbols_equal for one in found.levels] == [100.0] * 3
    assert all(one.bytes[0] == one.bytes[1] and one.agreement[0] == one.agreement[1] for one in found.levels)
    assert (found.photographs, len(found.skipped)) == (12, 1)
    assert [Path(one["photograph"]).name for one in found.to_json()["skipped"]] == ["broken.jpg"]  # as `calibrate` says
    assert found.own_tables == found.refitted
    with pytest.raises(SettingsError, match="0 to 2"):
        agreement(same, [], levels=[3])
    with pytest.raises(DataError, match="none of"):
        agreement(same, [photos / "broken.jpg"], threads=1)


def test_tune_never_chooses_an_encoder_that_does_not_replay(
    made: tuple[Bundle, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    golden = make_golden(Device(made[0]), Edge(made[0]), [Image.new("RGB", (70, 70), "red")])
    manifest = replace(made[0].manifest, name="shifted")
    wrong = write_folder(
        derive(made[0], manifest, files={FILE_INT8: golden, FILES["int8"]: _shifted(made[0])}), tmp_path / "wrong"
    )
    done = CliRunner().invoke(app, ["tune", str(wrong.path), "--threads", "1", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["choice"]["encoder"] == "fp32"
    assert "may not be used here" in told["choice"]["why"]
    assert Device(wrong, encoder="tuned").precision == "fp32"
