"""recipes/paper on a generated folder that lies on disk as ImageNet does, with a small ResNet of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.evaluation.golden import make_golden
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.replay import replay
from splitcodec.model.teacher import imagenet_labels
from splitcodec.training.build import build_teacher
from splitcodec.training.distill import train
from splitcodec.training.export import export
from splitcodec.training.recipe import read_recipe
from splitcodec.training.run import Run
from splitcodec.training.stages import AnswersStage, SquaresStage, StepsRecipe
from splitcodec.wire.bundle import Bundle
from tests.training.conftest import COMMITTED, draw

BETAS = ("0.01", "0.02", "0.04", "0.08", "0.16", "0.32", "0.64", "1.28", "2.56", "5.12")
WNIDS = ("n01440764", "n02123045", "n15075141")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return train/<wnid>/*.JPEG of three classes, eight pictures each, and a folder that is no class."""
    folder = tmp_path_factory.mktemp("imagenet") / "train"
    for number, wnid in enumerate(WNIDS):
        (folder / wnid).mkdir(parents=True)
        for n in range(8):
            draw((90 + n, 80), 10 * number + n).save(folder / wnid / f"{wnid}_{n}.JPEG")
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights of a small ResNet with ImageNet's thousand classes."""
    torch.manual_seed(3)
    network = timm.create_model("test_resnet", num_classes=1000)
    with torch.no_grad():  # batch norm settles
        for _ in range(20):
            network.train()(torch.randn(8, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.mark.parametrize("beta", BETAS)
def test_every_beta_says_what_was_published(beta: str) -> None:
    recipe = read_recipe(COMMITTED / "paper" / f"resnet50_beta{beta}.yaml")
    assert recipe.name == f"resnet50-paper-beta{beta}"
    assert recipe.levels.betas == (float(beta),)
    assert recipe.levels.prices == (8000 * float(beta),)
    stage1, stage2 = recipe.stage1, recipe.stage2
    assert isinstance(stage1, SquaresStage)
    assert isinstance(stage2, AnswersStage)
    assert stage1.images == stage2.images == 10 * 1_281_167
    assert (stage1.optimizer.kind, stage2.optimizer.kind, stage2.tail) == ("adam", "sgd", True)
    assert isinstance(stage1.schedule, StepsRecipe)
    assert [int(share * 10) for share in stage1.schedule.at] == [5, 8]
    assert (recipe.teacher.cut, recipe.teacher.later) == ("layer1", ("layer2", "layer3", "layer4"))


def test_from_labelled_folders_to_answers(imagenet: Path, resnet: Path, tmp_path: Path) -> None:
    """Nothing of the recipe changes but sizes: another ResNet, fewer channels, fewer pictures."""
    recipe = read_recipe(
        COMMITTED / "paper" / "resnet50_beta0.32.yaml",
        changes=(
            *("teacher.model=test_resnet", f"teacher.weights={resnet}", "teacher.crop=64", "teacher.resize=72"),
            *("student.widths=[8, 6]", "student.channels=5", "student.decoder_widths=[16, 12]", "data.holdout=3"),
            *("stage1.images=24", "stage1.batch=4", "stage2.images=24", "stage2.batch=8"),
        ),
    )
    final = train(recipe, photos=[imagenet], out=tmp_path / "run", report=lambda _: None)
    assert final["labelled"] == final["photographs"] == 24 - 2
    assert (final["finished"], final["images"]) == (True, 48)
    assert [one["stage"] for one in final["validation"] if one["share"] == 1] == ["stage1", "stage2"]
    names, teacher = [wnid for wnid, _ in imagenet_labels()], build_teacher(recipe)
    tail = {
        key.removeprefix("tail."): value for key, value in Run(tmp_path / "run").weights().items() if "tail." in key
    }
    assert any(not torch.equal(value, teacher.tail.state_dict()[key]) for key, value in tail.items())

    def golden(bundle: Bundle) -> bytes:
        return make_golden(Device(bundle, threads=1), Edge(bundle, threads=1), [draw((80, 80), n) for n in range(2)])

    bundle = export(tmp_path / "run", tmp_path / "bundle", golden=golden)
    assert replay(bundle, threads=1).answers
    assert bundle.manifest.provenance["wnids"] == names
    packet = Device(bundle, threads=1).encode(sorted(imagenet.rglob("*.JPEG"))[0])
    assert Edge(bundle, threads=1).answer(packet)["answers"]["classify"][0]["index"] < 1000
    for folder in imagenet.iterdir():  # the arena reads the same folders
        for path in folder.iterdir():
            path.rename(path.with_suffix(".jpeg"))
    report = evaluate(bundle, imagenet, codecs=[], threads=1)
    assert report.images == 24
    assert [one.setting for one in report.points] == ["level 0"]
    assert report.encoders["splitcodec"].images_seen == 48
