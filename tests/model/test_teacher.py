from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from splitcodec.errors import TeacherError
from splitcodec.model.teacher import PACKAGED, Teacher, imagenet_labels, load_teacher


def _teacher(model: str = "test_resnet", *, cut: str = "layer1", weights: str = "random", classes: int = 7) -> Teacher:
    return load_teacher(model, weights=weights, cut=cut, classes=classes, crop=64)


@pytest.mark.parametrize(
    ("model", "cut", "stem", "later"),
    [
        ("test_efficientnet", "blocks.1", "bn1", ()),
        ("test_resnet", "layer1", "maxpool", ("layer2", "layer3")),
        ("resnet10t", "layer1", None, ("layer2",)),
        ("tf_efficientnet_lite0", "blocks.2.1", "blocks.1.1", ("blocks.4.2",)),
        ("test_byobnet", "stages.0", None, ()),
        ("test_convnext", "stages.1", "stages.0", ()),
    ],
)
def test_head_and_tail_are_the_teacher(model: str, cut: str, stem: str | None, later: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    teacher = load_teacher(model, weights="random", cut=cut, stem=stem, later=later, classes=7, crop=64)
    torch.manual_seed(0)
    uncut = timm.create_model(model, num_classes=7).eval()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        early = teacher.stem(image)
        feature = teacher.head(image)
        out = teacher.tail(feature)
        wanted = uncut(image)
    logits = out[0] if later else out
    assert early.shape[1] == teacher.stem_width
    assert (early.shape[2] * teacher.stem_stride, early.shape[3] * teacher.stem_stride) == (64, 96)
    assert feature.shape == (2, teacher.width, 64 // teacher.stride, 96 // teacher.stride)
    assert len(out) == 1 + len(later) if later else isinstance(out, torch.Tensor)
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    assert float(wanted.std()) > 0


def test_later_layers_are_the_features_of_those_layers() -> None:
    torch.manual_seed(0)
    teacher = load_teacher("test_resnet", weights="random", cut="layer1", later=("layer2",), classes=7, crop=64)
    torch.manual_seed(0)
    uncut = timm.create_model("test_resnet", num_classes=7).eval()
    seen: list[torch.Tensor] = []
    uncut.layer2.register_forward_hook(lambda *args: seen.append(args[2]))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        uncut(image)
        _, later = teacher.tail(teacher.head(image))
    torch.testing.assert_close(later, seen[0], rtol=1e-4, atol=1e-5)


def test_everything_is_frozen() -> None:
    teacher = _teacher()
    assert not any(p.requires_grad for half in teacher.modules() for p in half.parameters())
    assert not any(half.training for half in teacher.modules())


@pytest.mark.parametrize(
    ("cut", "stem", "later", "says"),
    [
        ("layer9", None, (), "no layer 'layer9'; it has .*layer1"),
        ("layer1", "nowhere", (), "no layer 'nowhere'"),
        ("layer1", None, ("nowhere",), "no layer 'nowhere'"),
        ("layer2.0.conv1", None, (), "crosses the cut as well; cut between blocks"),
        ("layer2", None, ("layer1", "layer3"), "later layers must come after the cut 'layer2'; layer1 does not"),
        ("layer1", None, ("layer1",), "must come after the cut"),
        ("fc", None, (), "gives no feature map"),
    ],
)
def test_refused_cuts(cut: str, stem: str | None, later: tuple[str, ...], says: str) -> None:
    with pytest.raises(TeacherError, match=says):
        load_teacher("test_resnet", weights="random", cut=cut, stem=stem, later=later, classes=7, crop=64)


def test_a_stem_behind_the_cut_is_refused() -> None:
    with pytest.raises(TeacherError, match="no layer 'layer3'"):
        load_teacher("test_resnet", weights="random", cut="layer1", stem="layer3", classes=7, crop=64)


def test_unknown_and_untraceable_networks_are_refused() -> None:
    with pytest.raises(TeacherError, match="timm has no classifier 'no_such_net'"):
        _teacher("no_such_net")
    with pytest.raises(TeacherError, match="cannot trace test_vit"):
        _teacher("test_vit", cut="blocks.1")


def test_a_crop_at_which_the_halves_are_not_the_network_is_refused() -> None:
    """TensorFlow's `same` padding differs between even and odd maps: 240 pixels are 15 at stride 16."""
    assert load_teacher("tf_efficientnet_lite0", weights=PACKAGED, cut="blocks.3.0", crop=256).stride == 16
    with pytest.raises(TeacherError, match=r"crop of 240 pixels .* multiple of its whole stride, mostly 32"):
        load_teacher("tf_efficientnet_lite0", weights=PACKAGED, cut="blocks.3.0", crop=240)


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_own_weights_are_loaded(tmp_path: Path, ending: str, wrapped: bool) -> None:
    torch.manual_seed(3)
    uncut = timm.create_model("test_resnet", num_classes=5).eval()
    path = tmp_path / f"own{ending}"
    if ending == ".safetensors":
        save_file(uncut.state_dict(), path)
    else:
        torch.save({"state_dict": uncut.state_dict()} if wrapped else uncut.state_dict(), path)
    teacher = _teacher(weights=str(path), classes=5)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(teacher.tail(teacher.head(image)), uncut(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "model._orig_mod."])
def test_weights_as_training_loops_write_them(prefix: str, tmp_path: Path) -> None:
    uncut = timm.create_model("test_resnet", num_classes=5).eval()
    state = {prefix + name: value for name, value in uncut.state_dict().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "own.pth")
    teacher = _teacher(weights=str(tmp_path / "own.pth"), classes=5)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(teacher.tail(teacher.head(image)), uncut(image), rtol=1e-4, atol=1e-5)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """Training told to lower a learning rate."""
    state = timm.create_model("test_resnet", num_classes=5).state_dict()
    state["fc.weight"][2, 3] = torch.nan
    save_file(state, tmp_path / "own.safetensors")
    with pytest.raises(TeacherError, match=r"own\.safetensors: fc\.weight holds values that are no numbers"):
        _teacher(weights=str(tmp_path / "own.safetensors"), classes=5)


def test_weights_of_other_shapes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), path)
    with pytest.raises(TeacherError, match=r"own\.safetensors does not fit ResNet.*size mismatch for fc"):
        _teacher(weights=str(path), classes=6)


@pytest.mark.parametrize("content", [b"", b"not weights at all", pickle.dumps([1, 2, 3])])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"own{ending}"
    path.write_bytes(content)
    with pytest.raises(TeacherError, match="does not fit"):
        _teacher(weights=str(path))


def test_a_pth_that_holds_a_list_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "own.pth")
    with pytest.raises(TeacherError, match="does not fit"):
        _teacher(weights=str(tmp_path / "own.pth"))


class _Code:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (self.target, "run")


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    torch.save({"state_dict": _Code(target)}, tmp_path / "own.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Code(target)))
    for name in ("own.pth", "plain.pth"):
        with pytest.raises(TeacherError, match="does not fit"):
            _teacher(weights=str(tmp_path / name))
    assert not target.exists()
    pickle.loads((tmp_path / "plain.pth").read_bytes())
    assert target.exists()  # the code was real


def test_missing_weights_are_refused() -> None:
    with pytest.raises(TeacherError, match=r"no weights at nowhere\.pth; give a \.safetensors"):
        _teacher(weights="nowhere.pth")


def test_packaged_weights_fit_their_own_network_alone() -> None:
    with pytest.raises(TeacherError, match="belong to tf_efficientnet_lite0 alone"):
        _teacher(weights=PACKAGED)
    teacher = load_teacher("tf_efficientnet_lite0", weights=PACKAGED, cut="blocks.2.1", stem="blocks.1.1")
    assert (teacher.width, teacher.stride, teacher.stem_stride, teacher.classes) == (40, 8, 4, 1000)


def test_imagenet_labels_are_in_the_order_of_the_logits() -> None:
    labels = imagenet_labels()
    assert len(labels) == 1000
    assert labels[0] == ("n01440764", "tench, Tinca tinca")
    assert labels[999][0] == "n15075141"
