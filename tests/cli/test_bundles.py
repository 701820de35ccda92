"""Commands that make bundles out of bundles, from outside: pack, split, add, retail, calibrate."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.errors import OutputError
from splitcodec.wire.bundle import open_bundle, write_zip
from tests.cli.test_cli import refused, run
from tests.evaluation.test_retail import tail


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(4)
    for k in range(10):
        colours = Image.fromarray(random.integers(0, 60, (3, 3, 3), dtype=np.uint8))
        colours.resize((80, 80)).save(folder / f"{k}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize("out", ["whole", "whole.zip"])
def test_pack(tiny_folder: Path, tmp_path: Path, out: str) -> None:
    done = run("bundle", "pack", tiny_folder, "-o", tmp_path / out, "--json")
    assert done.returncode == 0, done.stderr
    facts, tiny = json.loads(done.stdout), open_bundle(tiny_folder)
    assert facts["path"] == str(tmp_path / out)
    assert facts["fingerprint"] == tiny.fingerprint.hex()
    assert facts["files"] == {name: entry.bytes for name, entry in tiny.manifest.files.items()}
    paths = [tmp_path / out] if out.endswith(".zip") else list((tmp_path / out).iterdir())
    assert facts["bytes"] == sum(path.stat().st_size for path in paths)
    assert open_bundle(tmp_path / out).manifest == tiny.manifest
    again = run("bundle", "pack", tiny_folder, "-o", tmp_path / out)
    refused(again, "OutputError", "exists")


@pytest.mark.parametrize("out", ["half", "half.zip"])
def test_pack_the_devices_half(tiny_folder: Path, tmp_path: Path, out: str) -> None:
    done = run("bundle", "pack", tiny_folder, "--device", "-o", tmp_path / out)
    assert done.returncode == 0, done.stderr
    assert "the device's half" in done.stdout
    half = open_bundle(tmp_path / out)
    assert half.is_device_half
    assert half.fingerprint == open_bundle(tiny_folder).fingerprint


def test_pack_out_of_the_zoo(tmp_path: Path) -> None:
    facts = json.loads(run("bundle", "pack", "efficientnet-lite0", "-o", tmp_path / "b", "--json").stdout)
    assert facts["bundle"].startswith("efficientnet-lite0@")
    assert (tmp_path / "b" / "head.onnx").is_file()
    assert open_bundle(tmp_path / "b").graph("head") == open_bundle("efficientnet-lite0").graph("head")


def test_what_cannot_be_packed(tiny_folder: Path, tmp_path: Path) -> None:
    refused(run("bundle", "pack", "no-such-bundle", "-o", tmp_path / "x"), "BundleNotFound", "no-such-bundle")
    refused(run("bundle", "pack", tiny_folder, "-o", tmp_path / "x.tar"), "SettingsError", ".zip")
    (tmp_path / "file").touch()
    refused(run("bundle", "pack", tiny_folder, "-o", tmp_path / "file" / "x"), "OutputError")


@pytest.mark.parametrize("out", ["whole", "whole.zip"])
def test_no_room_on_the_disk(tiny_folder: Path, tmp_path: Path, out: str) -> None:
    command = [sys.executable, "-m", "splitcodec.cli", "bundle", "pack", str(tiny_folder), "-o", str(tmp_path / out)]
    line = f"ulimit -f 1; exec {shlex.join(command)}"
    refused(
        subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60),
        "OutputError",
        "cannot write",
    )
    assert list(tmp_path.iterdir()) == []


def test_add_to_a_zoo(tiny_folder: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    facts = json.loads(run("bundle", "add", tiny_folder, "--zoo", zoo, "--json").stdout)
    assert facts["path"] == str(zoo / "tiny@1")
    assert set(facts["shared"]) == {"decoder.onnx", "head.onnx", "tail_classify.onnx"}
    assert facts["removed"] == []
    assert len(list((zoo / "graphs").iterdir())) == 3
    made = run("bundle", "retail", tiny_folder, "--tail", tail(tmp_path), "--classes", names(tmp_path), "--name", "own",
               "-o", tmp_path / "own")  # fmt: skip
    assert made.returncode == 0, made.stderr
    told = run("bundle", "add", tmp_path / "own", "--zoo", zoo).stdout
    assert "head.onnx: shared with tiny@1" in told
    assert "tail_classify.onnx: no other bundle has it" in told


def test_add_does_not_replace_unasked(tiny_folder: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    run("bundle", "add", tiny_folder, "--zoo", zoo)
    run("bundle", "retail", tiny_folder, "--tail", tail(tmp_path), "--classes", names(tmp_path), "--name", "tiny", "-o",
        tmp_path / "tiny")  # fmt: skip
    refused(run("bundle", "add", tmp_path / "tiny", "--zoo", zoo), "OutputError", "another tiny@1")
    done = run("bundle", "add", tmp_path / "tiny", "--zoo", zoo, "--replace")
    assert done.returncode == 0, done.stderr
    assert "removed" in done.stdout
    assert open_bundle("tiny", zoo=zoo).manifest.classes == ("day", "dusk", "night")


def names(folder: Path) -> Path:
    (folder / "names.txt").write_text("day\ndusk\nnight\n")
    return folder / "names.txt"


def test_retail_refuses_a_tail_of_other_classes(tiny_folder: Path, tmp_path: Path) -> None:
    own, few = tail(tmp_path), tmp_path / "few.txt"
    few.write_text("day\nnight\n")
    done = run("bundle", "retail", tiny_folder, "--tail", own, "--classes", few, "--name", "x", "-o", tmp_path / "x")
    refused(done, "GraphError", "2 names")
    assert not (tmp_path / "x").exists()


def test_calibrate(tiny_folder: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    done = run("calibrate", "--bundle", tiny_folder, "--photos", photos, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["bundle"] == result["bundle_before"] == "tiny@1"
    assert open_bundle(out).manifest.provenance["calibrated"]["from"] == "tiny@1"
    assert result["fingerprint"] == open_bundle(out).fingerprint.hex() != result["fingerprint_before"]
    assert (result["photographs"], result["held_out"]) == (8, 2)
    for one in result["levels"]:
        change = 100 * (one["bytes_after"] / one["bytes_before"] - 1)
        assert one["change_percent"] == pytest.approx(change, abs=0.1)
    assert [Path(one["photograph"]).name for one in result["skipped"]] == ["broken.jpg"]
    assert "left out" in done.stderr
    assert "broken.jpg" in done.stderr
    refused(run("calibrate", "-b", tiny_folder, "--photos", photos, "-o", out), "OutputError", "exists")


def test_calibrate_for_people(tiny_folder: Path, photos: Path, tmp_path: Path) -> None:
    write_zip(open_bundle(tiny_folder), tmp_path / "tiny.zip")
    done = run("calibrate", "-b", tmp_path / "tiny.zip", "--photos", photos, "-o", tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    assert "fitted on 8 photographs, measured on 2 others" in done.stdout
    assert "both shores need" in done.stdout


@pytest.mark.parametrize(
    "words", [["calibrate", "--bundle", "TINY", "--photos", "PHOTOS"], ["bundle", "join", "TINY", "--edge", "TINY"]]
)
def test_a_bundle_that_keeps_its_name_says_so(
    words: list[str], tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    """Two bundles of one name and version were told apart by their fingerprints alone."""
    places = {"TINY": tiny_folder, "PHOTOS": photos}
    command = [places.get(word, word) for word in words]
    kept = run(*command, "-o", tmp_path / "kept")
    line = "It is still called tiny@1, so logs and answers do not tell the two apart; --name or --version does."
    assert line in kept.stdout.splitlines()
    for given, ident in ((["--version", 2], "tiny@2"), (["--name", "mine"], "mine@1")):
        done = run(*command, *given, "-o", tmp_path / ident)
        assert done.returncode == 0, done.stderr
        assert f": {ident}" in done.stdout
        assert "still called" not in done.stdout
        assert open_bundle(tmp_path / ident).ident == ident
    refused(run(*command, "--name", "My Bundle", "-o", tmp_path / "x"), "BundleFormat", "'My Bundle'", "lower-case")
    assert not (tmp_path / "x").exists()


def test_calibrate_without_photographs(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("calibrate", "-b", tiny_folder, "--photos", tmp_path / "empty", "-o", tmp_path / "x")
    refused(done, "DataError", "no photographs")
    assert not (tmp_path / "x").exists()


def test_join_and_what_it_refuses(tiny_folder: Path, tmp_path: Path) -> None:
    done = run("bundle", "join", tiny_folder, "--edge", tiny_folder, "-o", tmp_path / "joined", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fingerprint"] == open_bundle(tiny_folder).fingerprint.hex()
    refused(run("bundle", "join", tiny_folder, "--edge", tiny_folder, "-o", tmp_path / "joined"), "exists")


@pytest.mark.parametrize(
    "words",
    [
        ["redecode", "B", "--run", "R", "-o", "OUT"],
        ["recut", "B", "--recipe", "R", "--cut", "blocks.2", "--onto", "B", "-o", "OUT"],
    ],
)
def test_what_needs_the_training_room_says_so(words: list[str], tmp_path: Path) -> None:
    code = f"import sys; sys.modules['torch'] = None; sys.argv = ['splitcodec', 'bundle', *{words}]; "
    command = [sys.executable, "-c", code + "from splitcodec.cli import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    refused(done, "training needs torch", "splitcodec[train]")


@pytest.mark.parametrize("out", ["/proc/out", "file/out", "file"])
@pytest.mark.parametrize(
    "command",
    [
        ["quantise", "no-bundle", "--photos", "."],
        ["levels", "no-bundle", "--photos", ".", "--bytes", "300"],
        ["contexts", "no-bundle", "--photos", "."],
        ["learn-classes", "no-bundle", "--photos", ".", "--name", "mine"],
        ["export", "run"],
        ["export-task", "run"],
        ["bundle", "recut", "no-bundle", "--recipe", "recipe.yaml", "--cut", "x", "--onto", "no-bundle"],
        ["bundle", "redecode", "no-bundle", "--run", "run"],
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    command: list[str], out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`quantise` measured for minutes, and then could not write what it had made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    done = CliRunner().invoke(app, [*command, "-o", out])
    assert isinstance(done.exception, OutputError), done.exception
    assert {path.name for path in tmp_path.iterdir()} == {"file", "run"}
