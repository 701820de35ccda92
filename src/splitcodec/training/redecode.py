"""A bundle -> the same bundle with the decoder that runs have learned for it; devices and packets stay what they are.

A run begins with a bundle (`start`) and tunes the decoder alone (`stage1: {tune: decoder}`). Any bundle with the
decoder that it began with can take the new one: bundles that share a decoder go on sharing it. Of several runs from one
decoder, each on another encoder's latents or other crops, the mean of their weights is taken: Wortsman et al., "Model
soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time" (ICML 2022).
Part of the way (`share`) keeps most of what the old decoder could and most of what the runs learned: the same authors,
"Robust fine-tuning of zero-shot models" (CVPR 2022). With a switch, what runs learned of disturbed pictures serves
these alone, and clean ones are decoded as ever (`switching.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from splitcodec.errors import BundlePart, RunError, SettingsError
from splitcodec.model.transforms import Decoder
from splitcodec.training.build import build_student, build_teacher
from splitcodec.training.earlier import is_run, parts_below, tunes_decoder_alone, with_all
from splitcodec.training.from_bundle import layer_weights, opened
from splitcodec.training.graphs import folded, to_onnx
from splitcodec.training.run import Run
from splitcodec.training.spent import all_of, spent_of
from splitcodec.training.switching import Progress, Told, switched
from splitcodec.wire.bundle import CARD, Bundle, derive, write_folder
from splitcodec.wire.durable import check_free

DECODER = "decoder.onnx"

Remade = Callable[[Bundle, Bundle], dict[str, bytes]]
"""Makes golden vectors anew: (the old bundle, one with the new decoder) -> files."""


def redecode(
    bundle: Bundle,
    run_folders: Sequence[Path],
    out: Path,
    *,
    remade: Remade,
    share: float = 1.0,
    switch: Sequence[Path] = (),
    version: int | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Write `bundle` with the runs' decoder as a new folder `out`; tables, encoder and fingerprint stay.

    Of several runs, the mean of their decoders; weights go a `share` of the way there from the bundle's own. With
    photographs to learn a `switch` from, the bundle's own go on decoding clean pictures; `progress` counts them. The
    version is the next one unless given. Raises BundlePart for a device's half, RunError where a run tuned more than
    the decoder, began with another one or, with a switch, has seen clean pictures alone, SettingsError for a share that
    is not above 0 and at most 1, DataError, RecipeError, TeacherError, OutputError.
    """
    check_free(out)
    if not 0 < share <= 1:
        raise SettingsError(f"share {share:g}; expected more than 0 and at most 1")
    if bundle.is_device_half:
        raise BundlePart(f"{bundle.ident}: the device's half of a bundle has no decoder to replace; give the whole one")
    manifest, runs = bundle.manifest, [Run(folder) for folder in run_folders]
    if not runs:
        raise RunError("no run; give the folder of at least one")
    began = [_began(run, bundle) for run in runs]
    recipe, reports = runs[0].recipe(), [run.report() for run in runs]
    student = build_student(recipe, build_teacher(recipe))
    student.decoder.load_state_dict(_mean(runs))
    decoder, told = folded(student.decoder), None
    if share < 1:
        _draw_back(decoder, bundle, share)
    if switch:
        if not isinstance(student.decoder, Decoder):
            raise RunError("the decoder of this kind of student has no switch; leave --switch out")
        clean = {name: torch.from_numpy(one) for name, one in layer_weights(bundle, "decoder").items()}
        decoder, told = switched(
            student.decoder,
            clean,
            decoder.state_dict(),
            bundle=bundle,
            recipe=recipe,
            photos=switch,
            progress=progress,
        )
    rows = manifest.crop // manifest.stride
    latent = torch.zeros(2, manifest.channels, rows, rows)
    graph = to_onnx(decoder, latent, source="latent_bchw", target="feature_bchw", rows=2, cols=3, step=1)
    notes = [{"began_with": one.ident, **run.provenance()} for one, run in zip(began, runs, strict=True)]
    kept = {} if told is None else {"switch": told._asdict()}
    number, report = manifest.version + 1 if version is None else version, together(reports)
    note = {"from": bundle.ident, "share": share, **kept, **(notes[0] if len(notes) == 1 else {"mean_of": notes})}
    provenance = {**manifest.provenance, "report": report, "redecoded": note}  # whose pictures count the old ones
    fresh = replace(manifest, version=number, provenance=provenance)
    images, disturbed = report.get("images", 0), recipe.data.disturbed
    card = _card(bundle, fresh.ident, images=images, runs=len(runs), share=share, disturbed=disturbed, told=told)
    new = derive(bundle, fresh, files={DECODER: graph, CARD: card.encode()})
    return write_folder(derive(new, new.manifest, files=remade(bundle, new)), out)


def together(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one report of runs side by side: pictures and time of all; what several build upon counts once."""
    if len(reports) == 1:
        return reports[0]
    earlier = [one for report in reports for one in report.get("builds_on", ())]
    below = {(one["recipe"], one["images"], one["seconds"]): one for one in earlier}
    images, spent = sum(one["images"] for one in reports), all_of([spent_of(one) for one in reports])
    return {
        "finished": all(one["finished"] for one in reports),
        "images": images,
        **spent.told(),
        **with_all(parts_below(reports), images=images, spent=spent),
        "builds_on": list(below.values()),
        "photographs": max(one["photographs"] for one in reports),
        "levelled": all(one["levelled"] for one in reports),
        "levelling": [one["levelling"] for one in reports],
    }


def _began(run: Run, bundle: Bundle) -> Bundle:
    """Return the bundle that a run began with, which has the same decoder. Raises RunError."""
    if not is_run(run.folder):
        raise RunError(f"{run.folder} holds no run of `splitcodec train`; give the folder of one")
    recipe = run.recipe()
    if not run.report().get("finished"):
        raise RunError(f"{run.folder}: the run has not finished; let it go to its end first")
    if recipe.start is None or not tunes_decoder_alone(recipe):
        raise RunError(
            f"{run.folder}: no run that begins with a bundle and tunes its decoder alone (start: BUNDLE, stage1: "
            "{tune: decoder}); write it with `splitcodec export` instead"
        )
    began = opened("start", recipe.start)
    if began.manifest.files.get(DECODER) != bundle.manifest.files[DECODER]:
        raise RunError(f"{run.folder}: it began with the decoder of {began.ident}, and {bundle.ident} has another")
    return began


@torch.no_grad()
def _draw_back(decoder: nn.Module, bundle: Bundle, share: float) -> None:
    """Leave a folded decoder's weights at a share of the way from the bundle's, which have the same names."""
    before = layer_weights(bundle, "decoder")
    if any(name not in before for name in decoder.state_dict()):
        raise RunError(f"share {share:g}: {bundle.ident}'s decoder lacks layers of the run's; leave the share out")
    for name, one in decoder.state_dict().items():
        one.lerp_(torch.from_numpy(before[name]).to(one.dtype), 1 - share)


def _mean(runs: Sequence[Run]) -> dict[str, Tensor]:
    """Return the mean of the runs' decoders, tensor by tensor. Raises RunError where shapes differ."""
    found = [
        {name.removeprefix("decoder."): one for name, one in run.weights().items() if name.startswith("decoder.")}
        for run in runs
    ]
    shapes = [{name: one.shape for name, one in state.items()} for state in found]
    if any(shape != shapes[0] for shape in shapes):
        raise RunError("the runs' decoders differ in shape; give runs of one decoder")
    return {
        name: torch.stack([state[name].double() for state in found]).mean(0).to(one.dtype)
        for name, one in found[0].items()
    }


def _card(
    bundle: Bundle, ident: str, *, images: int, runs: int, share: float, disturbed: float, told: Told | None
) -> str:
    card = bundle.read(CARD).decode() if bundle.has(CARD) else f"# {bundle.ident}\n"
    of_runs = "" if runs == 1 else f" in {runs} runs, whose mean it is"
    seen = f", {100 * disturbed:.0f} % of them noisy, blurred, flat or badly lit" if disturbed else ""
    way = "" if share == 1 else f" Its weights went {100 * share:.0f} % of the way there."
    if told is not None:
        way += (
            f" It decodes only packets that look disturbed, the old one all others: of {told.photographs} photographs "
            f"held out {told.clean_untouched:g} % are decoded as ever; of the same ones disturbed, little or much, "
            f"{told.disturbed_found:g} % are not."
        )
    return f"""{card.replace(f"# {bundle.ident}", f"# {ident}", 1).rstrip()}

## Another decoder

The decoder learned for {images:,} pictures more{of_runs}{seen}: packets are the same, answers are others.{way}
"""
