"""A run's folder: recipe, checkpoints and logs; everything written atomically, nothing unpickled from outside.

runs/x/  recipe.yaml  provenance.json  log.jsonl  tensorboard/
         checkpoint.a or .b/{student.safetensors, trainer.pt, state.json}
         student.safetensors  config.json  symbols.npz  report.json      (when it is done)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from splitcodec.errors import OutputError, RunError, one_line
from splitcodec.training.keys import Strict, differences
from splitcodec.training.recipe import Recipe, read_recipe
from splitcodec.training.spent import Spent
from splitcodec.training.tabulate import load_counts
from splitcodec.training.teacher_file import check_teacher_file, facts_of_teacher
from splitcodec.wire.durable import sync_folder, write_atomically
from splitcodec.wire.tabulate import Counts

_PLACES = ("checkpoint.a", "checkpoint.b")
_MOST_NAMED = 4  # keys that differ between two recipes
_FULL_DISK = (SafetensorError, RuntimeError)  # what safetensors and torch say in place of OSError


@dataclass(slots=True)
class State:
    """Where a run stands."""

    stage: str = "stage1"
    step: int = 0
    """Steps done in this stage."""
    images: int = 0
    """Pictures seen in all stages."""
    seconds: float = 0.0
    """Wall time spent training, over all sessions."""
    processor_seconds: float = 0.0
    """Processor time within it, of all processes."""
    device_seconds: dict[str, float] = field(default_factory=dict)
    """Time within it that accelerators were held, all together, by their name."""
    stage_seconds: float = 0.0
    """The part of it that was spent in this stage."""
    devices: int = 1
    """Processes of this stage: its steps are so many batches each."""
    readings: list[dict[str, Any]] = field(default_factory=list)
    """Losses on held-out crops so far; see `levelling.Reading`."""
    unreadable: list[int] = field(default_factory=list)
    """Places of training photographs that could not be read so far."""

    def begin_stage(self, name: str) -> None:
        """Stand before a stage's first step."""
        self.stage, self.step, self.stage_seconds = name, 0, 0.0

    def advance(self, *, images: int, spent: Spent) -> None:
        """Count a step."""
        self.step += 1
        self.images += images
        self.seconds += spent.seconds
        self.stage_seconds += spent.seconds
        self.processor_seconds += spent.processor_seconds or 0.0
        for name, seconds in spent.device_seconds.items():
            self.device_seconds[name] = self.device_seconds.get(name, 0.0) + seconds

    def spent(self) -> Spent:
        """Return what the run has taken so far."""
        return Spent(self.seconds, self.processor_seconds, self.device_seconds)


@final
class Run:
    """The folder of one training run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self, recipe: Recipe, *, photographs: int, names: str | None = None) -> None:
        """Raise RunError for a folder that holds another recipe's run, or one on other photographs or another teacher.

        `names` is a hash of the photographs' names: with others, those held out would be others.
        """
        path = self.folder / "recipe.yaml"
        if path.exists():
            check_same(self.folder, self.recipe(), recipe)
        known = self.provenance() if (self.folder / "provenance.json").exists() else {}
        check_teacher_file(self.folder, known, recipe)
        if names and known.get("names") not in (None, names):
            raise RunError(
                f"{self.folder}: the run began on {known.get('photographs')} photographs, now there are {photographs}, "
                "or others; those held out would change. Put them back as they were, or choose another --out"
            )

    def begin(self, recipe: Recipe, *, photographs: int, folders: list[str], names: str | None = None) -> None:
        """Write the recipe and where it was started, which stays when it goes on. Raises RunError as `check` does."""
        self.check(recipe, photographs=photographs, names=names)
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        write_into(self.folder, "recipe.yaml", text.encode())
        facts = {**provenance(recipe.name), "photographs": photographs, "folders": folders, **facts_of_teacher(recipe)}
        facts |= {"names": names} if names else {}
        known = self.provenance() if (self.folder / "provenance.json").exists() else {}
        write_into(self.folder, "provenance.json", json.dumps({**facts, **known}, indent=1).encode())

    def recipe(self) -> Recipe:
        """Read the recipe of this run."""
        return read_recipe(self.folder / "recipe.yaml")

    def provenance(self) -> dict[str, Any]:
        """Read how and on what this run was trained. Raises RunError for a damaged file, as all that read do."""
        return _object(self.folder / "provenance.json")

    def save(self, student: Mapping[str, Tensor], trainer: dict[str, Any], state: State) -> None:
        """Write a checkpoint; a kill in the middle leaves the last one usable."""
        whole = self._checkpoints()
        place = next(p for p in map(self.folder.joinpath, _PLACES) if p not in whole[:1])
        try:
            _empty(place)
            place.mkdir(parents=True, exist_ok=True)
            save_file({k: v.contiguous().cpu() for k, v in student.items()}, place / "student.safetensors")
            torch.save(trainer, place / "trainer.pt")
            part = place / "state.json.part"
            part.write_text(json.dumps(asdict(state)), encoding="utf-8")
            _on_disk(place)
            os.replace(part, place / "state.json")  # from here on the checkpoint is whole
            sync_folder(place)
            sync_folder(self.folder)  # also where power is lost: only now may the last one go
            for old in whole[:1]:
                _empty(old)
                old.rmdir()
        except (OSError, *_FULL_DISK) as error:
            raise OutputError(
                f"cannot write the checkpoint {place}: {one_line(error)}; free some space and start again"
            ) from error

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any], State] | None:
        """Return the last whole checkpoint, or None for a new run. Raises RunError when none of those here is whole."""
        for place in self._checkpoints():
            try:
                state = State(**json.loads((place / "state.json").read_bytes()))
                student = load_file(place / "student.safetensors")
                trainer = torch.load(place / "trainer.pt", weights_only=True, map_location="cpu")
            except Exception:  # noqa: S112  # damaged: try the other
                continue
            return student, trainer, state
        if any((self.folder / name).exists() for name in _PLACES):
            raise RunError(f"no checkpoint in {self.folder} is whole; remove its checkpoint folders to start anew")
        return None

    def finish(self, student: Mapping[str, Tensor], report: dict[str, Any]) -> None:
        """Write the final weights (safetensors), their configuration and the report."""
        self.keep("student.safetensors", student)
        write_into(self.folder, "config.json", self.recipe().model_dump_json(indent=1).encode())
        write_into(self.folder, "report.json", json.dumps(report, indent=1).encode())

    def keep(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Write weights as a safetensors file."""
        write_into(self.folder, name, save({k: v.contiguous().cpu() for k, v in weights.items()}))

    def keep_counts(self, data: bytes) -> None:
        """Keep how often each symbol occurred on the training photographs; tables are built from it."""
        write_into(self.folder, "symbols.npz", data)

    def counts(self) -> Counts | None:
        """Return what `keep_counts` kept, or None for a run still going on, whose weights may have other gains."""
        path = self.folder / "symbols.npz"
        if not path.exists() or not (self.folder / "student.safetensors").exists():
            return None
        with _whole(path):
            return load_counts(path.read_bytes())

    def report(self) -> dict[str, Any]:
        """Return the final report; empty for a run still going on."""
        path = self.folder / "report.json"
        return _object(path) if path.exists() else {}

    def weights(self) -> dict[str, Tensor]:
        """Return the final weights, or those of the last checkpoint of a run still going on."""
        path = self.folder / "student.safetensors"
        if path.exists():
            with _whole(path):
                weights: dict[str, Tensor] = load_file(path)
                return weights
        found = self.load()
        if found is None:
            raise RunError(f"{self.folder} holds no trained student; run `splitcodec train RECIPE --out {self.folder}`")
        return found[0]

    def log(self, line: Mapping[str, object]) -> None:
        """Append one line of JSON to log.jsonl, never behind one that a full disk has cut short."""
        try:
            with (self.folder / "log.jsonl").open("ab+") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                torn = file.read(1) not in (b"", b"\n")
                file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.folder / 'log.jsonl'}: {error}") from error

    def _checkpoints(self) -> list[Path]:
        """Return the checkpoints that were written to their end, the newest first."""
        states = [p for p in (self.folder / name / "state.json" for name in _PLACES) if p.exists()]
        return [p.parent for p in sorted(states, key=lambda p: p.stat().st_mtime_ns, reverse=True)]


def write_into(folder: Path, name: str, data: bytes) -> None:
    """Write a file into a run's folder, which is made; it is there whole or not at all. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder / name}: {error}") from error
    write_atomically(folder / name, data, part=folder / (name + ".part"))


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Say of a file of a run that it cannot be read. Raises RunError."""
    try:
        yield
    except Exception as error:  # JSON, safetensors and npz each raise their own
        raise RunError(
            f"{path} is damaged ({one_line(error)}); copy the run anew, or remove that file and start its command again"
        ) from error


def _object(path: Path) -> dict[str, Any]:
    """Read a JSON object of a run. Raises RunError."""
    with _whole(path):
        out = json.loads(path.read_bytes())
        if not isinstance(out, dict):
            raise TypeError(f"{type(out).__name__}, expected an object")
        return out


def check_same(folder: Path, was: Strict, now: Strict) -> None:
    """Raise RunError where a run's folder was begun by another recipe, by the keys that differ."""
    if was == now:
        return
    found = differences(was, now)
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    raise RunError(
        f"{folder} holds a run of another recipe: {', '.join(found[:_MOST_NAMED])}{more}; go on with the recipe and "
        "the --set that it began with, choose another --out, or remove it"
    )


def provenance(recipe: str) -> dict[str, Any]:
    """Return where a run of a recipe was started: commit, versions."""
    return {"recipe": recipe, "commit": _commit(), "torch": torch.__version__, "python": sys.version.split()[0]}


def _on_disk(place: Path) -> None:
    """Bring what is in a folder's files to the disk."""
    for path in place.iterdir():
        with path.open("rb+") as file:  # Windows syncs none that may only be read
            os.fsync(file.fileno())


def _empty(place: Path) -> None:
    """Remove a checkpoint's files, its mark of being whole first."""
    for file in sorted(place.glob("*"), key=lambda p: p.name != "state.json"):
        file.unlink()


def _commit() -> str:
    """Return the commit of the checkout that this code runs from."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
