"""Commands that change a bundle's rates, not its graphs: contexts (coding by context), levels (where they lie)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from splitcodec.cli.bundles import NextVersionOption
from splitcodec.cli.show import (
    BundleArgument,
    JsonOption,
    complain,
    counter,
    print_json,
    print_table,
    progress,
    training_room,
    written,
)
from splitcodec.errors import PictureError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from rich.progress import Progress

    from splitcodec.wire.bundle import Bundle
    from splitcodec.wire.contexts import Contexts

R = TypeVar("R")
_HELD_OUT, _MOST_HELD_OUT = 10, 200


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("contexts", rich_help_panel="Training")(contexts)
    app.command("levels", rich_help_panel="Training")(levels)


def contexts(
    bundle: BundleArgument,
    photos: Annotated[
        list[Path], typer.Option("--photos", metavar="DIR", help="Photographs, such as those trained on; repeatable.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The new bundle's folder.")],
    steps: Annotated[int, typer.Option("--steps", min=1, metavar="N", help="Batches of 16 for every level.")] = 1500,
    like: Annotated[
        str | None,
        typer.Option("--like", metavar="OTHER", help="Take that bundle's networks, and count their rows anew."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--start", metavar="OTHER", help="Begin with that bundle's networks, not from nothing."),
    ] = None,
    version: NextVersionOption = None,
    threads: Annotated[int, typer.Option("--threads", min=1, metavar="N", help="Of the training.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Add coding id 2 to a bundle: small integer networks choose each symbol's table by what was coded before.

    The same symbols in fewer bytes, at the price of some time on either shore. Graphs and answers stay; the fingerprint
    does not, so both shores need the new bundle. A tenth of the photographs, at most 200, are only measured. Bundles
    whose encoders learned the same latent (`--like`) can share the networks; then nothing is learned. Killed, the same
    command goes on at the level where it was.
    """
    import numpy as np

    from splitcodec.errors import DataError, SettingsError
    from splitcodec.evaluation.calibrate import shuffled
    from splitcodec.evaluation.contextual import (
        check_alike,
        check_whole,
        contexts_of,
        recounted,
        savings,
        with_contexts,
    )
    from splitcodec.wire.bundle import open_bundle, write_folder
    from splitcodec.wire.durable import check_free

    if like is not None and start is not None:
        raise SettingsError("--like takes networks as they are, --start learns on from them; give one of both")
    check_free(out)
    opened, paths = open_bundle(bundle), shuffled(photos)
    check_whole(opened)
    other = None if like is None else open_bundle(like)
    earlier = None if start is None else open_bundle(start)
    begun = None if earlier is None else contexts_of(earlier)
    if other is None:
        _check_training(opened, begun)
    else:
        check_alike(other, opened)
    place = out.with_name(f".{out.name}.learned")
    with progress() as bar:
        latents, skipped = _latents(opened, paths, threads=threads, bar=bar)
        held = min(_MOST_HELD_OUT, len(latents) // _HELD_OUT)
        if not held:
            raise DataError(f"{len(latents)} of {len(paths)} photographs can be read, expected at least {_HELD_OUT}")
        note: dict[str, Any] = {"photographs": len(latents) - held}
        tell = counter(bar, "learning")
        if other is not None:
            made, note["like"] = recounted(other, opened, latents[held:]), other.ident
        else:
            some = np.stack(latents[held:])
            made = _learned(some, opened, steps=steps, start=begun, threads=threads, memory=place, tell=tell)
            note |= {"steps": steps, **({} if earlier is None else {"start": earlier.ident})}
        draft = with_contexts(opened, made, note=note, version=version)
        found = savings(draft, latents[:held])
        note["held_out"] = {"photographs": held, "change_percent": [round(one.change, 2) for one in found]}
        new = write_folder(with_contexts(opened, made, note=note, version=version), out)
        place.unlink(missing_ok=True)
    for why in skipped:
        complain(f"left out: {why}")
    if sum(one.change for one in found) >= 0:
        complain("by context costs more here: learn networks for this latent (no --like), or from more photographs")
    if json_:
        print_json({**written(new, out), "folder": str(out), **note, "levels": [one.to_json() for one in found]})
        return
    print_table(
        f"{new.ident}, {held} photographs held out",
        ("level", "bytes by channel", "by context", "%"),
        [(str(one.level), f"{one.by_channel:,.0f}", f"{one.by_context:,.0f}", f"{one.change:+.1f}") for one in found],
    )
    print(f"{out}: {new.ident}; give it to both shores")


def levels(
    bundle: BundleArgument,
    photos: Annotated[
        list[Path], typer.Option("--photos", metavar="DIR", help="Photographs, such as those trained on; repeatable.")
    ],
    sizes: Annotated[
        str, typer.Option("--bytes", metavar="N,N,...", help="Mean packet of each level, by channel; at most 16.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The new bundle's folder.")],
    default: Annotated[
        int | None,
        typer.Option("--default", min=0, metavar="LEVEL", help="The default level; else the one nearest it."),
    ] = None,
    version: NextVersionOption = None,
    threads: Annotated[int, typer.Option("--threads", min=1, metavar="N", help="Of the encoder.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Put a bundle's rate levels where you want them, without training: gains are interpolated, tables counted.

    A level that has the wanted size within 2 % stays as it is; sizes somewhat beyond the trained ones are reached, with
    answers that were not trained for. Encoder and decoder stay; coding by context goes, until `splitcodec contexts`
    learns it anew. The fingerprint is another, so both shores need the new bundle.
    """
    from splitcodec.errors import DataError, SettingsError
    from splitcodec.evaluation.calibrate import shuffled
    from splitcodec.evaluation.levels import (
        COUNTED,
        check_movable,
        check_sizes,
        nearest,
        place,
        with_levels,
    )
    from splitcodec.wire.bundle import open_bundle, write_folder
    from splitcodec.wire.durable import check_free

    check_free(out)
    try:
        wanted = [float(one) for one in sizes.split(",")]
    except ValueError:
        raise SettingsError(
            f"--bytes {sizes}: expected numbers with commas between them, such as 250,500,1000"
        ) from None
    check_sizes(wanted, default=default)  # what is wrong whatever the photographs are is said before they are read
    opened, paths = open_bundle(bundle), shuffled(photos)
    check_movable(opened)
    with progress() as bar:
        latents, skipped = _latents(opened, paths, threads=threads, bar=bar, most=COUNTED)
    for why in skipped:
        complain(f"left out: {why}")
    if not latents:
        raise DataError(f"none of {len(paths)} photographs can be read")
    placed = place(opened.tables[0], latents, wanted)
    start = nearest(placed, opened.manifest.default_level) if default is None else default
    new = write_folder(with_levels(opened, placed, latents, default=start, version=version), out)
    if json_:
        told = [{"level": level, **one.to_json()} for level, one in enumerate(placed)]
        print_json({**written(new, out), "folder": str(out), "default": start, "levels": told})
        return
    print_table(
        f"{new.ident}, {len(latents)} photographs",
        ("level", "bytes", "among the old levels"),
        [(str(level), f"{one.bytes_mean:,.0f}", f"{one.place:.2f}") for level, one in enumerate(placed)],
    )
    print(f"{out}: {new.ident}; give it to both shores")


def _latents(
    bundle: Bundle, paths: Sequence[Path], *, threads: int, bar: Progress, most: int | None = None
) -> tuple[list[NDArray[np.float32]], list[str]]:
    """Return what the encoder makes of pictures, the first `most` that can be read, and why some could not be."""
    from splitcodec.device.client import Device

    device, most = Device(bundle, threads=threads), len(paths) if most is None else most
    return readable(
        lambda path: device.encoder.latent_chw(device.crop(path)), paths, most=most, bar=bar, what="reading"
    )


def readable(
    read: Callable[[Path], R], paths: Sequence[Path], *, most: int, bar: Progress, what: str
) -> tuple[list[R], list[str]]:
    """Return what `read` gives of the first `most` pictures that can be read, and why others could not be."""
    found, skipped, wanted = list[R](), list[str](), min(most, len(paths))
    task = bar.add_task(what, total=wanted, note="")
    for path in paths:
        if len(found) == wanted:
            break
        try:
            found.append(read(path))
        except PictureError as error:
            skipped.append(str(error))
        bar.update(task, completed=len(found))
    return found, skipped


def _check_training(bundle: Bundle, start: Contexts | None) -> None:
    """Refuse what would be found out once all photographs are read. Raises MissingExtra, SettingsError."""
    with training_room():
        from splitcodec.training.contexts import check_start
    if start is not None:
        check_start(start, levels=bundle.tables[0].levels, channels=bundle.tables[0].channels)


def _learned(
    latent_nchw: NDArray[np.float32],
    bundle: Bundle,
    *,
    steps: int,
    start: Contexts | None,
    threads: int,
    memory: Path,
    tell: Callable[[int, int], None],
) -> Contexts:
    import torch

    from splitcodec.training.contexts import fit

    torch.set_num_threads(threads)
    gain_lc = bundle.tables[0].gain_lc
    return fit(latent_nchw.astype("float16"), gain_lc, steps=steps, start=start, memory=memory, progress=tell)
