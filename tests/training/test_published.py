"""Checkpoints as the paper's published code writes them, held against its formulas, written down here once more."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as nnf
from torch import Tensor
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import DataError, OutputError, RecipeError, TeacherError
from splitcodec.evaluation.golden import make_golden
from splitcodec.evaluation.replay import replay
from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.student import Student
from splitcodec.model.teacher import Teacher
from splitcodec.training.build import build_student, build_teacher
from splitcodec.training.export import export
from splitcodec.training.published import take
from splitcodec.training.recipe import Recipe, read_recipe
from splitcodec.training.run import Run
from splitcodec.wire.bundle import Bundle
from tests.training.conftest import COMMITTED, draw

State = dict[str, Tensor]
Changed = Callable[[dict[str, Any]], object]

CHANNELS, WIDTHS, DECODER = 5, (8, 6), (16, 12)
PEDESTAL = 2.0**-36
BESIDE = "bottleneck_layer.entropy_bottleneck"


def _published(*, old: bool = False) -> State:
    """Return the state dict of a `SplittableResNet` with random weights, of the layers behind layer1 too."""
    torch.manual_seed(7)
    network = timm.create_model("test_resnet", num_classes=1000)
    for name, one in network.state_dict().items():
        if name.endswith("running_var"):
            one.uniform_(0.5, 1.5)
    state: State = {
        name: one for name, one in network.state_dict().items() if name.startswith(("layer2", "layer3", "layer4", "fc"))
    }
    width = network.layer2[0].conv1.in_channels
    encoder = [(WIDTHS[0], 3, 5), (WIDTHS[1], WIDTHS[0], 5), (CHANNELS, WIDTHS[1], 2)]
    decoder = [(DECODER[0], CHANNELS, 2), (DECODER[1], DECODER[0], 2), (width, DECODER[1], 2)]
    for part, sizes in (("encoder", encoder), ("decoder", decoder)):
        for place, (out, below, side) in zip((0, 2, 4), sizes, strict=True):
            state[f"bottleneck_layer.{part}.{place}.weight"] = torch.randn(out, below, side, side) / below**0.5
            if place < 4:
                state[f"bottleneck_layer.{part}.{place + 1}.beta"] = torch.rand(out) + 0.5
                state[f"bottleneck_layer.{part}.{place + 1}.gamma"] = torch.rand(out, out) * 0.3 - 0.05
    state["bottleneck_layer.encoder.4.weight"] *= 8
    shapes = {"matrices": (3, 3, 3, 3, 1), "biases": (3, 3, 3, 3, 1), "factors": (3, 3, 3, 3)}
    for kind, widths in shapes.items():
        for k, out in enumerate(widths):
            below = 1 if kind != "matrices" or k == 0 else 3
            name = (
                f"_{ {'matrices': 'matrix', 'biases': 'bias', 'factors': 'factor'}[kind] }{k}" if old else f"{kind}.{k}"
            )
            state[f"{BESIDE}.{name}"] = torch.randn(CHANNELS, out, below) * 0.5
    median = torch.randn(CHANNELS, 1, 1) * 2
    state[f"{BESIDE}.quantiles"] = torch.cat((median - 9, median, median + 9), dim=2)
    return state


def _gdn(x: Tensor, state: State, name: str, *, inverse: bool) -> Tensor:
    beta = state[f"{name}.beta"].clamp_min((1e-6 + PEDESTAL) ** 0.5).square() - PEDESTAL
    gamma = state[f"{name}.gamma"].clamp_min(PEDESTAL**0.5).square() - PEDESTAL
    norm = nnf.conv2d(x.abs(), gamma[:, :, None, None], beta)
    return x * norm if inverse else x / norm


def _encoded(state: State, image: Tensor) -> Tensor:
    """Return the latent before rounding."""
    x = nnf.conv2d(image, state["bottleneck_layer.encoder.0.weight"], stride=2, padding=2)
    x = _gdn(x, state, "bottleneck_layer.encoder.1", inverse=False)
    x = nnf.conv2d(x, state["bottleneck_layer.encoder.2.weight"], stride=2, padding=2)
    x = _gdn(x, state, "bottleneck_layer.encoder.3", inverse=False)
    return nnf.conv2d(x, state["bottleneck_layer.encoder.4.weight"])


def _decoded(state: State, latent: Tensor) -> Tensor:
    x = nnf.conv2d(latent, state["bottleneck_layer.decoder.0.weight"], padding=1)
    x = _gdn(x, state, "bottleneck_layer.decoder.1", inverse=True)
    x = nnf.conv2d(x, state["bottleneck_layer.decoder.2.weight"])
    x = _gdn(x, state, "bottleneck_layer.decoder.3", inverse=True)
    return nnf.conv2d(x, state["bottleneck_layer.decoder.4.weight"], padding=1)


def _mass(state: State, value_cn: Tensor) -> Tensor:
    """Return the density's mass of the unit interval around values (C, N), double."""

    def logits(x: Tensor) -> Tensor:
        x = x[:, None]
        for k in range(5):
            x = nnf.softplus(state[f"{BESIDE}.matrices.{k}"].double()) @ x + state[f"{BESIDE}.biases.{k}"].double()
            if k < 4:
                x = x + torch.tanh(state[f"{BESIDE}.factors.{k}"].double()) * torch.tanh(x)
        return x[:, 0]

    return torch.sigmoid(logits(value_cn.double() + 0.5)) - torch.sigmoid(logits(value_cn.double() - 0.5))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for n in range(20):
        draw((90 + n, 80), n).save(folder / f"{n}.png")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Return the committed recipe with a small ResNet of random weights, which are not those of the checkpoint."""
    torch.manual_seed(3)
    weights = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.save(timm.create_model("test_resnet", num_classes=1000).state_dict(), weights)
    return read_recipe(
        COMMITTED / "paper" / "resnet50_beta1.28.yaml",
        changes=(
            *("teacher.model=test_resnet", f"teacher.weights={weights}", "teacher.crop=64", "teacher.resize=72"),
            *("student.widths=[8, 6]", "student.channels=5", "student.decoder_widths=[16, 12]", "data.holdout=2"),
        ),
    )


def _written(path: Path, state: State) -> Path:
    """Write a checkpoint as torchdistill does."""
    known = {"optimizer": {"state": {}}, "best_value": 74.2, "args": argparse.Namespace(config="x.yaml")}
    torch.save({"model": state, **known}, path)
    return path


def _back(run: Path) -> tuple[Teacher, Student]:
    kept = Run(run).recipe()
    teacher = build_teacher(kept)
    student = build_student(kept, teacher)
    student.load_state_dict(Run(run).weights())
    return teacher, student.eval()


@pytest.mark.parametrize("old", [False, True])
@torch.no_grad()
def test_symbols_features_answers_and_prices_are_those_of_the_published_code(
    old: bool, recipe: Recipe, photos: Path, tmp_path: Path
) -> None:
    state = _published()
    report = take(recipe, _written(tmp_path / "student.pt", _published(old=old)), photos=[photos], out=tmp_path / "run")
    assert report["checkpoint"]["file"] == "student.pt"
    assert (report["finished"], report["images"], report["levelled"]) == (True, None, None)
    assert 0 < report["counted"] < 20
    teacher, student = _back(tmp_path / "run")
    image = teacher.stem(torch.rand(2, 3, 64, 64))
    median = state[f"{BESIDE}.quantiles"][:, :, 1:2]
    wanted = torch.round(_encoded(state, image) - median)
    assert float(wanted.max() - wanted.min()) > 20
    found = student.symbols(image, 0)
    assert torch.equal(found, wanted)
    feature = student.reproduce(found, 0)
    torch.testing.assert_close(feature, _decoded(state, wanted + median))
    bottleneck = student.bottleneck
    assert isinstance(bottleneck, Bottleneck)
    grid = torch.arange(-40, 41).expand(CHANNELS, -1)
    mass = torch.from_numpy(bottleneck.masses(-40, 40)[0])
    torch.testing.assert_close(mass, _mass(state, grid + median[:, 0]), rtol=1e-4, atol=1e-9)
    network = timm.create_model("test_resnet", num_classes=1000).eval()
    network.load_state_dict({**network.state_dict(), **{k: v for k, v in state.items() if "bottleneck" not in k}})
    behind = network.layer4(network.layer3(network.layer2(feature)))
    assert student.tail is not None
    logits = network.forward_head(behind)
    assert float((student.tail(feature)[0] - logits).abs().max()) < 1e-4 * float(logits.std())


def test_from_a_checkpoint_to_packets_and_answers(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    take(recipe, _written(tmp_path / "student.pt", _published()), photos=[photos], out=tmp_path / "run")

    def golden(bundle: Bundle) -> bytes:
        return make_golden(Device(bundle, threads=1), Edge(bundle, threads=1), [draw((80, 80), n) for n in range(2)])

    bundle = export(tmp_path / "run", tmp_path / "bundle", golden=golden)
    assert replay(bundle, threads=1).answers
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "Trained elsewhere, with the paper's published code: its weights are those of `student.pt`" in card
    packet = Device(bundle, threads=1).encode(draw((90, 80), 1))
    assert Edge(bundle, threads=1).answer(packet)["answers"]["classify"][0]["index"] < 1000


def test_photographs_that_cannot_be_read_are_not_counted(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    file, some = _written(tmp_path / "student.pt", _published()), tmp_path / "photos"
    some.mkdir()
    (some / "broken.jpg").write_bytes(b"no picture")
    before = set(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"none of 1 photographs can be read, .*broken.jpg among them"):
        take(recipe, file, photos=[some], out=tmp_path / "none" / "run")
    assert set(tmp_path.iterdir()) == before  # a run half made was in the way of the next try
    for number in range(5):
        (some / f"{number}.jpg").write_bytes((photos / "0.png").read_bytes())
    assert take(recipe, file, photos=[some], out=tmp_path / "run")["counted"] == 5
    export(tmp_path / "run", tmp_path / "bundle", golden=lambda _: b"none")
    assert "Symbols were counted on 5 unlabelled photographs" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()


def test_the_command(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.model_dump_json())
    arguments = [str(_written(tmp_path / "s.pt", _published())), "--recipe", str(file), "--photos", str(photos)]
    result = CliRunner().invoke(app, ["import-checkpoint", *arguments, "--out", str(tmp_path / "run"), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["run"] == str(tmp_path / "run")
    assert told["holdout"][0]["level"] == 0


class _Foreign:
    """What a pickle of somebody's could run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, ("owned",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda c: c["model"].pop("bottleneck_layer.decoder.2.weight"),
            "no bottleneck_layer.decoder.2.weight; expected",
        ),
        (lambda c: c["model"].pop(f"{BESIDE}.quantiles"), f"no {BESIDE}.quantiles"),
        (lambda c: c["model"].pop(f"{BESIDE}.matrices.0"), f"no {BESIDE}.matrices.0"),
        (lambda c: c["model"].pop(f"{BESIDE}.biases.3"), f"no {BESIDE}.biases.3"),
        (lambda c: c["model"].pop("fc.weight"), "no fc.weight, a layer behind the cut 'layer1'"),
        (lambda c: c["model"].pop("layer3.0.bn1.weight"), "no layer3.0.bn1.weight, a layer behind the cut"),
        (lambda c: c["model"].update({"rpn.weight": torch.zeros(2)}), "rpn.weight is no layer of test_resnet"),
        (lambda c: c["model"].update({"fc.bias": torch.zeros(7)}), "fc.bias is (7,), in the recipe (1000,)"),
        (lambda c: c["model"]["fc.bias"].fill_(torch.nan), "fc.bias holds values that are no numbers"),
        (lambda c: c["model"].update({f"{BESIDE}.quantiles": torch.zeros(3)}), "quantiles is (3,); expected"),
        (
            lambda c: c["model"].update({"bottleneck_layer.encoder.0.weight": torch.zeros(9, 3, 5, 5)}),
            "squeeze.layers.0.weight is (9, 3, 5, 5), in the recipe (8, 3, 5, 5); change student's widths",
        ),
        (lambda c: c["model"].clear(), "0 layers called ...encoder.0.weight; expected one"),
        (lambda c: c.update({"model": {"x": "y"}}), "holds no state dict"),
        (
            lambda c: c.update({"args": _Foreign()}),
            "that may be read: it holds more than tensors and plain",
        ),
    ],
)
def test_what_is_refused(
    change: Changed, said: str, recipe: Recipe, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where a pickle that is run would leave its mark
    checkpoint: dict[str, Any] = {"model": _published()}
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "s.pt")
    with pytest.raises(DataError) as refused:
        take(recipe, tmp_path / "s.pt", photos=[photos], out=tmp_path / "run")
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()
    assert not Path("owned").exists()


def test_other_things_that_are_refused(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    file = _written(tmp_path / "s.pt", _published())
    with pytest.raises(DataError, match="no checkpoint at"):
        take(recipe, tmp_path / "none.pt", photos=[photos], out=tmp_path / "run")
    with pytest.raises(OutputError, match="exists; choose another"):
        take(recipe, file, photos=[photos], out=tmp_path)
    ours = read_recipe(COMMITTED / "rivals" / "reduced_3.yaml")
    with pytest.raises(RecipeError, match="expected paper, with one beta"):
        take(ours, file, photos=[photos], out=tmp_path / "run")
    wanted = recipe.teacher.model_copy(update={"weights": str(tmp_path / "none.pth")})
    with pytest.raises(TeacherError, match="no weights at"):
        take(recipe.model_copy(update={"teacher": wanted}), file, photos=[photos], out=tmp_path / "run")
