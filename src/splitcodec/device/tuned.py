"""Beside stage 2 of 7: which encoder and how many threads this machine is fastest with, measured once and recorded.

The two encoders of a bundle give slightly different symbols, so which one runs must not depend on the moment: `tune`
measures and writes its choice into a file of the user, and devices opened with encoder="tuned" read it. The choice
counts for this bundle's encoder files, this version of ONNX Runtime and this processor alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.ahead import cores
from splitcodec.device.encoder import FILES, Encoder, Precision
from splitcodec.errors import OutputError, SettingsError
from splitcodec.session import MOST_THREADS, processor, runtime_version
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.codings import Codings
from splitcodec.wire.durable import write_atomically
from splitcodec.wire.packet import OVERHEAD

GAIN: Final = 0.95
"""What INT8, or another thread, must get below, of the time without it, to be chosen."""
_MAX_BYTES = 1 << 20
_ROUNDS = 30
_ELSEWHERE = "set XDG_STATE_HOME to a folder that can be written, or use --dry-run"


@final
@dataclass(frozen=True, slots=True)
class Timing:
    """Median milliseconds of one encoder with that many threads; `refused` says why it may not be used."""

    encoder: Precision
    threads: int
    ms: float
    refused: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for one bundle on this machine, and why."""

    encoder: Precision
    threads: int
    why: str


@final
@dataclass(frozen=True, slots=True)
class CodingTiming:
    """Mean milliseconds and bytes of one coding of some pictures' symbols."""

    coding: int
    ms: float
    bytes: float


@final
@dataclass(frozen=True, slots=True)
class CodingTimings:
    """What both codings take on this machine at one level; by context comes last."""

    level: int
    timings: tuple[CodingTiming, ...]

    @property
    def pays_below_kbit_per_s(self) -> float | None:
        """Return the rate below which fewer bytes by context save more time than they cost; None where never."""
        if len(self.timings) < 2:
            return None
        channel, context = self.timings
        saved, spent = channel.bytes - context.bytes, context.ms - channel.ms
        return round(8 * saved / spent, 1) if saved > 0 and spent > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Return the timings as JSON values."""
        return {**asdict(self), "pays_below_kbit_per_s": self.pays_below_kbit_per_s}


@final
@dataclass(frozen=True, slots=True)
class Tuning:
    """All timings, the choice, and the file that it was recorded in (None: it was not)."""

    bundle: str
    processor: str
    runtime: str
    timings: tuple[Timing, ...]
    choice: Choice
    recorded: Path | None

    def to_json(self) -> dict[str, Any]:
        """Return the tuning as JSON values."""
        return {**asdict(self), "recorded": None if self.recorded is None else str(self.recorded)}


def state_file() -> Path:
    """Return the user's file of choices: $XDG_STATE_HOME/splitcodec/tune.json, else below ~/.local/state.

    Raises SettingsError for a user without a home folder.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    try:
        root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:  # no entry in passwd, as in containers
        raise SettingsError("this user has no home folder; set XDG_STATE_HOME to a folder, or use --dry-run") from None
    return root / "splitcodec" / "tune.json"


def tuned(bundle: Bundle) -> Choice | None:
    """Return what `tune` chose for this bundle on this machine; None if it never ran, or the file cannot be read."""
    try:
        found = _read(state_file()).get(_key(bundle), {})
    except SettingsError:  # nowhere to have recorded it
        return None
    try:
        encoder, threads, why = found["encoder"], found["threads"], found["why"]
    except (TypeError, KeyError):
        return None
    if encoder not in FILES or type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        return None
    if not bundle.has(FILES[encoder]):
        return None
    return Choice(cast(Precision, encoder), threads, str(why))


def tune(
    bundle: Bundle,
    *,
    threads: Sequence[int] | None = None,
    refused: Mapping[Precision, str] | None = None,
    path: Path | None = None,
    record: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int], None] | None = None,
) -> Tuning:
    """Time the bundle's encoders on this machine and record the fastest, INT8 and more threads only where they pay.

    `threads` are the numbers to try (none: 1, 2, 4, ... up to the cores), `refused` names encoders that may not be used
    here, and why. Raises OutputError if the choice cannot be written, SettingsError where there is no place for it.
    """
    where = None if not record else state_file() if path is None else path
    if where is not None:
        _write(where, _read(where))  # what cannot be recorded is said before it is measured
    counts = tuple(threads) if threads is not None else _thread_counts()
    wanted = [(kind, count) for kind in FILES if bundle.has(FILES[kind]) for count in counts]
    encoders = [Encoder(bundle, precision=kind, threads=count) for kind, count in wanted]
    crop = bundle.manifest.crop
    image_bhwc = np.random.default_rng(0).integers(0, 256, (1, crop, crop, 3), dtype=np.uint8)
    seconds_er = _timed(encoders, image_bhwc, clock=clock, progress=progress)
    why_not = refused or {}
    timings = tuple(
        Timing(kind, count, round(1000 * float(np.median(seconds_r)), 3), why_not.get(kind))
        for (kind, count), seconds_r in zip(wanted, seconds_er, strict=True)
    )
    choice = chosen(timings)
    if where is not None:
        _write(where, {**_read(where), _key(bundle): asdict(choice)})
    return Tuning(bundle.ident, processor(), runtime_version(), timings, choice, where)


def time_codings(bundle: Bundle, symbols_nchw: Sequence[NDArray[np.int32]], *, level: int) -> CodingTimings:
    """Time every coding that the bundle has on the symbols (C, H, W) of some pictures at a level."""
    coder = Codings(bundle.tables[0], bundle.contexts)
    seconds_kn = np.zeros((len(coder.ids), len(symbols_nchw)))
    size_kn, samples_kr = np.zeros_like(seconds_kn), [list[NDArray[np.float64]]() for _ in coder.ids]
    for turn in range(-1, _ROUNDS // 3):
        for k, coding in enumerate(sorted(coder.ids)):
            for n, symbols_chw in enumerate(symbols_nchw):
                begin = time.perf_counter()
                size_kn[k, n] = len(coder.encode(symbols_chw, level, coding=coding)) + OVERHEAD
                seconds_kn[k, n] = time.perf_counter() - begin
            if turn >= 0:
                samples_kr[k].append(seconds_kn[k].copy())
    timings = [
        CodingTiming(coding, round(1000 * float(np.median(samples, axis=0).mean()), 3), float(sizes.mean()))
        for coding, samples, sizes in zip(sorted(coder.ids), samples_kr, size_kn, strict=True)
    ]
    return CodingTimings(level, tuple(timings))


def chosen(timings: Sequence[Timing]) -> Choice:
    """Return the fastest, but fp32 and fewer threads where others gain less than 5 %."""
    best = {
        kind: _fewest([one for one in timings if one.encoder == kind and not one.refused])
        for kind in FILES
        if any(one.encoder == kind and not one.refused for one in timings)
    }
    fp32, int8 = best["fp32"], best.get("int8")
    if int8 is not None and int8.ms <= GAIN * fp32.ms:
        why = f"INT8 takes {int8.ms:.2f} ms, fp32 {fp32.ms:.2f} ms"
        return Choice("int8", int8.threads, why)
    refusal = next((one.refused for one in timings if one.encoder == "int8" and one.refused), None)
    if refusal is not None:
        why = f"INT8 may not be used here: {refusal}"
    elif int8 is None:
        why = "the bundle has no INT8 encoder"
    else:
        why = f"INT8 takes {int8.ms:.2f} ms, fp32 {fp32.ms:.2f} ms: not worth its rounding"
    return Choice("fp32", fp32.threads, why)


def _fewest(timings: Sequence[Timing]) -> Timing:
    best = min(timings, key=lambda one: one.threads)
    for one in sorted(timings, key=lambda one: one.threads):
        if one.ms <= GAIN * best.ms:
            best = one
    return best


def _timed(
    encoders: Sequence[Encoder],
    image_bhwc: NDArray[np.uint8],
    *,
    clock: Callable[[], float],
    progress: Callable[[int, int], None] | None,
) -> list[list[float]]:
    """Run all encoders in turns, so that a busy moment hits all of them; the first turns do not count."""
    seconds_er: list[list[float]] = [[] for _ in encoders]
    for turn in range(-3, _ROUNDS):
        for encoder, seconds in zip(encoders, seconds_er, strict=True):
            begin = clock()
            encoder.latents_bchw(image_bhwc)
            if turn >= 0:
                seconds.append(clock() - begin)
        if progress is not None:
            progress(turn + 4, _ROUNDS + 3)
    return seconds_er


def _thread_counts() -> tuple[int, ...]:
    return tuple(2**power for power in range(8) if 2**power <= cores())


def _key(bundle: Bundle) -> str:
    files = bundle.manifest.files
    encoders = [files[name].sha256[:16] if name in files else "-" for name in FILES.values()]
    return " | ".join((bundle.fingerprint.hex(), *encoders, f"onnxruntime {runtime_version()}", processor()))


def _read(path: Path) -> dict[str, Any]:
    """Return the choices in a file; none if there is no such file or it holds something else."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, choices: Mapping[str, Any]) -> None:
    """Write all choices; whoever reads at the same time, or after a loss of power, sees the old file or the new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot record the choice in {path}: {error.strerror or error}; {_ELSEWHERE}") from None
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_atomically(path, json.dumps(choices, indent=1).encode(), part=part)
    except OutputError as error:
        raise OutputError(f"cannot record the choice: {error}, or {_ELSEWHERE}") from None
