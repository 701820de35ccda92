"""Several processes of one run (DDP): how they start, what they agree on, and what is said when one of them ends.

The first process reads, refuses and writes; the others are the same command over again, started by Fabric.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Literal, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from splitcodec.errors import RunError

_Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
_STDOUT, _STDERR = 1, 2  # descriptors
_LOST: Final = ("closed by peer", "reset by peer", "broken pipe", "timed out", "nccl")  # in what gloo and NCCL say


def multiplies_bf16() -> bool:
    """Say whether what trains here, a GPU or else this processor, multiplies in bf16.

    A processor that does not, such as x86 without AVX-512, imitates it in ten to twenty times what 32 bits take.
    """
    return torch.accelerator.is_available() or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # no public name


def feasible(precision: str) -> _Precision:
    """Return the precision to train in: 32-true for bf16-mixed where only imitated, else what is asked for.

    Of 16-mixed, which is for GPUs, Fabric makes bf16-mixed on a processor.
    """
    return cast(_Precision, precision) if multiplies_bf16() else "32-true"


def launched(devices: int, *, precision: str) -> Fabric:
    """Start as many processes as there are to be. Raises RunError where there are not so many devices."""
    try:
        fabric = Fabric(accelerator="auto", devices=devices, precision=feasible(precision))
    except MisconfigurationException as error:
        raise RunError(f"--devices {devices}: {' '.join(str(error).split())}; ask for fewer") from error
    cores = max(2, os.cpu_count() or 1)
    if fabric.device.type == "cpu" and devices > cores:
        raise RunError(f"--devices {devices}: this processor has {cores} cores, and a process takes one; ask for fewer")
    logging.getLogger("lightning_fabric.utilities.distributed").setLevel(logging.WARNING)
    # a depthwise weight has several layouts that are one; the copy that DDP warns of is of a few numbers
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if devices > 1 and fabric.device.type == "cpu":
        _meet_here()
    with _aloud_on_stderr() if devices > 1 else nullcontext():
        fabric.launch()
    return fabric


@contextmanager
def _aloud_on_stderr() -> Iterator[None]:
    """Send what is written to stdout below Python to stderr: some versions of Gloo say there whom they have met."""
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    try:
        os.dup2(_STDERR, _STDOUT)
        yield
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)


def _meet_here() -> None:
    """Let processes of one machine talk over its loopback, unless GLOO_SOCKET_IFNAME says otherwise.

    Gloo would look for the address of the machine's name, and each process warns where that has none.
    """
    if loopback := {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback.pop())


def first_says(fabric: Fabric, flag: bool) -> bool:
    """Return the first process's flag in all of them: their clocks differ."""
    if fabric.world_size == 1:
        return flag
    told = torch.tensor([int(flag)], device=fabric.device)
    torch.distributed.broadcast(told, src=0)
    return bool(told.item())


def scale(fabric: Fabric) -> dict[str, Any]:
    """Return what losses are multiplied by in 16 bits, found while training; nothing in other precisions."""
    found = fabric.strategy.precision.state_dict()
    return {"scale": found} if found else {}


def set_scale(kept: Mapping[str, Any], fabric: Fabric) -> None:
    """Go on where `scale` was taken: found anew, the first steps would be lost."""
    if "scale" in kept:
        fabric.strategy.precision.load_state_dict(kept["scale"])


def own_noise(fabric: Fabric, *, seed: int, step: int) -> None:
    """Draw other random numbers than the first process, whose state is the one that a checkpoint keeps."""
    if fabric.global_rank:
        torch.manual_seed((seed * 1_000_003 + fabric.global_rank) * 1_000_003 + step)


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """Raise RunError when another process of the run has ended; without it, the sum of gradients never comes."""
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises has no type of its own on every back end
        if fabric.world_size == 1 or not any(one in str(error).lower() for one in _LOST):
            raise
        raise RunError(
            "another process of this run has ended; start the same command again, it goes on at the last checkpoint"
        ) from error


@contextmanager
def holding(folder: Path, *, first: bool = True) -> Iterator[None]:
    """Hold a run's folder against a second command on it, whose checkpoints would replace these; a kill lets go.

    The `first` process of several does. Raises RunError where it is held.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        first = False
    if not first:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder}: another process trains this run; let it end, or stop it first") from None
        except OSError:  # a disk without locks
            pass
        yield
    finally:
        os.close(handle)
