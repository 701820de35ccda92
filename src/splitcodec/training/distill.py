"""Two-stage distillation, top to bottom (Matsubara, Yang, Levorato, Mandt, WACV 2022, section 3).

Stage 1: squeeze, prior and decoder learn to reproduce the teacher's features at the cut and at later layers, and its
answer, at the least rate: `errors + lambda_l * kilobytes`, all levels in every batch. Stage 2: encoder and prior are
frozen and the decoder is tuned by the same errors with weights of their own. The tail stays the teacher's own, untouched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as nnf
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from splitcodec.model.bottleneck import Bottleneck
from splitcodec.model.frozen import fast
from splitcodec.model.student import Student
from splitcodec.model.teacher import Teacher, load_teacher
from splitcodec.model.transforms import Decoder, Squeeze
from splitcodec.training.data import Photographs, centre_crops, find_photographs, split_holdout
from splitcodec.training.recipe import Recipe, StageRecipe
from splitcodec.training.run import Run, State
from splitcodec.training.tabulate import Counts, count_symbols, dump_counts, empty_counts

CHECKPOINT_SECONDS = 120.0
COUNTED = 2000  # photographs whose symbols are counted for the tables


class Errors(NamedTuple):
    """What the decoded feature loses, before weights."""

    feature: Tensor
    later: Tensor
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress bar shows."""

    stage: str
    images: int
    of_images: int
    loss: float
    kilobytes: tuple[float, ...]
    """Estimated code length of each level in thousands of bytes (an estimate: sizes are counted in packets alone)."""
    images_per_s: float
    message: str = ""


def build_teacher(recipe: Recipe) -> Teacher:
    """Load and cut the recipe's teacher."""
    teacher, classes = recipe.teacher, 1000
    if teacher.classes is not None:
        classes = len([line for line in teacher.classes.read_text(encoding="utf-8").splitlines() if line.strip()])
    return load_teacher(
        teacher.model,
        weights=teacher.weights,
        cut=teacher.cut,
        stem=recipe.student.stem,
        later=teacher.later,
        classes=classes,
        crop=teacher.crop,
    )


def build_student(recipe: Recipe, teacher: Teacher) -> Student:
    """Build the recipe's student, untrained."""
    sizes, levels = recipe.student, recipe.levels
    stride = teacher.stem_stride * 2**sizes.halvings
    decoder = sizes.decoder
    return Student(
        Squeeze(teacher.stem_width, sizes.channels, widths=sizes.widths, halvings=sizes.halvings),
        Bottleneck(len(levels.lambdas), sizes.channels, first_gain=levels.first_gain, last_gain=levels.last_gain),
        Decoder(
            sizes.channels,
            teacher.width,
            width=decoder.width,
            blocks=decoder.blocks,
            up=stride // teacher.stride,
            up_width=decoder.up_width,
            up_blocks=decoder.up_blocks,
        ),
    )


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
    Raises RecipeError, DataError, TeacherError, RunError, OutputError.
    """
    fabric = Fabric(accelerator="auto", devices=devices, precision=recipe.precision)  # type: ignore[arg-type]
    fabric.launch()
    fabric.seed_everything(recipe.seed + fabric.global_rank, verbose=False)
    paths = find_photographs(photos)
    training, held_out = split_holdout(paths, recipe.data.holdout, seed=recipe.seed)
    run = Run(out)
    run.begin(recipe, photographs=len(paths), folders=[p.name for p in photos])

    teacher = build_teacher(recipe)
    for half in teacher.modules():
        half.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    student = build_student(recipe, teacher).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    crop = recipe.teacher.crop
    source = Photographs(
        training,
        crop=crop,
        smallest_crop=recipe.data.smallest_crop,
        jitter=recipe.data.jitter,
        memory_mb=recipe.data.memory_mb,
        seed=recipe.seed,
    )
    check = centre_crops(held_out, resize=recipe.teacher.resize, crop=crop)
    trainer = _Trainer(fabric, recipe, teacher=teacher, student=student, run=run, report=report)
    found = run.load()
    state = State()
    if found is not None:
        student.load_state_dict(found[0])
        state = found[2]
    deadline = time.monotonic() + stop_after_s
    stages = [("stage1", recipe.stage1)] + ([("stage2", recipe.stage2)] if recipe.stage2 else [])
    for name, stage in stages:
        if name < state.stage:
            continue
        if name > state.stage:
            state.stage, state.step, found = name, 0, None
        done = trainer.stage(name, stage, source, check, state, found[1] if found else None, deadline)
        if not done:
            return {"finished": False, "images": state.images}
    some = training[:: max(1, len(training) // COUNTED)]
    counts = trainer.count(centre_crops(some, resize=recipe.teacher.resize, crop=crop))
    final = {
        "finished": True,
        "images": state.images,
        "seconds": round(state.seconds, 1),
        "photographs": len(training),
        "holdout": trainer.validate(check),
    }
    if fabric.is_global_zero:
        run.keep_counts(dump_counts(counts))
        run.finish(student.state_dict(), final)
    return final


class _Trainer:
    """What both stages share."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        *,
        teacher: Teacher,
        student: Student,
        run: Run,
        report: Callable[[Progress], None],
    ) -> None:
        self.fabric, self.recipe, self.student = fabric, recipe, student
        self.run, self.report = run, report
        on_cpu = fabric.device.type == "cpu"
        self.stem, self.rest, self.tail = (fast(half) if on_cpu else half for half in teacher.modules())
        self.lambdas = torch.tensor(recipe.levels.lambdas, device=fabric.device)
        self.board = SummaryWriter(str(run.folder / "tensorboard")) if fabric.is_global_zero else None

    def scale(self, image_u8: Tensor) -> Tensor:
        image = image_u8.to(self.fabric.device, memory_format=torch.channels_last)
        return (image.float() / 255 - self.recipe.teacher.mean) / self.recipe.teacher.std

    def errors(self, found: Tensor, feature: Tensor, *, behind: bool) -> Errors:
        """Compare a decoded feature with the teacher's: at the cut, and behind it where asked for."""
        spread = feature.float().var(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
        at_cut = ((found.float() - feature.float()).square() / spread).mean()
        zero = at_cut.new_zeros(())
        if not behind:
            return Errors(at_cut, zero, zero)
        with torch.no_grad():
            wanted = self.tail(feature)
        got = self.tail(found)
        (logits, *later), (logits_t, *later_t) = (got, wanted) if isinstance(got, tuple) else ((got,), (wanted,))
        apart = [_relative(a, b) for a, b in zip(later, later_t, strict=True)]
        kl = nnf.kl_div(
            nnf.log_softmax(logits.float(), 1), nnf.log_softmax(logits_t.float(), 1), log_target=True, reduction="none"
        )
        return Errors(at_cut, torch.stack(apart).sum() if apart else zero, kl.sum(1).mean())

    def stage(  # noqa: PLR0915  # one loop, in plain sight
        self,
        name: str,
        stage: StageRecipe,
        source: Photographs,
        check: Tensor,
        state: State,
        resumed: dict[str, Any] | None,
        deadline: float,
    ) -> bool:
        """Run one stage to its end; False when the deadline came first."""
        fabric, student = self.fabric, self.student
        tuning = name == "stage2"
        student.squeeze.requires_grad_(not tuning)
        student.bottleneck.requires_grad_(not tuning)
        groups = _groups(student, stage, tuning=tuning)
        model, optimizer = fabric.setup(student, torch.optim.Adam(groups, lr=stage.learning_rate, betas=(0.9, 0.99)))
        if resumed is not None:
            optimizer.load_state_dict(resumed["optimizer"])
            torch.set_rng_state(resumed["random"])
        steps = max(1, stage.images // (stage.batch * fabric.world_size))
        stream = (1 if tuning else 0) * 1024 + fabric.global_rank
        levels = len(self.recipe.levels.lambdas)
        clock, saved, since = time.monotonic(), time.monotonic(), (state.step, time.monotonic())
        student.train()
        if tuning:
            student.squeeze.eval()
        for image_u8 in source.batches(state.step, steps, batch=stage.batch, stream=stream):
            factor = _schedule(state.step / steps, stage.warmup)
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * group["times"] * factor
            with torch.no_grad(), fabric.autocast():
                stem = self.stem(self.scale(image_u8))
                feature = self.rest(stem)
            behind = state.step >= stage.tail_from * steps
            reproduced = model(stem)
            with fabric.autocast():
                errors = self.errors(reproduced.feature_bchw, feature, behind=behind)
            kilobytes_l = reproduced.bits_b.view(levels, -1).mean(1) / 8000
            rate = (self.lambdas * kilobytes_l).mean()
            distortion = stage.feature * errors.feature + stage.later * errors.later + stage.logits * errors.logits
            loss = distortion if tuning else distortion + rate
            optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(model, optimizer, max_norm=5.0, error_if_nonfinite=False)
            optimizer.step()
            state.step += 1
            state.images += stage.batch * fabric.world_size
            now = time.monotonic()
            state.seconds += now - clock
            clock = now
            if state.step % 20 == 0 or state.step == steps:
                speed = (state.step - since[0]) * stage.batch * fabric.world_size / max(now - since[1], 1e-6)
                since = (state.step, now)
                self._tell(name, state, steps * stage.batch, loss, errors, kilobytes_l, speed)
            if now - saved > CHECKPOINT_SECONDS or now > deadline or state.step == steps:
                saved = now
                if fabric.is_global_zero:
                    trainer = {"optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
                    self.run.save(student.state_dict(), trainer, state)
                if now > deadline and state.step < steps:
                    return False
        if fabric.is_global_zero and len(check):
            held = self.validate(check)
            self.run.log({"stage": name, "step": state.step, "images": state.images, "holdout": held})
            agreement = ", ".join(f"{p['agreement']:.1f} % at {p['kilobytes']:.2f} kB" for p in held)
            self.report(Progress(name, state.images, state.images, 0.0, (), 0.0, f"agreement held out: {agreement}"))
        return True

    def _tell(
        self, name: str, state: State, of: int, loss: Tensor, errors: Errors, kilobytes_l: Tensor, speed: float
    ) -> None:
        if not self.fabric.is_global_zero:
            return
        sizes = tuple(round(k, 3) for k in kilobytes_l.tolist())
        values = {"loss": loss.item(), **{k: v.item() for k, v in errors._asdict().items()}}
        self.run.log({"stage": name, "step": state.step, "images": state.images, **values, "kilobytes": sizes})
        if self.board is not None:
            for key, value in values.items():
                self.board.add_scalar(f"{name}/{key}", value, state.images)
            for level, size in enumerate(sizes):
                self.board.add_scalar(f"rate_kilobytes/level{level}", size, state.images)
        self.report(Progress(name, state.step * self.recipe.stage1.batch, of, values["loss"], sizes, speed))

    @torch.no_grad()
    def validate(self, check: Tensor) -> list[dict[str, float]]:
        """Code held-out crops with rounding: agreement with the teacher in per cent, and estimated size, per level."""
        student, bottleneck = self.student, self.student.bottleneck
        if not len(check):
            return []
        student.eval()
        levels = len(self.recipe.levels.lambdas)
        same, bits, seen = torch.zeros(levels), torch.zeros(levels), 0
        for part in check.split(32):
            with self.fabric.autocast():
                stem = self.stem(self.scale(part))
                wanted = _logits(self.tail(self.rest(stem))).argmax(1)
                for level in range(levels):
                    symbols = student.symbols(stem, level)
                    got = _logits(self.tail(student.reproduce(symbols, level))).argmax(1)
                    same[level] += (got == wanted).sum().cpu()
                    bits[level] += _bits(bottleneck, symbols, level)
            seen += len(part)
        student.train()
        return [
            {
                "level": level,
                "agreement": 100 * same[level].item() / seen,
                "kilobytes": bits[level].item() / seen / 8000,
            }
            for level in range(levels)
        ]

    @torch.no_grad()
    def count(self, crops: Tensor) -> Counts:
        """Count symbols of training photographs, cropped as the device crops them."""
        counts = empty_counts(self.student.bottleneck.levels, self.student.bottleneck.channels)
        self.student.eval()
        for part in crops.split(32):
            stem = self.stem(self.scale(part))
            for level in range(len(counts)):
                count_symbols(counts, level, self.student.symbols(stem, level))
        return counts


def _logits(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def _bits(bottleneck: Bottleneck, symbols_bchw: Tensor, level: int) -> float:
    """Code length of rounded symbols under one level's prior."""
    low, high = int(symbols_bchw.min()), int(symbols_bchw.max())
    bits_cs = -torch.log2(torch.from_numpy(bottleneck.masses(low, high)[level]))
    index = (symbols_bchw.long() - low).cpu()
    channel = torch.arange(bottleneck.channels)[None, :, None, None].expand_as(index)
    return float(bits_cs[channel, index].sum())


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error relative to the variance of what is wanted."""
    wanted = wanted.float()
    return (found.float() - wanted).square().mean() / wanted.var().clamp_min(1e-6)


def _schedule(done: float, warmup: float) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup))))


def _groups(student: Student, stage: StageRecipe, *, tuning: bool) -> list[dict[str, Any]]:
    decoder = {"params": list(student.decoder.parameters()), "times": 1.0}
    if tuning:
        return [decoder]
    squeeze = {"params": list(student.squeeze.parameters()), "times": 1.0}
    prior = {"params": list(student.bottleneck.prior.parameters()), "times": stage.prior_rate}
    gains = {"params": [student.bottleneck.log_gain_lc], "times": stage.gain_rate}
    return [decoder, squeeze, prior, gains]
