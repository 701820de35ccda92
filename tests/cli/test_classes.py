"""learn-classes from outside."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.wire.bundle import open_bundle, split_device
from tests.labelled import write_colours


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_colours(tmp_path / "photos", count=5)


def test_own_classes_from_the_command_line(photos: Path, tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    given = ["learn-classes", str(tiny_folder), "--photos", str(photos), "--name", "own", "--threads", "1"]
    done = CliRunner().invoke(app, [*given, "-o", str(tmp_path / "a"), "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert (told["bundle"], told["classes"], told["pictures"], told["held_out"]["pictures"]) == ("own@1", 2, 8, 2)
    assert [one["level"] for one in told["held_out"]["levels"]] == [0, 1, 2, -1]
    assert not list(tmp_path.glob(".a*"))
    done = CliRunner().invoke(app, [*given, "-o", str(tmp_path / "b"), "--held-out", str(photos)])
    assert "--held-out has every picture of the class" in str(done.exception)
    (tmp_path / "other").mkdir()
    (photos / "sea").rename(tmp_path / "other" / "sea")
    more = ["--photos", str(tmp_path / "other"), "--held-out", str(tmp_path / "held"), "-o", str(tmp_path / "c")]
    (tmp_path / "held" / "sea").mkdir(parents=True)
    (tmp_path / "held" / "sea" / "x.png").write_bytes((tmp_path / "other" / "sea" / "0.png").read_bytes())
    done = CliRunner().invoke(app, [*given, *more], catch_exceptions=False)
    assert "own@1, 2 classes, 1 pictures held out" in done.stdout
    assert "serve it in place of tiny@1" in done.stdout


def test_killed_while_it_measures_the_same_command_goes_on(
    photos: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle was there already, so the command was refused: remove it, and learn anew to have it measured."""
    own_classes = pytest.importorskip("splitcodec.training.own_classes")
    words = ["learn-classes", str(tiny_folder), "--photos", str(photos), "--name", "own", "-o", str(tmp_path / "out")]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(own_classes, "score", killed)
        assert CliRunner().invoke(app, words).exit_code != 0
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["held_out"]["pictures"] == 2
    assert open_bundle(tmp_path / "out").ident == "own@1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"out": "photos"}, "exists; choose another folder"),
        ({"name": "My Birds"}, "name is 'My Birds'"),
        ({"photos": "photos/sea"}, "0 folder(s) of pictures; expected one for each of 2 classes or more"),
        ({"photos": "nowhere"}, "no such folder"),
        ({"bundle": "half"}, "tiny@1 is the device's half, which has no tail to teach"),
        ({"held": "strange"}, "--held-out has a class 'lawn' that --photos has not"),
    ],
)
def test_what_is_refused_before_the_work(
    change: dict[str, str], says: str, photos: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    split_device(open_bundle(tiny_folder), tmp_path / "half")
    (tmp_path / "strange" / "lawn").mkdir(parents=True)
    (tmp_path / "strange" / "lawn" / "a.png").touch()
    bundle = str(tmp_path / change["bundle"]) if "bundle" in change else str(tiny_folder)
    words = ["learn-classes", bundle, "--photos", str(tmp_path / change.get("photos", "photos"))]
    words += ["--name", change.get("name", "own"), "-o", str(tmp_path / change.get("out", "out"))]
    words += ["--held-out", str(tmp_path / change["held"])] if "held" in change else []
    done = CliRunner().invoke(app, words)
    assert says in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_class_of_which_nothing_can_be_read_is_refused(photos: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """It became a class of the bundle that is never answered."""
    pytest.importorskip("torch")
    (photos / "lawn").mkdir()
    (photos / "lawn" / "a.png").write_bytes(b"no picture")
    words = ["learn-classes", str(tiny_folder), "--photos", str(photos), "--name", "own", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert "no picture of the class 'lawn' can be read" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_without_torch_it_says_what_to_install(
    photos: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    words = ["learn-classes", str(tiny_folder), "--photos", str(photos), "--name", "own", "-o", str(tmp_path / "out")]
    assert "install it with: pip install 'splitcodec[train]'" in str(CliRunner().invoke(app, words).exception)
