"""learn-classes: pictures in one folder per class -> a bundle for those classes, for devices as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from splitcodec.cli.show import (
    BundleArgument,
    JsonOption,
    PicturesAtATimeOption,
    complain,
    counter,
    print_json,
    print_table,
    progress,
    training_room,
    written,
)
from splitcodec.errors import BundlePart, DataError

if TYPE_CHECKING:
    from splitcodec.training.class_vectors import Picture, Seen

_FEWEST = 2  # classes
_HELD_OUT = 5  # one picture in so many is only measured


def add_to(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command("learn-classes", rich_help_panel="Training")(learn_classes)


def learn_classes(
    bundle: BundleArgument,
    photos: Annotated[
        list[Path],
        typer.Option("--photos", metavar="DIR", help="A folder with a folder of pictures for each class; repeatable."),
    ],
    name: Annotated[str, typer.Option("--name", metavar="NEW", help="The new bundle's name.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The new bundle's folder.")],
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            "--held-out", metavar="DIR", help="The same of other pictures, to measure on; repeatable. Default: a fifth."
        ),
    ] = None,
    version: Annotated[int, typer.Option("--version", min=1, metavar="N", help="The new bundle's version.")] = 1,
    threads: PicturesAtATimeOption = None,
    json_: JsonOption = False,
) -> None:
    """Teach a bundle classes of your own. The fingerprint stays, so devices need nothing new.

    The last layer is learned anew on what packets of every level bring, the rest of the network stays. Pictures held
    out are then answered by the new bundle, from packets and uncompressed. Killed, the same command goes on.
    """
    with training_room():
        import torch

        from splitcodec.training.class_vectors import see
        from splitcodec.training.own_classes import fit, score, with_classes
    from splitcodec.ahead import cores
    from splitcodec.wire.bundle import open_bundle, write_folder
    from splitcodec.wire.durable import check_free

    check_free(out)
    opened = open_bundle(bundle)
    if opened.is_device_half:
        raise BundlePart(f"{opened.ident} is the device's half, which has no tail to teach; give the whole bundle")
    classes, learned, held = _pictures(photos, held_out or [])
    replace(opened.manifest, name=name, version=version, classes=tuple(classes))  # refused before the work, if at all
    threads, memory = threads or cores(), out.with_name(f".{out.name}.seen")
    torch.set_num_threads(threads)
    with progress() as bar:
        seen = see(opened, learned, threads=threads, memory=memory, progress=counter(bar, "looking", len(learned)))
        _check_seen(classes, seen)
        layer = fit(seen, classes=len(classes), progress=counter(bar, "learning"))
        note: dict[str, Any] = {"pictures": len(set(seen.picture_n.tolist())), "weight_decay": layer.decay}
        draft = with_classes(opened, layer, classes=classes, name=name, version=version, note=note)
        found = score(draft, held, threads=threads, progress=counter(bar, "measuring", len(held))) if held else None
        new = write_folder(draft, out)  # at the very end: a kill while it measures leaves none that is in the way
        memory.unlink(missing_ok=True)
    for why in (*seen.skipped, *(found.skipped if found else ())):
        complain(f"left out: {why}")
    scores = None if found is None else {"pictures": found.pictures, "levels": [one.to_json() for one in found.levels]}
    if json_:
        print_json({**written(new, out), "folder": str(out), "classes": len(classes), **note, "held_out": scores})
        return
    if found is not None:
        print_table(
            f"{new.ident}, {len(classes)} classes, {found.pictures} pictures held out",
            ("level", "bytes", "right, %"),
            [
                ("uncompressed", "", f"{one.top1:.1f}")
                if one.bytes is None
                else (str(one.level), f"{one.bytes:,.0f}", f"{one.top1:.1f}")
                for one in found.levels
            ],
        )
    print(
        f"{out}: {new.ident}; serve it in place of {opened.ident}, whose packets it answers: "
        f"splitcodec serve --bundle {out}"
    )


def _pictures(photos: list[Path], held_out: list[Path]) -> tuple[list[str], list[Picture], list[Picture]]:
    """Return class names, pictures to learn from and others to measure on. Raises DataError."""
    from splitcodec.training.class_vectors import Picture, apart, class_folders

    found = class_folders(photos)
    if len(found) < _FEWEST:
        places = ", ".join(map(str, photos))
        raise DataError(
            f"{places}: {len(found)} folder(s) of pictures; expected one for each of {_FEWEST} classes or more"
        )
    classes = list(found)
    if not held_out:
        return classes, *apart(found, every=_HELD_OUT)
    others = class_folders(held_out)
    if unknown := [one for one in others if one not in found]:
        raise DataError(
            f"--held-out has a class {unknown[0]!r} that --photos has not; remove it, or add pictures of it"
        )
    measured = {path.resolve() for paths in others.values() for path in paths}
    held = [Picture(path, classes.index(one)) for one, paths in others.items() for path in paths]
    learned = {one: [path for path in paths if path.resolve() not in measured] for one, paths in found.items()}
    if empty := [one for one, paths in learned.items() if not paths]:
        raise DataError(f"--held-out has every picture of the class {empty[0]!r}; give others to measure on")
    return classes, [Picture(path, number) for number, paths in enumerate(learned.values()) for path in paths], held


def _check_seen(classes: list[str], seen: Seen) -> None:
    """Refuse a class of which nothing was seen: it would be one that is never answered. Raises DataError."""
    if empty := sorted(set(range(len(classes))) - set(seen.label_n.tolist())):
        raise DataError(
            f"no picture of the class {classes[empty[0]]!r} can be read ({seen.skipped[0]}); give others, or remove it"
        )
