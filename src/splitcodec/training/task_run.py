"""The folder of a task's run: as `training.run.Run`, with a task's recipe and several networks' weights in one file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, final

import yaml
from torch import Tensor, nn

from splitcodec.errors import RunError, one_line
from splitcodec.layouts.sample import DataSet
from splitcodec.training.run import Run, check_same, provenance, write_into
from splitcodec.training.task_recipe import TaskRecipe, read_task_recipe
from splitcodec.wire.bundle import Bundle

FINAL: Final = "student.safetensors"


@final
class TaskRun:
    """The folder of a task's run: as `training.run.Run`, with a task's recipe and several networks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, Run(folder)

    def begin(self, recipe: TaskRecipe, *, data: DataSet, bundle: Bundle) -> None:
        """Write the recipe and what it was started on. Raises RunError as `check` does."""
        facts = self.check(recipe, data=data, bundle=bundle)
        write_into(self.folder, "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).encode())
        write_into(self.folder, "provenance.json", json.dumps(facts, indent=1).encode())

    def check(self, recipe: TaskRecipe, *, data: DataSet, bundle: Bundle) -> dict[str, Any]:
        """Raise RunError for a folder that holds another run; return what this one is started on.

        A run whose student has not begun may go on with another bundle: its teacher has seen none.
        """
        if (self.folder / "recipe.yaml").exists():
            check_same(self.folder, self.recipe(), recipe)
        facts: dict[str, Any] = {
            **provenance(recipe.name),
            "task": recipe.task,
            "data": data.name,
            "pictures": len(data.samples),
            "names": _digest(data),
            "classes": list(data.classes),
            "bundle": bundle.ident,
            "fingerprint": bundle.fingerprint.hex(),
            "decoder": bundle.manifest.files["decoder.onnx"].sha256,
        }
        if (self.folder / "provenance.json").exists():
            old = self.facts()
            bundles = () if self.only_taught() else ("fingerprint", "decoder")
            for key in ("classes", "names", *bundles):
                if old.get(key) != facts[key]:
                    what = "list of pictures" if key == "names" else key
                    raise RunError(f"{self.folder}: another {what} than this run began with; choose another --out")
            facts |= {key: old[key] for key in ("commit", "torch", "python") if key in old}  # where it was started
        return facts

    def recipe(self) -> TaskRecipe:
        """Read the recipe of this run."""
        return read_task_recipe(self.folder / "recipe.yaml")

    def facts(self) -> dict[str, Any]:
        """Read how and on what this run was trained. Raises RunError for a folder that holds none."""
        try:
            out: dict[str, Any] = json.loads((self.folder / "provenance.json").read_bytes())
            out["task"], out["classes"], out["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            raise RunError(f"{self.folder} holds no run of `splitcodec train-task`; give the folder of one") from None
        return out

    def weights(self) -> dict[str, Tensor]:
        """Return the final weights, or those of the last checkpoint of a run still going on."""
        return self.run.weights()

    def only_taught(self) -> bool:
        """Say whether the student has not begun yet."""
        if self.report():
            return False
        found = self.run.load()
        return found is not None and found[2].stage == "teach"

    def report(self) -> dict[str, Any]:
        """Return the final report; empty for a run still going on."""
        return self.run.report()

    def so_far(self) -> dict[str, Any]:
        """Return the final report, or where a run still going on stands, `finished` false."""
        found = None if self.report() else self.run.load()
        if found is None:
            return self.report() or {"finished": False, "scores": self.scores()}
        state = found[2]
        return {"finished": False, "stage": state.stage, "images": state.images, "scores": self.scores()}

    def scores(self) -> dict[str, dict[str, float]]:
        """Return the last score of each stage that the log holds; lines that a full disk cut short are passed over."""
        found: dict[str, dict[str, float]] = {}
        path = self.folder / "log.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                one = json.loads(line)
            except ValueError:
                continue
            if "scores" in one:
                found[one["stage"]] = one["scores"]
        return found

    def finish(self, weights: dict[str, Tensor], final: dict[str, Any]) -> None:
        """Write the final weights (safetensors), their configuration and the report."""
        self.run.keep(FINAL, weights)
        write_into(self.folder, "config.json", self.recipe().model_dump_json(indent=1).encode())
        write_into(self.folder, "report.json", json.dumps(final, indent=1).encode())


def _digest(data: DataSet) -> str:
    """Return a hash of the names of a data set's pictures, in order: with others, batches would be others."""
    names = (f"{one.path.parent.name}/{one.path.name}" for one in data.samples)
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def part_weights(parts: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Return the weights of several modules, each under its name."""
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def put_weights(
    parts: dict[str, nn.Module], weights: dict[str, Tensor], *, only: tuple[str, ...] | None = None
) -> None:
    """Load what `part_weights` gave into modules of the same names. Raises RunError where they do not fit."""
    for name, part in parts.items():
        if only is not None and name not in only:
            continue
        own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        try:
            part.load_state_dict(own)
        except RuntimeError as error:
            raise RunError(
                f"weights of {name} do not fit the recipe ({one_line(error)}); use the run's own recipe"
            ) from error
