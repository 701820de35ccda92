"""import-checkpoint: the paper's students, as their authors' code writes them -> runs that `export` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitcodec.cli.show import JsonOption, print_json, progress, training_room


def add_to(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command("import-checkpoint", rich_help_panel="Training")(import_checkpoint)


def import_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A .pt or .pth file of sc2-benchmark, read without pickles.")
    ],
    recipe: Annotated[
        Path,
        typer.Option("--recipe", metavar="RECIPE", help="Its teacher and layers: recipes/paper/resnet50_beta*.yaml."),
    ],
    photos: Annotated[
        list[Path],
        typer.Option(
            "--photos", metavar="DIR", help="Photographs whose symbols are counted for the tables; repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="The run's folder, which must not exist.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. teacher.weights=FILE.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Take an Entropic Student that the paper's own code has trained, so that it runs here: device, packets, server.

    Its weights become a finished run, and `splitcodec export RUN -o BUNDLE` makes a bundle of it.
    """
    with training_room():
        from splitcodec.training.published import take
        from splitcodec.training.recipe import read_recipe

    wanted = read_recipe(recipe, changes=tuple(changes or ()))
    with progress() as bar:
        bar.add_task("reading, counting symbols", total=None, note="")
        report = take(wanted, checkpoint, photos=photos, out=out)
    if json_:
        print_json({"run": str(out), **report})
        return
    for one in report["holdout"]:
        print(
            f"agreement with {wanted.teacher.model} on photographs held out: {one['agreement']:.1f} % at "
            f"{one['bytes_estimate']:,.0f} bytes (estimate)"
        )
    print(f"{out}: {report['counted']} photographs counted; next: splitcodec export {out} -o BUNDLE")
