"""Task heads, top to bottom: the task teacher, then the student's head, distilled from it, then by the task's loss.

teach: the head learns the task on uncompressed features. distil: the student's head, a copy of it, learns to say of
features out of packets (all rate levels mixed, rounded symbols) what the teacher says of the uncompressed ones. learn:
it learns the task's loss for as many epochs as the teacher did. Encoder, prior and classifier stay what they are; so do
decoder and backbone unless the recipe gives the task its own.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, final

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from splitcodec.errors import RunError
from splitcodec.layouts.find import read_split
from splitcodec.layouts.sample import DataSet
from splitcodec.model.fcos import Boxes
from splitcodec.training.board import Board
from splitcodec.training.distill import CHECKPOINT_SECONDS, Progress
from splitcodec.training.optimise import random_state, set_random_state
from splitcodec.training.processes import feasible, holding
from splitcodec.training.run import State
from splitcodec.training.spent import Clock
from splitcodec.training.task_check import check, check_ready, check_split
from splitcodec.training.task_data import MULTIPLE, LabelledPictures
from splitcodec.training.task_from_bundle import take_teacher
from splitcodec.training.task_networks import Networks, check_side
from splitcodec.training.task_optimise import average, optimizer_of, rate_at, share_kept, thaw
from splitcodec.training.task_recipe import HeadStage, TaskRecipe, TaskStage
from splitcodec.training.task_run import TaskRun, part_weights, put_weights
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.durable import check_folder

STAGES: Final = ("teach", "distil", "learn")


def train_task(
    recipe: TaskRecipe,
    *,
    data: Path,
    bundle: Bundle,
    out: Path,
    report: Callable[[Progress], None],
    stop_after_s: float = math.inf,
    until: str = "learn",
) -> dict[str, Any]:
    """Train, or go on with, the run in `out`; returns the final report (also report.json).

    Killed at any time, the same call resumes at the last checkpoint. `stop_after_s` ends the session early, `until`
    after that stage; both can be resumed. Raises RecipeError, DataError, TeacherError, RunError, BundleError,
    OutputError, MissingExtra.
    """
    check_ready(recipe.task)
    check_side(recipe, bundle)
    fabric = Fabric(accelerator="auto", devices=1, precision=feasible(recipe.precision))
    fabric.launch()
    fabric.seed_everything(recipe.seed, verbose=False)
    training = read_split(data, split=recipe.data.train, task=recipe.task)
    held = read_split(data, split=recipe.data.check, task=recipe.task)
    check_split(held)
    pictures = LabelledPictures(training, recipe.data, seed=recipe.seed)
    run = TaskRun(out)
    run.check(recipe, data=training, bundle=bundle)
    check_folder(out)
    shares = pictures.shares() if recipe.task == "segment" else None
    networks = Networks(recipe, bundle, fabric, classes=len(training.classes), shares=shares)
    trainer = _Trainer(fabric, recipe, networks=networks, pictures=pictures, held=held, run=run, report=report)
    found = run.run.load()
    state = State(stage="teach")
    if found is not None:
        put_weights(networks.trained(recipe), found[0])
        state = found[2]
    elif recipe.lead is not None:
        take_teacher(recipe, networks, pictures)
    run.begin(recipe, data=training, bundle=bundle)  # only now: what was refused above leaves no folder behind
    deadline = time.monotonic() + stop_after_s
    for name in STAGES[STAGES.index(state.stage) : STAGES.index(until) + 1]:
        if name != state.stage:
            state.stage, state.step, found = name, 0, None
        resumed = found[1] if found else None
        with holding(out):
            done = trainer.stage(name, state=state, resumed=resumed, deadline=deadline)
        if not done:
            return {"finished": False, "images": state.images, "scores": run.scores()}
    if until != STAGES[-1]:  # the run may have been beyond that stage already
        return run.report() or {"finished": False, "images": state.images, "scores": run.scores()}
    if pictures.unreadable:
        told = f"{len(pictures.unreadable)} cannot be read and taught nothing: {pictures.unreadable[0]}"
        report(Progress("pictures", 0, 0, 0.0, message=told))
    final = {
        "finished": True,
        "images": state.images,
        **state.spent().told(),
        "pictures": pictures.count,
        "task_epochs": recipe.task_epochs,
        "distil_epochs": recipe.distil_epochs,
        "scores": run.scores(),
    }
    run.finish(part_weights(networks.trained(recipe)), final)
    return final


@final
class _Trainer:
    """What all stages share."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: TaskRecipe,
        *,
        networks: Networks,
        pictures: LabelledPictures,
        held: DataSet,
        run: TaskRun,
        report: Callable[[Progress], None],
    ) -> None:
        self.fabric, self.recipe, self.networks = fabric, recipe, networks
        self.pictures, self.held, self.run, self.report = pictures, held, run, report
        self.board = Board(run.folder / "tensorboard")

    def stage(self, name: str, *, state: State, resumed: dict[str, Any] | None, deadline: float) -> bool:
        """Run one stage to its end; False when the deadline came first."""
        recipe, networks = self.recipe, self.networks
        stage: HeadStage = {"teach": recipe.teach, "distil": recipe.distil, "learn": recipe.learn}[name]
        epochs = recipe.distil_epochs if name == "distil" else recipe.task_epochs
        count = max(1, round(epochs * self.pictures.count / stage.batch)) if epochs else 0
        if name == "teach" and recipe.lead is not None:
            count = 0
        if name == "distil" and state.step == 0 and resumed is None:
            networks.begin_as_teacher()
        if count == 0:
            return True
        learning, averaged = self._learning(name)
        optimizer = optimizer_of(stage, learning)
        thaw(learning, frozen=averaged)
        if resumed is not None:
            optimizer.load_state_dict(resumed["optimizer"])
            put_weights(learning, resumed["live"])
            set_random_state(resumed, self.fabric.device)
        batches = self.pictures.batches(state.step, count, batch=stage.batch, stream=STAGES.index(name))
        every = max(1, round(recipe.check_every * self.pictures.count / stage.batch))
        clock, saved, since = Clock(self.fabric), time.monotonic(), (state.step, time.monotonic())
        for image_u8, truth in batches:
            done = state.step / count
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * rate_at(stage, done)
            parts = self._lose(name, stage, image_u8, truth, step=state.step, learning=learning)
            loss = torch.stack(list(parts.values())).sum()
            if not bool(torch.isfinite(loss)):
                raise RunError(f"{name}: the loss is {loss.item()} at step {state.step}; lower {name}.learning_rate")
            optimizer.zero_grad()
            self.fabric.backward(loss)
            if stage.clip is not None:
                nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], stage.clip)
            optimizer.step()
            average(averaged, learning, share=share_kept(stage.average, state.step + 1))
            state.advance(images=stage.batch, spent=clock.lap())
            now = time.monotonic()
            if state.step % 10 == 0 or state.step == count:
                speed = (state.step - since[0]) * stage.batch / max(now - since[1], 1e-6)
                since = (state.step, now)
                self._tell(name, state=state, stage=stage, count=count, loss=loss.item(), parts=parts, speed=speed)
            last = state.step == count
            if last or state.step % every == 0:
                self._check(name, state=state, stage=stage, count=count)
                since = (state.step, clock.restart())
            if now - saved > CHECKPOINT_SECONDS or now > deadline or last:
                saved = now
                trainer = {
                    "optimizer": optimizer.state_dict(),
                    "live": part_weights(learning),
                    **random_state(self.fabric.device),
                }
                self.run.run.save(part_weights(networks.trained(recipe)), trainer, state)
                if now > deadline and not last:
                    return False
        return True

    def _learning(self, name: str) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
        """Return copies that learn, and the modules that hold their running means, by name."""
        parts = self.networks.trained(self.recipe)
        ours = ("teacher", "teacher_backbone") if name == "teach" else ("head", "backbone", "decoder")
        averaged = {key: part for key, part in parts.items() if key in ours}
        return {key: copy.deepcopy(part) for key, part in averaged.items()}, averaged

    def _lose(
        self,
        name: str,
        stage: HeadStage,
        image_u8: Tensor,
        truth: Boxes | Tensor,
        *,
        step: int,
        learning: dict[str, nn.Module],
    ) -> dict[str, Tensor]:
        networks, device = self.networks, self.fabric.device
        size = (image_u8.shape[-2], image_u8.shape[-1])
        true: Any = Boxes(*(one.to(device) for one in truth)) if isinstance(truth, Boxes) else truth.to(device)
        with self.fabric.autocast():
            if name == "teach":
                maps = self._maps(networks.pictures(image_u8), learning.get("teacher_backbone"))
                return self._parts(learning["teacher"], maps, true, size=size)
            head: Any = learning["head"]
            level_b = networks.packets.draw_levels(len(image_u8), seed=(self.recipe.seed, STAGES.index(name), step))
            weight = stage.distil if isinstance(stage, TaskStage) else 1.0
            clean = networks.pictures(image_u8) if weight or networks.packets.head is not None else None
            latent = networks.packets.latent(image_u8, level_b, feature=clean)
            decoder, backbone = learning.get("decoder"), learning.get("backbone")
            if decoder is None:
                with torch.no_grad():
                    feature = networks.decoder(latent)
            else:
                feature = decoder(latent)
            raw = head(
                self._maps(feature, backbone or networks.backbone, grad=decoder is not None or backbone is not None)
            )
            parts: dict[str, Tensor] = {}
            if weight and clean is not None:
                with torch.no_grad():
                    wanted = networks.teacher_head.eval()(networks.teacher_backbone(clean))
                apart = head.apart(raw, wanted, size=size)
                parts.update({f"apart_{key}": weight * value for key, value in apart.items()})
            if isinstance(stage, TaskStage):
                parts.update(head.loss(raw, true, size=size))
            return parts

    def _parts(self, head: Any, maps: list[Tensor], truth: Any, *, size: tuple[int, int]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = head.loss(head(maps), truth, size=size)
        return found

    def _maps(self, feature: Tensor, backbone: nn.Module | None, *, grad: bool | None = None) -> list[Tensor]:
        own = backbone is not None if grad is None else grad
        with torch.set_grad_enabled(own):
            maps: list[Tensor] = (backbone or self.networks.teacher_backbone)(feature)
        return maps

    def _tell(
        self,
        name: str,
        *,
        state: State,
        stage: HeadStage,
        count: int,
        loss: float,
        parts: dict[str, Tensor],
        speed: float,
    ) -> None:
        values = {"loss": round(loss, 5), **{key: round(value.item(), 5) for key, value in parts.items()}}
        self.run.run.log({"stage": name, "step": state.step, "images": state.images, **values, "images_per_s": speed})
        self.board.add({f"{name}/{key}": value for key, value in values.items()}, images=state.images)
        self.report(Progress(name, state.step * stage.batch, count * stage.batch, loss, images_per_s=speed))

    def _check(self, name: str, *, state: State, stage: HeadStage, count: int) -> None:
        networks = self.networks
        head = networks.teacher_head if name == "teach" else networks.head

        def maps_of(image_u8: Tensor) -> list[Tensor]:
            with self.fabric.autocast():
                if name == "teach":
                    maps: list[Tensor] = networks.teacher_backbone(networks.pictures(image_u8))
                else:
                    levels = networks.packets.levels
                    level_b = torch.full((len(image_u8),), levels[len(levels) // 2], device=self.fabric.device)
                    maps = networks.backbone(networks.decoder(networks.packets.latent(image_u8, level_b)))
            return [one.float() for one in maps]

        with torch.no_grad():
            scores = check(
                head,
                maps_of,
                self.held,
                side=self.recipe.data.side,
                multiple=MULTIPLE,
                strides=tuple(level.stride for level in networks.levels),
            )
        self.run.run.log({"stage": name, "step": state.step, "images": state.images, "scores": scores})
        self.board.add({f"{name}/{key}": value for key, value in scores.items()}, images=state.images)
        words = ", ".join(f"{key} {value:.1f} %" for key, value in scores.items())
        told = f"after {state.step * stage.batch / self.pictures.count:.0f} epochs on {self.recipe.data.check}: {words}"
        self.report(Progress(name, state.step * stage.batch, count * stage.batch, 0.0, message=told))
