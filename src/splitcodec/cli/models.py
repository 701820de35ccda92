"""Commands around bundles and training: info, check, train, export, calibrate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from splitcodec.cli.show import (
    DEFAULT_BUNDLE,
    BundleArgument,
    BundleOption,
    JsonOption,
    NewNameOption,
    NewVersionOption,
    PicturesAtATimeOption,
    complain,
    counter,
    finished,
    print_json,
    print_table,
    progress,
    stage_counter,
    tell_kept,
    training_room,
    written,
)


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("info", rich_help_panel="Bundles")(info)
    app.command("check", rich_help_panel="Bundles")(check)
    app.command("train", rich_help_panel="Training")(train)
    app.command("export", rich_help_panel="Training")(export)
    app.command("calibrate", rich_help_panel="Training")(calibrate)


def info(bundle: BundleArgument, json_: JsonOption = False) -> None:
    """Say what a bundle holds: encoder cost, levels, tasks, files, and where it comes from."""
    from splitcodec.wire.bundle import open_bundle

    opened = open_bundle(bundle)
    manifest = opened.manifest
    levels = [{"level": level, "default": level == manifest.default_level} for level in range(manifest.levels)]
    provenance = {key: value for key, value in manifest.provenance.items() if key != "wnids"}
    facts: dict[str, Any] = {
        "bundle": opened.ident,
        "fingerprint": opened.fingerprint.hex(),
        "half": "device" if opened.is_device_half else "both",
        "encoder": dict(manifest.encoder),
        "levels": manifest.levels,
        "default_level": manifest.default_level,
        "codings": list(manifest.codings),
        "tasks": list(manifest.tasks),
        "classes": len(manifest.classes),
        "latent": {"channels": manifest.channels, "stride": manifest.stride},
        "picture": {"resize": manifest.resize, "crop": manifest.crop},
        "limits": {"max_symbols": manifest.max_symbols, "max_side": manifest.max_side},
        "files": {name: entry.bytes for name, entry in manifest.files.items()},
        "provenance": provenance,
    }
    if json_:
        print_json(facts)
        return
    cost = manifest.encoder
    rows = [
        ("fingerprint", opened.fingerprint.hex()[:16] + "..."),
        ("encoder", f"{cost['macs'] / 1e6:.1f} M MACs, {cost['parameters']:,} parameters, {cost['bytes']:,} bytes"),
        ("latent", f"{manifest.channels} channels, stride {manifest.stride}"),
        ("picture", f"short side to {manifest.resize}, centre crop {manifest.crop}"),
        ("levels", f"0 to {levels[-1]['level']}, default {manifest.default_level}"),
        ("coding", ", ".join({0: "by channel", 2: "by context"}.get(one, str(one)) for one in manifest.codings)),
        ("tasks", ", ".join(manifest.tasks) + f" ({len(manifest.classes)} classes)"),
        *(
            ("" if place else "files", f"{name} {one.bytes:,}")
            for place, (name, one) in enumerate(manifest.files.items())
        ),
        ("recipe", f"{provenance.get('recipe')} at commit {provenance.get('commit')}"),
    ]
    print_table(opened.ident, ("", ""), rows, left=2)


def check(bundle: BundleArgument, json_: JsonOption = False) -> None:
    """Replay a bundle's golden vectors on this machine: hashes, coder bit for bit, encoder, answers."""
    from splitcodec.evaluation.replay import replay
    from splitcodec.wire.bundle import open_bundle

    with progress() as bar:
        result = replay(open_bundle(bundle), on_step=counter(bar, "replaying"))
    if json_:
        print_json(result.to_json())
        return
    answers = "same answers" if result.answers else "answers not replayed (the device's half)"
    int8 = "" if result.int8_equal is None else f", {100 * result.int8_equal:.3f} % in INT8"
    print(
        f"{result.bundle}: {result.pictures} pictures x {result.levels} levels replay; packets bit for bit with "
        f"{' and '.join(result.coders)}; encoder symbols {100 * result.symbols_equal:.3f} % equal at the worst "
        f"level{int8}; "
        f"{answers}"
    )
    if result.int8_refused is not None:
        print(f"INT8 may not be used here: {result.int8_refused}", file=sys.stderr)


def train(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A YAML file; see recipes/ and docs/train-your-own.md.")
    ],
    photos: Annotated[
        list[Path],
        typer.Option("--photos", metavar="DIR", help="A folder of photographs, labels not needed; repeatable."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="The run's folder; resumes what is there.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. stage1.images=1000.")
    ] = None,
    devices: Annotated[
        int, typer.Option("--devices", min=1, help="Processes: one per GPU, or per core of a processor (DDP).")
    ] = 1,
    json_: JsonOption = False,
) -> None:
    """Distil a student from the recipe's teacher. Killed at any time, the same command goes on where it stopped."""
    with training_room():
        from splitcodec.training import distill
        from splitcodec.training.earlier import tunes_decoder_alone
        from splitcodec.training.recipe import read_recipe

    wanted = read_recipe(recipe, changes=tuple(changes or ()))
    with progress() as bar:
        final = distill.train(wanted, photos=photos, out=out, report=stage_counter(bar), devices=devices)
    if not final:  # one of the processes that only help the first
        return
    if json_:
        print_json(final)
    else:
        after = f"bundle redecode {wanted.start} --run" if tunes_decoder_alone(wanted) else "export"
        print(
            f"{out}: {final['images']:,} pictures seen in {final.get('seconds', 0) / 60:.0f} minutes; next: "
            f"splitcodec {after} {out} -o BUNDLE"
        )


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder written by `train`.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The bundle's folder; must not exist yet.")],
    maps: Annotated[
        str | None,
        typer.Option(
            "--maps", metavar="A,B", help="Layers that the classifier's graph gives too, for other tasks' heads."
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Write a trained run as a bundle: graphs, integer tables, golden vectors, model card."""
    with training_room():
        from splitcodec.training import export as exporter
    from splitcodec.demo.photos import PHOTOGRAPHS
    from splitcodec.device.client import Device
    from splitcodec.device.image import load_picture
    from splitcodec.edge.answer import Edge
    from splitcodec.errors import RunError
    from splitcodec.evaluation.golden import make_golden
    from splitcodec.wire.bundle import Bundle
    from splitcodec.wire.durable import check_free

    if not (run / "recipe.yaml").is_file():
        raise RunError(f"{run} holds no run of `splitcodec train`; give the folder of one")

    check_free(out)

    def golden(bundle: Bundle) -> bytes:
        return make_golden(Device(bundle), Edge(bundle), [load_picture(photo.read()) for photo in PHOTOGRAPHS[:3]])

    layers = [name.strip() for name in maps.split(",")] if maps else []
    bundle = exporter.export(run, out, golden=golden, maps=layers)
    whole = finished(run, bundle.manifest.provenance, command="train")
    if json_:
        facts = {"folder": str(out), "finished": whole, "encoder": dict(bundle.manifest.encoder)}
        print_json({**written(bundle, out), **facts})
    else:
        print(f"{out}: {bundle.ident}; next: splitcodec check {out}")


def calibrate(
    photos: Annotated[
        list[Path],
        typer.Option("--photos", metavar="DIR", help="A folder of photographs, labels not needed; repeatable."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The new bundle's folder.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    name: NewNameOption = None,
    version: NewVersionOption = None,
    threads: PicturesAtATimeOption = None,
    json_: JsonOption = False,
) -> None:
    """Refit a bundle's integer tables to your own photographs, without training, and say what that saves.

    Graphs, symbols and answers stay what they are; packets get shorter. Both shores need the new bundle, which keeps
    name and version unless others are given. A fifth of the photographs is only measured; those that cannot be read are
    listed and left out.
    """
    from splitcodec.evaluation.calibrate import calibrate as fit

    with progress() as bar:
        done = fit(
            bundle,
            photos,
            out,
            name=name,
            version=version,
            progress=counter(bar, "calibrating"),
            threads=threads,
        )
    for _, why in done.skipped:
        complain(f"left out: {why}")
    if json_:
        print_json(done.to_json())
        return
    rows = [(one.level, f"{one.before:,.0f}", f"{one.after:,.0f}", f"{one.change:+.1f} %") for one in done.levels]
    print_table("mean bytes of a packet", ("level", "before", "after", "change"), rows, left=0)
    by_context = done.strength_by_context
    rows_too = "" if by_context is None else f", the old rows of contexts as {by_context:g}"
    print(
        f"Tables fitted on {done.photographs} photographs, measured on {done.held_out} others: mean change "
        f"{done.change:+.1f} %. The old tables weigh as much as {done.strength:g} of them{rows_too}."
    )
    print(f"{out}: {done.bundle.ident} with fingerprint {done.bundle.fingerprint.hex()[:8]}..., which both shores need")
    tell_kept(done.made_of, done.bundle)
    if done.change >= 0:
        print("Nothing is saved: keep the old bundle, or give more photographs.")
