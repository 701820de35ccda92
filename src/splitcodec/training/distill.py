"""Two-stage distillation, top to bottom (Matsubara, Yang, Levorato, Mandt, WACV 2022, section 3).

Stage 1: squeeze, prior and decoder learn to reproduce the teacher's features at the cut and at later layers, and its
answer, at the least rate: `errors + lambda_l * kilobytes`, all levels in every batch. Stage 2: encoder and prior are
frozen and the decoder is tuned by the same errors with weights of their own. The tail stays the teacher's own,
untouched. Recipes of rivals and ablations minimise something else (`objective.py`) or tune more (`optimise.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from lightning_fabric import Fabric
from torch import nn

from splitcodec.errors import RunError
from splitcodec.evaluation.output import legible
from splitcodec.layouts.folders import find_photographs
from splitcodec.model.depthwise import quicken
from splitcodec.model.student import Student
from splitcodec.training.begin import begin
from splitcodec.training.board import Board
from splitcodec.training.build import Halves, build_student, build_teacher
from splitcodec.training.data import (
    Crops,
    Photographs,
    centre_crops,
    names_digest,
    split_holdout,
)
from splitcodec.training.earlier import earlier_runs, images_before, totals
from splitcodec.training.end import end, place
from splitcodec.training.labels import labels_for
from splitcodec.training.lead import Lead
from splitcodec.training.levelling import held_out_loss, judged
from splitcodec.training.objective import Loss, Lost, Objective
from splitcodec.training.optimise import check_finite, learning_rate, prepare, random_state, set_random_state
from splitcodec.training.pace import Pace
from splitcodec.training.processes import first_says, holding, launched, own_noise, scale, set_scale, together
from splitcodec.training.recipe import Recipe
from splitcodec.training.resident import Resident, resident
from splitcodec.training.run import Run, State
from splitcodec.training.spent import Clock
from splitcodec.training.stages import LatentsStage, Stage
from splitcodec.training.validate import validate
from splitcodec.wire.durable import check_folder

CHECKPOINT_SECONDS = 120.0
SAMPLED = 128  # photographs that tell how the teacher's features are distributed


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress bar shows."""

    stage: str
    images: int
    of_images: int
    loss: float
    kilobytes: tuple[float, ...] = ()
    """Estimated code length of each level's symbols in thousands of bytes, without a packet's 12 around them."""
    images_per_s: float = 0.0
    message: str = ""


def train(
    recipe: Recipe,
    *,
    photos: list[Path],
    out: Path,
    report: Callable[[Progress], None],
    devices: int = 1,
    stop_after_s: float = math.inf,
) -> dict[str, Any]:
    """Train, or go on with, the run in `out`; returns the final report (also report.json).

    Killed at any time, the same call resumes at the last checkpoint. `stop_after_s` ends the session early, resumable.
    With several `devices` the program is started once more for each (DDP); all but the first return an empty report.
    Raises RecipeError, DataError, TeacherError, RunError, OutputError.
    """
    earlier = earlier_runs(recipe)
    paths = sorted(find_photographs(photos))
    training, held_out = split_holdout(paths, recipe.data.holdout, seed=recipe.seed)
    run, names = Run(out), names_digest(paths, photos)
    run.check(recipe, photographs=len(paths), names=names)  # what can be refused is refused before there are several
    check_folder(out)
    for _, stage in recipe.stages():
        Pace(stage, devices=devices)
    found = run.load()
    if found is not None and found[2].step and found[2].devices != devices:
        raise RunError(f"{out}: this run counts the steps of --devices {found[2].devices}; go on with as many")
    fabric = launched(devices, precision=recipe.precision)
    fabric.seed_everything(recipe.seed + fabric.global_rank, verbose=False)
    teacher = build_teacher(recipe)
    student = _placed(build_student(recipe, teacher), fabric.device)
    halves = Halves(fabric, recipe, teacher=teacher)
    crop = recipe.teacher.crop
    labels = labels_for(recipe, training, say=_about("photographs", report) if fabric.is_global_zero else None)
    photographs = Photographs.of(
        recipe, training, labels=labels, unreadable=() if found is None else found[2].unreadable
    )
    source = resident(photographs, fabric.device)
    check = centre_crops(held_out, resize=recipe.teacher.resize, crop=crop, labels=labels_for(recipe, held_out))
    lead = Lead(recipe.lead, recipe, fabric=fabric) if recipe.lead is not None else None
    trainer = _Trainer(fabric, recipe, halves=halves, student=student, lead=lead, run=run, report=report)
    state, lost = State(), None
    if found is None:
        image_u8 = source.first(SAMPLED)
        lost = begin(recipe, student, teacher=teacher, halves=halves, image_u8=image_u8, lead=lead)
    else:
        student.load_state_dict(found[0])
        state = found[2]
    if fabric.is_global_zero:  # only now: what was refused above leaves no folder behind
        run.begin(recipe, photographs=len(paths), folders=[legible(p.resolve().name) for p in photos], names=names)
        if lost is not None:
            run.log({"stage": "start", "latent" if lead else "feature": lost})
    deadline = time.monotonic() + stop_after_s
    for name, stage in recipe.stages():
        if name < state.stage:
            continue
        if name > state.stage:
            state.begin_stage(name)
            found = None
        resumed = found[1] if found else None
        with together(fabric), holding(out, first=fabric.is_global_zero):
            done = trainer.stage(
                name, stage, source=source, check=check, state=state, resumed=resumed, deadline=deadline
            )
        if not done:
            return {"finished": False, "images": state.images}
    if not fabric.is_global_zero:
        return {}
    place(recipe, student, halves=halves, paths=training, run=run, say=_about("levels", report))
    broken = set(state.unreadable)
    if broken:
        _about("photographs", report)(f"{len(broken)} cannot be read and taught nothing: {training[min(broken)]}")
    final = {
        **totals(earlier, images=state.images, spent=state.spent()),
        "photographs": len(training) - len(broken),
        **({} if labels is None else {"labelled": sum(one >= 0 for n, one in enumerate(labels) if n not in broken)}),
        **judged(
            state.readings,
            stages=[one for one, _ in recipe.stages()],
            before=images_before(earlier),
            photographs=len(training),
        ),
        "validation": state.readings,
        "holdout": validate(student, halves, check=check.image_u8, autocast=fabric.autocast),
    }
    return end(recipe, student, halves=halves, paths=training, run=run, final={"finished": True, **final})


def _about(what: str, report: Callable[[Progress], None]) -> Callable[[str], None]:
    return lambda told: report(Progress(what, 0, 0, 0.0, message=told))


def _placed(student: Student, device: torch.device) -> Student:
    """Bring a student to where it learns."""
    student.to(device).to(memory_format=torch.channels_last)
    if device.type == "cpu":
        quicken(student.squeeze)
    return student


@final
class _Trainer:
    """What both stages share."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        *,
        halves: Halves,
        student: Student,
        lead: Lead | None,
        run: Run,
        report: Callable[[Progress], None],
    ) -> None:
        self.fabric, self.halves, self.student = fabric, halves, student
        self.run, self.report, self.seed = run, report, recipe.seed
        self.objective = Objective(fabric, recipe, halves=halves, lead=lead)
        self.board = Board(run.folder / "tensorboard")

    def stage(
        self,
        name: str,
        stage: Stage,
        *,
        source: Photographs | Resident,
        check: Crops,
        state: State,
        resumed: dict[str, Any] | None,
        deadline: float,
    ) -> bool:
        """Run one stage to its end; False when the deadline came first."""
        fabric, student = self.fabric, self.student
        everything = stage.tune in ("all", "encoder") or (stage.tune is None and name == "stage1")
        optimizer = prepare(student, stage, everything=everything)
        learner: nn.Module = student.squeeze if isinstance(stage, LatentsStage) else student
        model, optimizer = fabric.setup(learner, optimizer)
        lose = self.objective.of(name, stage, model)
        if resumed is not None:
            optimizer.load_state_dict(resumed["optimizer"])
            set_random_state(resumed, fabric.device)
            set_scale(resumed, fabric)
            own_noise(fabric, seed=self.seed, step=state.step)
        pace = Pace(stage, devices=fabric.world_size)
        stream = (int(name.removeprefix("stage")) - 1) * 1024 + fabric.global_rank
        images_each = pace.images_each
        if state.step == 0:
            state.devices = fabric.world_size
            self._measure(name, stage, lose, check=check, state=state, share=0.0)
        clock, saved, since = Clock(fabric), time.monotonic(), (state.step, time.monotonic())
        last, window = pace.last_step(state), stage.window
        for image_u8, label_b in source.batches(state.step, last, batch=stage.batch, stream=stream, window=window):
            done = pace.done(state)
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * group["times"] * learning_rate(stage, done)
            lost = lose(image_u8, label_b, done=done)
            optimizer.zero_grad()
            fabric.backward(lost.loss)
            if stage.clip is not None:
                fabric.clip_gradients(model, optimizer, max_norm=stage.clip, error_if_nonfinite=False)
            optimizer.step()
            state.advance(images=images_each, spent=clock.lap())
            now, over = time.monotonic(), pace.over(state)
            if state.step % 20 == 0 or over:
                speed = (state.step - since[0]) * images_each / max(now - since[1], 1e-6)
                since = (state.step, now)
                bar = Progress(
                    name, state.step * images_each, pace.of_images(state), lost.loss.item(), images_per_s=speed
                )
                self._tell(bar, state=state, lost=lost)
            if pace.due(done, state):
                self._measure(name, stage, lose, check=check, state=state, share=pace.done(state))
            late = deadline < math.inf and first_says(fabric, now > deadline)
            if now - saved > CHECKPOINT_SECONDS or late or over:
                saved = now
                check_finite(student, stage=name, step=state.step)
                if fabric.is_global_zero:
                    state.processor_seconds += clock.of_others()
                    state.unreadable = source.unreadable
                    self._save(optimizer, state)
                if late and not over:
                    return False
            if over:
                break
        if fabric.is_global_zero and len(check.image_u8):
            self._hold(name, check=check, state=state, seen=state.step * images_each)
        return True

    def _save(self, optimizer: torch.optim.Optimizer, state: State) -> None:
        trainer = {"optimizer": optimizer.state_dict(), **random_state(self.fabric.device), **scale(self.fabric)}
        self.run.save(self.student.state_dict(), trainer, state)

    def _hold(self, name: str, *, check: Crops, state: State, seen: int) -> None:
        """Say how often the student agrees with the teacher on held-out crops."""
        held = validate(self.student, self.halves, check=check.image_u8, autocast=self.fabric.autocast)
        self.run.log({"stage": name, "step": state.step, "images": state.images, "holdout": held})
        agreement = ", ".join(f"{p['agreement']:.1f} % at {p['bytes_estimate']:,.0f} bytes" for p in held)
        self.report(Progress(name, seen, seen, 0.0, message=f"agreement held out: {agreement} (estimated)"))

    def _measure(self, name: str, stage: Stage, lose: Loss, *, check: Crops, state: State, share: float) -> None:
        """Note the loss on held-out crops."""
        held = held_out_loss(self.student, lose, check, batch=stage.batch, window=stage.window)
        if held is None:
            return
        reading = {"stage": name, "share": round(share, 4), "images": state.images, **held._asdict()}
        state.readings.append(reading)
        if self.fabric.is_global_zero:
            self.run.log({"validation": reading})
            parts = {f"{name}/validation_{part}": value for part, value in held.parts.items()}
            self.board.add({f"{name}/validation": held.loss, **parts}, images=state.images)

    def _tell(self, now: Progress, *, state: State, lost: Lost) -> None:
        check_finite(self.student, stage=now.stage, step=state.step)
        if not self.fabric.is_global_zero:
            return
        sizes = tuple(round(k, 3) for k in lost.kilobytes_l.tolist())
        values = {"loss": now.loss, **{k: v.item() for k, v in lost.parts.items()}}
        self.run.log({"stage": now.stage, "step": state.step, "images": state.images, **values, "kilobytes": sizes})
        rates = {f"rate_kilobytes/level{level}": size for level, size in enumerate(sizes)}
        self.board.add({**{f"{now.stage}/{key}": value for key, value in values.items()}, **rates}, images=state.images)
        self.report(replace(now, kilobytes=sizes))
