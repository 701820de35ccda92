"""A student of the paper's published code, imported: the same symbols, features and answers as that code gives itself.

    python benchmarks/published.py --python OTHER/bin/python [--photos DIR] --out reports/published.json

--python is that of an environment with sc2bench (`python -m venv OTHER; OTHER/bin/pip install sc2bench==0.1.1`, which
brings a torch and a CompressAI of its own). It builds a ResNet-50 with the paper's bottleneck, gives it random weights
(medians, divisive normalisation and batch norm included), writes a checkpoint, and runs crops through its own code.
Here `splitcodec import-checkpoint` and `export` do the rest, and both are compared. Trained weights are not needed for
that, and could not be had where this was written.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outcome import exit_code

import numpy as np
import torch

from report import pictures_of, ready, write
from splitcodec.cli.show import print_json
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import SettingsError
from splitcodec.evaluation.golden import make_golden
from splitcodec.training.build import build_student, build_teacher
from splitcodec.training.export import export
from splitcodec.training.published import take
from splitcodec.training.recipe import read_recipe
from splitcodec.training.run import Run
from splitcodec.training.validate import bits_of
from splitcodec.wire.bundle import Bundle

RECIPE = Path(__file__).parents[1] / "recipes" / "paper" / "resnet50_beta1.28.yaml"
SIDE = 224
CLOSE = 1e-4
"""Of the largest value: what two builds of torch may differ by in float32."""

_THERE = """
import argparse, importlib.metadata, json, sys
import numpy as np, torch, torchvision
from sc2bench.models.backbone import splittable_resnet
folder = sys.argv[1]
torch.manual_seed(3)
bottleneck = {"key": "FPBasedResNetBottleneck", "kwargs": {}}
model = splittable_resnet(bottleneck, resnet_name="resnet50", skips_avgpool=False, skips_fc=False).eval()
layer = model.bottleneck_layer
coder = layer.entropy_bottleneck
with torch.no_grad():
    for name, one in model.named_parameters():
        if name.endswith(("gamma", "beta")):
            one.add_(torch.rand_like(one) * 0.05)
        if "factor" in name:
            one.copy_(torch.randn_like(one) * 0.5)
    layer.encoder[4].weight.mul_(20)
    coder.quantiles[:, 0, 1] = 2 * torch.randn(24)
    coder.quantiles[:, 0, 0], coder.quantiles[:, 0, 2] = coder.quantiles[:, 0, 1] - 12, coder.quantiles[:, 0, 1] + 12
    for one in model.modules():
        if isinstance(one, torch.nn.BatchNorm2d):
            one.running_mean.normal_(0, 0.1)
            one.running_var.uniform_(0.5, 1.5)
            one.weight.uniform_(0.5, 1.5)
torch.save({"model": model.state_dict(), "optimizer": {}, "args": argparse.Namespace(epochs=0)}, folder + "/student.pt")
torch.save(torchvision.models.resnet50().state_dict(), folder + "/teacher.pth")
image = torch.from_numpy(np.load(folder + "/crops.npy")).permute(0, 3, 1, 2) / 255
mean, std = (torch.tensor(one)[:, None, None] for one in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
model.update()
with torch.no_grad():
    x = (image - mean) / std
    y = layer.encoder(x)
    median = coder._get_medians().detach().view(1, -1, 1, 1)
    symbols = coder.quantize(y, "symbols", median)
    coded = layer.encode(x)
    feature = layer.decoder(coder.decompress(coded["strings"][0], coded["shape"]))
    bits = -coder(y, training=False)[1].log2().sum((1, 2, 3))
    np.savez(folder + "/found.npz", symbols=symbols.numpy(), feature=feature.numpy(), logits=model(x).numpy(),
             bits=bits.numpy())
names = ("sc2bench", "compressai", "torch", "torchvision")
print(json.dumps({name: importlib.metadata.version(name) for name in names}))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 where anything differs or is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, metavar="COMMAND")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="default: those of the demo")
    parser.add_argument("--most", type=int, default=8, metavar="N", help="photographs")
    parser.add_argument("--out", type=Path, default=Path("reports/published.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    command = shlex.split(options.python)
    if not command or shutil.which(command[0]) is None:
        raise SettingsError(f"--python {options.python!r}: no such program; give that of an environment with sc2bench")
    ready(options.out)
    report = measure(options, command)
    options.python = Path(command[0]).name
    write(report, options.out, name="published.py", options=options)
    print_json(report)
    return 0 if report["same"] else 2


@torch.no_grad()
def measure(options: argparse.Namespace, command: Sequence[str]) -> dict[str, Any]:
    """Return the report; `command` starts the other Python."""
    pictures = pictures_of(options.photos, most=options.most)
    crops = np.stack([np.asarray(one.convert("RGB").resize((SIDE, SIDE))) for one in pictures])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "crops.npy", crops)
        done = subprocess.run([*command, "-c", _THERE, name], capture_output=True, text=True, check=False)
        if done.returncode:
            line = (done.stderr.strip().splitlines() or ["no word of why"])[-1]
            raise SettingsError(f"--python {options.python!r}: {line}; has it sc2bench?")
        theirs = np.load(folder / "found.npz")
        shots = folder / "photos"
        shots.mkdir()
        for n, one in enumerate(pictures):
            one.convert("RGB").save(shots / f"{n}.png")
        recipe = read_recipe(RECIPE, changes=(f"teacher.weights={folder / 'teacher.pth'}", "data.holdout=0"))
        take(recipe, folder / "student.pt", photos=[shots], out=folder / "run")
        kept = Run(folder / "run").recipe()
        teacher = build_teacher(kept)
        student = build_student(kept, teacher)
        student.load_state_dict(Run(folder / "run").weights())
        student.eval()
        tail = student.tail
        if tail is None:
            raise SettingsError(f"{RECIPE}: the recipe tunes no tail")
        stem = teacher.stem(torch.from_numpy(crops).permute(0, 3, 1, 2) / 255)
        symbols = student.symbols(stem, 0)
        feature = student.reproduce(torch.from_numpy(theirs["symbols"]).float(), 0)
        bits = [bits_of(student.tabled(), one[None], level=0) for one in symbols]

        def golden(bundle: Bundle) -> bytes:
            return make_golden(Device(bundle, threads=1), Edge(bundle, threads=1), pictures[:2])

        bundle = export(folder / "run", folder / "bundle", golden=golden)
        device, edge = Device(bundle, threads=1), Edge(bundle, threads=1)
        packets = [device.pack_latent(device.encoder.latent_chw(one[None]), level=0) for one in crops]
        first = [edge.answer(one)["answers"]["classify"][0]["index"] for one in packets]
    off = np.abs(symbols.numpy() - theirs["symbols"])
    found = {
        "symbols": int(off.size),
        "symbols_equal": float((off == 0).mean()),
        "furthest_off": int(off.max()),
        "feature_off": _off(feature.numpy(), theirs["feature"]),
        "logits_off": _off(tail(feature)[0].numpy(), theirs["logits"]),
        "code_length_off": _off(np.array(bits), theirs["bits"]),
        "answers_equal": int((np.array(first) == theirs["logits"].argmax(1)).sum()),
    }
    same = max(found["feature_off"], found["logits_off"], found["code_length_off"]) < CLOSE
    return {
        "there": json.loads(done.stdout.strip().splitlines()[-1]),
        "photographs": len(pictures),
        **found,
        "packet_bytes_mean": float(np.mean([len(one) for one in packets])),
        "same": bool(same and found["symbols_equal"] > 1 - CLOSE and found["answers_equal"] == len(pictures)),
    }


def _off(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> float:
    """Return the largest difference in terms of the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


if __name__ == "__main__":
    sys.exit(main())
