"""Commands that write bundles out of bundles: bundle pack, split, add, retail, recut, redecode, join."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitcodec.cli.show import (
    BundleArgument,
    JsonOption,
    NewNameOption,
    NewVersionOption,
    counter,
    print_json,
    progress,
    tell_kept,
    training_room,
    written,
)
from splitcodec.errors import SettingsError

if TYPE_CHECKING:
    from splitcodec.wire.bundle import Bundle

_ARCHIVES = (".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")

NextVersionOption = Annotated[
    int | None, typer.Option("--version", min=1, metavar="N", help="The new bundle's version; else the next one.")
]
FolderOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write; must not exist yet.")]


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    bundles = typer.Typer(help="Pack, split or store a bundle, or give it other classes.", no_args_is_help=True)
    bundles.command("pack")(pack)
    bundles.command("split")(split)
    bundles.command("retail")(retail)
    bundles.command("recut")(recut)
    bundles.command("redecode")(redecode)
    bundles.command("join")(join)
    bundles.command("add")(add)
    app.add_typer(bundles, name="bundle", rich_help_panel="Bundles")


def pack(
    bundle: BundleArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="Folder to write, or a .zip; must not exist yet.")
    ],
    device: Annotated[bool, typer.Option("--device", help="Only the device's half.")] = False,
    json_: JsonOption = False,
) -> None:
    """Write a bundle with all its files: as a folder, or as one file where OUT ends in .zip."""
    from splitcodec.wire.bundle import device_half, open_bundle, write_folder, write_zip

    if out.suffix.lower() in _ARCHIVES:
        raise SettingsError(f"--out {out}: expected a folder, or a name that ends in .zip")
    opened = open_bundle(bundle)
    wanted = device_half(opened) if device else opened
    if out.suffix.lower() == ".zip":
        write_zip(wanted, out)
    else:
        write_folder(wanted, out)
    _tell(wanted, out, json_=json_)


def split(bundle: BundleArgument, out: FolderOption, json_: JsonOption = False) -> None:
    """Write the device's half of a bundle as a folder: manifest, tables, encoder and golden vectors."""
    from splitcodec.wire.bundle import open_bundle, split_device

    _tell(split_device(open_bundle(bundle), out), out, json_=json_)


def retail(
    bundle: BundleArgument,
    tail: Annotated[
        Path, typer.Option("--tail", metavar="TAIL", help="An ONNX graph: the decoder's feature -> logits.")
    ],
    classes: Annotated[
        Path, typer.Option("--classes", metavar="NAMES", help="A text file: one class name a line, as the logits go.")
    ],
    name: Annotated[str, typer.Option("--name", metavar="NEW", help="The new bundle's name.")],
    out: FolderOption,
    version: Annotated[int, typer.Option("--version", min=1, metavar="N", help="The new bundle's version.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Give a bundle another tail, for classes of your own. The fingerprint stays, so devices need nothing new."""
    from splitcodec.evaluation.retail import read_classes
    from splitcodec.evaluation.retail import retail as write

    made = write(bundle, tail=tail, classes=read_classes(classes), name=name, version=version, out=out)
    _tell(made, out, json_=json_)


def recut(
    bundle: BundleArgument,
    recipe: Annotated[Path, typer.Option("--recipe", metavar="YAML", help="The recipe that the bundle was made by.")],
    cut: Annotated[str, typer.Option("--cut", metavar="LAYER", help="The teacher's layer to cut after from now on.")],
    onto: Annotated[
        str, typer.Option("--onto", metavar="BUNDLE", help="A bundle of that teacher and cut; its head and tail serve.")
    ],
    out: FolderOption,
    version: NextVersionOption = None,
    json_: JsonOption = False,
) -> None:
    """Cut a bundle's teacher later: blocks move into the decoder; packets, answers and fingerprint stay."""
    with training_room():
        from splitcodec.training.recipe import read_recipe
        from splitcodec.training.recut import recut as write
    from splitcodec.wire.bundle import open_bundle
    from splitcodec.wire.durable import check_free

    check_free(out)
    made = write(open_bundle(bundle), read_recipe(recipe), cut, open_bundle(onto), out, version=version)
    _tell(made, out, json_=json_)


def redecode(
    bundle: BundleArgument,
    run: Annotated[
        list[Path],
        typer.Option(
            "--run",
            metavar="RUN",
            help="A run that began with a bundle and tuned its decoder alone; repeatable, the mean is taken.",
        ),
    ],
    out: FolderOption,
    share: Annotated[
        float,
        typer.Option("--share", metavar="S", help="How far from the bundle's own weights to the run's: above 0 to 1."),
    ] = 1.0,
    switch: Annotated[
        list[Path] | None,
        typer.Option(
            "--switch",
            metavar="PHOTOS",
            help="After data.disturbed: clean pictures are decoded as ever. These photographs tell which are.",
        ),
    ] = None,
    version: NextVersionOption = None,
    json_: JsonOption = False,
) -> None:
    """Give a bundle the decoder that a run learned for it; packets and fingerprint stay, devices need nothing new."""
    with training_room():
        from splitcodec.training.redecode import redecode as write
    from splitcodec.evaluation.golden import remade
    from splitcodec.wire.bundle import open_bundle
    from splitcodec.wire.durable import check_free

    check_free(out)
    opened = open_bundle(bundle)
    with progress() as bar:
        made = write(
            opened,
            run,
            out,
            remade=remade,
            share=share,
            switch=switch or (),
            version=version,
            progress=counter(bar, "looking") if switch else None,
        )
    _tell(made, out, json_=json_)


def join(
    bundle: BundleArgument,
    edge: Annotated[
        str, typer.Option("--edge", metavar="OTHER", help="A bundle with the same decoder; its edge's half serves.")
    ],
    out: FolderOption,
    keep_decoder: Annotated[
        bool, typer.Option("--keep-decoder", help="Head, tails and tasks alone; both must have one teacher, cut alike.")
    ] = False,
    name: NewNameOption = None,
    version: NewVersionOption = None,
    json_: JsonOption = False,
) -> None:
    """Give a bundle's encoder the decoder, tails and tasks of another, which it learned beside."""
    from splitcodec.evaluation.join import join as write
    from splitcodec.wire.bundle import open_bundle

    opened = open_bundle(bundle)
    joined = write(opened, open_bundle(edge), out, keep_decoder=keep_decoder, name=name, version=version)
    _tell(joined, out, json_=json_)
    if not json_:
        tell_kept(opened.ident, joined)


def add(
    bundle: BundleArgument,
    zoo: Annotated[Path, typer.Option("--zoo", metavar="DIR", help="The zoo's folder, such as src/splitcodec/zoo.")],
    replace: Annotated[bool, typer.Option("--replace", help="Also over another bundle of that name@version.")] = False,
    json_: JsonOption = False,
) -> None:
    """Put a finished bundle into a zoo's folder, where head and tail lie once for all bundles of a teacher."""
    from splitcodec.wire.bundle import open_bundle
    from splitcodec.wire.zoo import add_to_zoo

    added = add_to_zoo(open_bundle(bundle), zoo, replace=replace)
    place = added.bundle.path
    if json_:
        print_json({**_facts(added.bundle, place), "shared": added.shared, "removed": added.removed})
        return
    for name, others in added.shared.items():
        print(f"{name}: {'shared with ' + ', '.join(others) if others else 'no other bundle has it'}")
    for graph in added.removed:
        print(f"graphs/{graph}: removed, no bundle names it any more")
    _tell(added.bundle, place, json_=False)


def _facts(bundle: Bundle, out: Path) -> dict[str, Any]:
    """Return what was written; `bytes` is what it takes on disk there."""
    paths = [out] if out.is_file() else [path for path in out.rglob("*") if path.is_file()]
    return {
        **written(bundle, out),
        "bytes": sum(path.stat().st_size for path in paths),
        "files": {name: entry.bytes for name, entry in bundle.manifest.files.items()},
        "half": "device" if bundle.is_device_half else "both",
    }


def _tell(bundle: Bundle, out: Path, *, json_: bool) -> None:
    facts = _facts(bundle, out)
    if json_:
        print_json(facts)
        return
    half = ", the device's half" if bundle.is_device_half else ""
    print(
        f"{out}: {bundle.ident}{half}, {facts['bytes']:,} bytes, {len(facts['files'])} files and the manifest, "
        f"fingerprint {facts['fingerprint'][:8]}..."
    )
