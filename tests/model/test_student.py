from __future__ import annotations

import pytest
import torch

from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.student import Student
from splitcodec.model.transforms import Decoder, Squeeze


@pytest.fixture
def student() -> Student:
    torch.manual_seed(0)
    return Student(
        Squeeze(8, 4, widths=(12, 10), halvings=1),
        Bottleneck(3, 4, first_gain=1.0, last_gain=16.0),
        Decoder(4, 6, width=8, blocks=1, up=2, up_width=8, up_blocks=1),
    )


def test_shapes(student: Student) -> None:
    stem = torch.randn(6, 8, 12, 16)
    out = student(stem)
    assert out.feature_bchw.shape == (6, 6, 12, 16)
    assert out.bits_b.shape == (6,)
    assert student.symbols(stem, 1).shape == (6, 4, 6, 8)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_symbols_are_integers_and_reproduce_reads_them_back(student: Student, level: int) -> None:
    student.eval()
    stem = torch.randn(2, 8, 8, 8)
    with torch.no_grad():
        symbols = student.symbols(stem, level)
        latent = student.latent(stem)
        gain = torch.from_numpy(student.tabled().gains()[level])[:, None, None]
        found = student.reproduce(symbols, level)
        wanted = student.decoder(symbols / gain)
    assert torch.equal(symbols, symbols.round())
    assert ((symbols / gain - latent).abs() <= 0.5 / gain + 1e-5).all()
    torch.testing.assert_close(found, wanted)


def test_higher_levels_reproduce_the_latent_better(student: Student) -> None:
    student.eval()
    stem = torch.randn(2, 8, 16, 16)
    with torch.no_grad():
        latent = student.latent(stem)
        gains = torch.from_numpy(student.tabled().gains())[:, :, None, None]
        errors = [(student.symbols(stem, k) / gains[k] - latent).square().mean().item() for k in range(3)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize(("halvings", "stride"), [(0, 1), (1, 2), (2, 4)])
def test_squeeze_halves_as_often_as_told(halvings: int, stride: int) -> None:
    squeeze = Squeeze(3, 5, widths=(4, 4), halvings=halvings)
    assert squeeze(torch.zeros(1, 3, 16, 32)).shape == (1, 5, 16 // stride, 32 // stride)


@pytest.mark.parametrize("up", [1, 2, 4])
def test_decoder_doubles_as_often_as_told(up: int) -> None:
    decoder = Decoder(5, 7, width=8, blocks=1, up=up, up_width=4, up_blocks=0)
    assert decoder(torch.zeros(1, 5, 3, 4)).shape == (1, 7, 3 * up, 4 * up)


def test_a_decoder_that_aims_at_a_feature_starts_at_its_scale() -> None:
    torch.manual_seed(0)
    decoder = Decoder(5, 3, width=8, blocks=1, up=1, up_width=4, up_blocks=0)
    latent = torch.randn(16, 5, 8, 8)
    with torch.no_grad():
        before = decoder(latent)
        decoder.aim_at(torch.randn(64, 3, 16, 16) * 50 + torch.tensor([0.0, 100.0, -400.0])[:, None, None])
        after = decoder(latent)
    wanted = 50 * before + torch.tensor([0.0, 100.0, -400.0])[:, None, None]
    torch.testing.assert_close(after, wanted, rtol=0.03, atol=5)
    other = Decoder(5, 3, width=8, blocks=1, up=1, up_width=4, up_blocks=0)
    other.load_state_dict(decoder.state_dict())  # a resumed run keeps it
    assert torch.equal(other.get_buffer("spread"), decoder.get_buffer("spread"))


def test_names_of_the_weights_stay(student: Student) -> None:
    """Trained runs hold these names; a change of any of them would orphan them."""
    names = list(student.state_dict())
    conv = ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    squeeze = [f"squeeze.layers.{n}.{name}" for n in (0, 1) for name in conv]
    assert names[: len(squeeze) + 2] == [*squeeze, "squeeze.layers.2.weight", "squeeze.layers.2.bias"]
    neck = ["bottleneck.log_gain_lc"]
    for kind, count in (("matrices", 4), ("biases", 4), ("factors", 3)):
        neck += [f"bottleneck.prior.{kind}.{n}" for n in range(count)]
    assert [name for name in names if name.startswith("bottleneck.")] == neck
    decoder = [name for name in names if name.startswith("decoder.")]
    residual = [f"decoder.layers.1.body.{n}.{name}" for n in (0, 1) for name in conv]
    assert decoder[:2] == ["decoder.mean", "decoder.spread"]
    assert decoder[2 : 2 + len(conv) + len(residual)] == [f"decoder.layers.0.{name}" for name in conv] + residual
    assert len(names) == len(squeeze) + 2 + len(neck) + len(decoder)


def test_rounding_in_place_of_noise(student: Student) -> None:
    student.eval()
    stem = torch.randn(3, 8, 8, 8)
    with torch.no_grad():
        out = student(stem, quantise="round")
        for level in range(3):
            wanted = student.reproduce(student.symbols(stem[level : level + 1], level), level)
            torch.testing.assert_close(out.feature_bchw[level : level + 1], wanted)
    assert out.answer is None


def test_a_tail_of_its_own_answers_where_asked() -> None:
    student = Student(
        Squeeze(8, 4, widths=(12,), halvings=0),
        Bottleneck(1, 4),
        Decoder(4, 6, width=8, blocks=0, up=1, up_width=8, up_blocks=0),
        tail=torch.nn.Flatten(),
    )
    stem = torch.randn(2, 8, 4, 4)
    assert student(stem).answer is None
    out = student(stem, answer=True)
    assert out.answer is not None
    assert torch.equal(out.answer[0], out.feature_bchw.flatten(1))


@pytest.mark.parametrize("linear", [True, False])
def test_an_encoder_that_has_learned_turns_towards_another_latent(linear: bool) -> None:
    torch.manual_seed(1)
    student = Student(
        Squeeze(8, 4, widths=(7,), halvings=0, linear=linear),
        Bottleneck(2, 4),
        Decoder(4, 6, width=8, blocks=1, up=1, up_width=8, up_blocks=1, linear=linear),
    ).eval()
    for parameter in student.squeeze.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    stem = torch.randn(12, 8, 9, 9)
    with torch.no_grad():
        wanted = torch.einsum("ok,bkhw->bohw", torch.randn(4, 4), student.latent(stem)) + torch.randn(4, 1, 1)
        noisy = wanted + 0.1 * wanted.std() * torch.randn_like(wanted)
        first = student.squeeze.get_parameter("layers.0.0.weight").clone()
        lost = student.turn(stem, noisy)
        apart = (student.latent(stem) - wanted).square().mean() / wanted.var()
    assert lost is not None
    assert 0.002 < lost < 0.05
    assert apart < 1e-3
    assert torch.equal(student.squeeze.get_parameter("layers.0.0.weight"), first)


def test_an_encoder_without_a_squeeze_does_not_turn() -> None:
    decoder = Decoder(4, 6, width=8, blocks=1, up=1, up_width=8, up_blocks=1)
    student = Student(torch.nn.Conv2d(3, 4, 1), Bottleneck(2, 4), decoder)
    assert student.turn(torch.randn(2, 3, 8, 8), torch.randn(2, 4, 8, 8)) is None


def test_two_straight_paths_are_one() -> None:
    squeeze = Squeeze(8, 4, widths=(), halvings=0, linear=True)
    assert squeeze.straight() is squeeze.layers[0]
