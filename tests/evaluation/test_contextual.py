"""A bundle that codes by context: made, opened, used by both shores, calibrated, refused where it is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from splitcodec.cli import app
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import BundleFormat, BundlePart, PacketBundle, PacketCoding, SettingsError
from splitcodec.evaluation.calibrate import calibrate
from splitcodec.evaluation.contextual import contexts_of, recounted, savings, with_contexts
from splitcodec.evaluation.golden import FILE as GOLDEN
from splitcodec.evaluation.golden import make_golden
from splitcodec.evaluation.rate import evaluate
from splitcodec.evaluation.refit import ContextBits, ContextCounts, Counts, refit
from splitcodec.evaluation.replay import replay
from splitcodec.wire.bundle import Bundle, derive, device_half, open_bundle, split_device, write_folder
from splitcodec.wire.contexts import FILE
from splitcodec.wire.packet import unpack
from tests.hostile.mutate import mutants, receive, seeds
from tests.wire.test_contexts import REACH, contexts

NOTE = {"photographs": 3}


@pytest.fixture
def made(tiny: Bundle, pictures: list[Image.Image]) -> Bundle:
    """Return `tiny` with golden vectors and contexts of random networks."""
    golden = make_golden(Device(tiny, threads=1), Edge(tiny, threads=1), pictures[4:6])
    whole = derive(tiny, tiny.manifest, files={GOLDEN: golden})
    return with_contexts(whole, contexts(3, groups=(1, 2, 1), levels=3), note=NOTE)


def latents(bundle: Bundle, pictures: list[Image.Image]) -> list[NDArray[np.float32]]:
    device = Device(bundle, threads=1)
    return [device.encoder.latent_chw(device.crop(picture)) for picture in pictures]


def test_packets_by_context_are_answered_alike(made: Bundle, tiny: Bundle, pictures: list[Image.Image]) -> None:
    assert (made.ident, made.manifest.codings) == ("tiny@2", (0, 2))
    assert made.fingerprint != tiny.fingerprint
    device, by_channel, edge = Device(made), Device(made, coding=0), Edge(made)
    plain = Device(made, plain_coder=True)
    assert (device.coding, by_channel.coding, Device(tiny).coding) == (2, 0, 0)
    for level in range(3):
        one, other = (sender.encode(pictures[4], level=level) for sender in (device, by_channel))
        assert (unpack(one).coding, unpack(other).coding) == (2, 0)
        assert plain.encode(pictures[4], level=level) == one
        assert edge.answer(one)["answers"] == edge.answer(other)["answers"]
        assert (
            edge.answer(one)["answers"] == Edge(tiny).answer(Device(tiny).encode(pictures[4], level=level))["answers"]
        )
    with pytest.raises(PacketBundle):
        Edge(tiny).answer(device.encode(pictures[4]))
    with pytest.raises(SettingsError, match="coding id 2; tiny@1 has 0"):
        Device(tiny, coding=2)
    forged = device.encode(pictures[4])
    with pytest.raises(PacketCoding):
        Edge(made).answer(_with_coding(forged, 3))


def _with_coding(packet: bytes, coding: int) -> bytes:
    import zlib

    body = bytes((packet[0], coding << 4)) + packet[2:-4]
    return body + zlib.crc32(body).to_bytes(4, "little")


def test_a_limit_is_kept_by_whatever_coding_is_shorter(made: Bundle, pictures: list[Image.Image]) -> None:
    device, by_channel = Device(made), Device(made, coding=0)
    for picture in pictures:
        for most in (30, 45, 60, 90):
            one = device.encode(picture, max_bytes=most, force_fit=True)
            assert len(one) <= most
            other = by_channel.encode(picture, max_bytes=most, force_fit=True)
            assert unpack(one).level >= unpack(other).level


def test_golden_vectors_and_halves_go_along(made: Bundle, tmp_path: Path, pictures: list[Image.Image]) -> None:
    result = replay(made, threads=1)
    assert result.answers
    half = split_device(made, tmp_path / "half")
    assert half.has(FILE)
    assert half.fingerprint == made.fingerprint
    assert Device(half).encode(pictures[5]) == Device(made).encode(pictures[5])
    whole = write_folder(made, tmp_path / "whole")
    assert open_bundle(str(whole.path)).contexts is not None
    with pytest.raises(BundlePart, match="device's half"):
        with_contexts(device_half(made), contexts(3, groups=(1, 2, 1), levels=3), note=NOTE)


def test_what_does_not_belong_together_is_refused(made: Bundle, tiny: Bundle) -> None:
    with pytest.raises(BundleFormat, match="6 channels, the manifest says 3 and 4"):
        with_contexts(tiny, contexts(levels=3), note=NOTE)
    with pytest.raises(BundlePart, match="missing, though the manifest lists coding id 2"):
        derive(tiny, replace(tiny.manifest, codings=(0, 2)), files={})
    with pytest.raises(BundleFormat, match=r"coding id 1.*splitcodec contexts"):
        derive(tiny, replace(tiny.manifest, codings=(0, 1)), files={})
    with pytest.raises(BundleFormat, match=r"contexts\.npz"):
        derive(made, made.manifest, files={FILE: made.read(FILE)[:-9]})


def test_no_packet_by_context_does_harm(made: Bundle) -> None:
    from splitcodec.errors import PacketError
    from splitcodec.wire.codings import Codings

    coders = [Codings(made.tables[0], made.contexts)]
    found: dict[str, int] = {}
    for number, (data, _) in enumerate(mutants(seeds(made, pictures=3), seed=4)):
        try:
            receive(data, made, coders)
            name = "accepted"
        except PacketError as error:
            name = type(error).__name__
        found[name] = found.get(name, 0) + 1
        if number == 1500:
            break
    assert found["accepted"] > 10
    assert found["PacketPayload"] > 10


def test_rows_counted_anew_fit_better(made: Bundle, tiny: Bundle, pictures: list[Image.Image]) -> None:
    seen = latents(tiny, pictures)
    fitted = with_contexts(tiny, recounted(made, tiny, seen), note=NOTE)
    before, after = savings(made, seen), savings(fitted, seen)
    assert sum(one.by_context for one in after) < 0.9 * sum(one.by_context for one in before)
    assert [one.by_channel for one in after] == [one.by_channel for one in before]
    assert after[0].to_json()["change_percent"] == pytest.approx(after[0].change, abs=0.01)
    with pytest.raises(BundlePart, match="no contexts"):
        recounted(tiny, tiny, seen)


def test_rows_are_counted_by_halves_and_what_is_too_far_out_at_their_ends(made: Bundle) -> None:
    assert made.contexts is not None
    counts, tables = ContextCounts(made.contexts, made.tables[0]), made.contexts.rows()
    random = np.random.default_rng(2)
    for _ in range(3):
        counts.add(random.normal(0, 30, (4, 3, 3)).astype(np.float32))
    assert [int(half_ks.sum()) for half_ks in counts.half_ks] == [2 * 3 * 36, 3 * 36]  # photographs, levels, symbols
    shifted = replace(made.contexts, offset_k=np.full(len(tables.size_k), -REACH - 200, np.int32))  # all above its rows
    ends = ContextCounts(shifted, made.tables[0])
    ends.add(np.zeros((4, 3, 3), np.float32))
    assert ends.count_ks[:, -1].sum() == ends.count_ks.sum() == 3 * 36


def test_calibrating_fits_the_rows_too(made: Bundle, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(12):
        Image.effect_noise((70, 70), 40 + 5 * k).convert("RGB").save(photos / f"{k}.png")
    done = calibrate(made, [photos], tmp_path / "out", threads=1)
    assert done.change < -5
    assert done.bundle.contexts is not None
    assert made.contexts is not None
    assert done.bundle.contexts.shared_bytes() != made.contexts.shared_bytes()
    assert replay(done.bundle, threads=1).answers


def test_rows_and_tables_are_each_weighed_by_a_strength_of_their_own(
    made: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for k in range(2):
        Image.effect_noise((70, 70), 40 + 5 * k).convert("RGB").save(tmp_path / "photos" / f"{k}.png")
    taken = list[tuple[type, float]]()

    def noted(counts: Counts | ContextCounts, *, strength: float) -> Any:
        taken.append((type(counts), strength))
        return refit(counts, strength=strength)

    monkeypatch.setattr("splitcodec.evaluation.refit.refit", noted)
    monkeypatch.setattr("splitcodec.evaluation.calibrate.refit", noted)
    strengths = {Counts: 3.0, ContextCounts: 70.0}
    monkeypatch.setattr("splitcodec.evaluation.calibrate.best_strength", lambda counts: strengths[type(counts)])
    done = calibrate(made, [tmp_path / "photos"], tmp_path / "out", threads=1)
    assert dict(taken) == strengths
    assert (done.strength, done.strength_by_context) == (3.0, 70.0)


def test_the_command_counts_another_bundles_rows(made: Bundle, tiny_folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(12):
        Image.effect_noise((70, 70), 40 + 5 * k).convert("RGB").save(photos / f"{k}.png")
    (photos / "broken.png").write_bytes(b"no picture")
    other = write_folder(made, tmp_path / "made").path
    words = ["contexts", str(tiny_folder), "--photos", str(photos), "--like", str(other), "-o", str(tmp_path / "out")]
    told = CliRunner().invoke(app, [*words, "--json"])
    assert told.exit_code == 0, told.output
    body = json.loads(told.stdout)
    assert (body["bundle"], body["like"], body["photographs"]) == ("tiny@2", "tiny@2", 11)
    assert len(body["levels"]) == 3
    assert "broken.png" in told.stderr
    assert open_bundle(str(tmp_path / "out")).contexts is not None


def test_overhead_is_held_against_the_coding_that_packets_name(made: Bundle, labelled: Path) -> None:
    """Packets by context were held against the code length by channel: hundreds of bytes below nothing."""
    extra = evaluate(made, labelled, codecs=[], threads=1).overhead_bytes
    assert len(extra) == 3
    assert all(0 < size <= 16 for size in extra.values())


def test_ideal_bits_by_context_are_those_of_the_payload(made: Bundle, pictures: list[Image.Image]) -> None:
    bits, device = ContextBits(contexts_of(made)), Device(made, threads=1)
    (latent_chw,) = latents(made, pictures[4:5])
    for level in range(3):
        payload = unpack(device.pack_latent(latent_chw, level=level)).payload
        ideal = bits.of(made.tables[0].quantise(latent_chw, level), level) / 8
        assert 0 <= len(payload) - ideal <= 4


def test_a_card_that_is_no_utf8_stops_nothing(tiny: Bundle) -> None:
    odd = derive(tiny, tiny.manifest, files={"MODEL_CARD.md": b"# caf\xe9\n"})
    new = with_contexts(odd, contexts(3, groups=(1, 2, 1), levels=3), note=NOTE)
    assert "coded by context" in new.read("MODEL_CARD.md").decode()


def test_the_prior_is_weighed_without_contexts(
    made: Bundle, tiny_folder: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since bundles code by context, what contexts save would have been told as what the prior saves."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import ablations

    write_folder(made, tmp_path / "made")
    without, having = (
        [point["bytes_mean"] for point in ablations.measure(labelled, bundle=str(path), threads=1)["ours"]]
        for path in (tiny_folder, tmp_path / "made")
    )
    assert having == without


def test_a_card_tells_of_the_last_contexts_alone(tiny: Bundle) -> None:
    """Of contexts learned from as many photographs as those before, it did; of others it told of both."""
    new = derive(tiny, tiny.manifest, files={"MODEL_CARD.md": b"# tiny@1\n\nSomething else."})
    for photographs in (3, 40):
        networks = contexts(3, groups=(1, 2, 1), levels=3)
        new = with_contexts(new, networks, note={"photographs": photographs})
    told = new.read("MODEL_CARD.md").decode()
    assert (
        told.count("coded by context") == told.count("learned from 40 photographs; sizes above are from before.") == 1
    )
    assert told.startswith("# tiny@3\n\nSomething else.\n\nSymbols")
