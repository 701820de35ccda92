"""Commands for tasks beside classification: train-task, export-task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitcodec.cli.show import (
    DEFAULT_BUNDLE,
    BundleOption,
    JsonOption,
    NewNameOption,
    NewVersionOption,
    finished,
    print_json,
    progress,
    stage_counter,
    tell_kept,
    training_room,
    written,
)

if TYPE_CHECKING:
    from splitcodec.wire.bundle import Bundle


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("train-task", rich_help_panel="Training")(train_task)
    app.command("export-task", rich_help_panel="Training")(export_task)


def train_task(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, such as recipes/detect_voc2007.yaml.")],
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="A data set as VOC, COCO 2017 or CamVid lay it out.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="The run's folder; resumes what is there.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. task_epochs=10.")
    ] = None,
    until: Annotated[
        str, typer.Option("--until", metavar="STAGE", help="Stop after teach, distil or learn; goes on later.")
    ] = "learn",
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.0, help="End this session after so long; goes on later.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Train heads for detection or segmentation on a bundle whose encoder and classifier stay what they are.

    First the task teacher on uncompressed pictures, then the student's head on packets. Killed at any time, the same
    command goes on where it stopped.
    """
    with training_room():
        from splitcodec.training import task_train
        from splitcodec.training.task_recipe import read_task_recipe
    import math

    from splitcodec.errors import SettingsError
    from splitcodec.wire.bundle import open_bundle

    if until not in task_train.STAGES:
        raise SettingsError(f"--until {until!r}; expected one of {', '.join(task_train.STAGES)}")
    wanted = read_task_recipe(recipe, changes=tuple(changes or ()))
    with progress() as bar:
        final = task_train.train_task(
            wanted,
            data=data,
            bundle=open_bundle(bundle),
            out=out,
            report=stage_counter(bar),
            stop_after_s=math.inf if minutes is None else 60 * minutes,
            until=until,
        )
    if json_:
        print_json(final)
        return
    for stage, scores in final["scores"].items():
        print(f"{stage}: " + ", ".join(f"{name} {value:.1f} %" for name, value in scores.items()))
    following = f"splitcodec export-task {out} --bundle {bundle} -o BUNDLE"
    print(
        f"{out}: {final['images']:,} pictures seen; " + (f"next: {following}" if final["finished"] else "to be gone on")
    )


def export_task(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder written by `train-task`.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The new bundle's folder.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    name: NewNameOption = None,
    version: NewVersionOption = None,
    json_: JsonOption = False,
) -> None:
    """Write a bundle with the run's task added. The fingerprint stays, so devices in the field need nothing new."""
    with training_room():
        from splitcodec.training.task_export import export_task as export
    from splitcodec.wire.bundle import open_bundle
    from splitcodec.wire.durable import check_free

    check_free(out)
    opened = open_bundle(bundle)
    made = export(run, opened, out, name=name, version=version)
    facts = {
        **written(made, out),
        "folder": str(out),
        "finished": _finished(run, made),
        "tasks": list(made.manifest.tasks),
        "files": {file: entry.bytes for file, entry in made.manifest.files.items()},
    }
    if json_:
        print_json(facts)
        return
    print(f"{out}: {made.ident} answers {', '.join(made.manifest.tasks)}; fingerprint {made.fingerprint.hex()[:8]}...")
    tell_kept(opened.ident, made)


def _finished(run: Path, made: Bundle) -> bool:
    from splitcodec.training.task_run import TaskRun

    return finished(run, made.task(TaskRun(run).recipe().task).provenance, command="train-task")
