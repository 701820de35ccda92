"""What noise, blur, light and a camera's own JPEG do: top-1 and bytes on corrupted photographs, codecs beside ours.

    python benchmarks/corruptions.py --data DIR --out reports/corruptions.json

Corruptions and their constants are those of ImageNet-C (Hendrycks and Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", ICLR 2019), at severities 1, 3 and 5, made of the crop that
encoder, codecs and network get. A codec stands at its cheapest setting that scores at
least as well as our level on clean photographs, by --rates. `make results` turns the report into a section of
docs/results.md.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

from outcome import exit_code

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pages.corruptions import head, rows
from pages.reports import read_report
from report import at_least_one, ready, write
from splitcodec.ahead import cores
from splitcodec.cli.show import complain, print_table, progress
from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.errors import DataError, PictureError, SettingsError
from splitcodec.evaluation.codecs import Codec, codecs_named
from splitcodec.evaluation.labels import Labelled, labelled_pictures
from splitcodec.evaluation.paired import difference

SEVERITIES: Final = (1, 3, 5)
SEED: Final = 2019
RATES: Final = Path("reports/rate_accuracy/rd.json")

Unit = NDArray[np.float64]  # a picture from 0 to 1, (H, W, 3)
Corrupt = Callable[[NDArray[np.uint8], float, np.random.Generator], Unit | Image.Image]


def _noisy(image_hwc: NDArray[np.uint8], sigma: float, random: np.random.Generator) -> Unit:
    return _unit(image_hwc) + random.normal(0.0, sigma, image_hwc.shape)


def _shot(image_hwc: NDArray[np.uint8], photons: float, random: np.random.Generator) -> Unit:
    return random.poisson(_unit(image_hwc) * photons) / photons


def _blurred(image_hwc: NDArray[np.uint8], sigma: float, _: np.random.Generator) -> Image.Image:
    return Image.fromarray(image_hwc).filter(ImageFilter.GaussianBlur(sigma))


def _bright(image_hwc: NDArray[np.uint8], more: float, _: np.random.Generator) -> Unit:
    picture = _unit(image_hwc)
    value = picture.max(axis=2, keepdims=True)  # of hue, saturation and value
    return np.asarray(picture * (np.minimum(value + more, 1.0) / np.maximum(value, 1e-9)))


def _flat(image_hwc: NDArray[np.uint8], contrast: float, _: np.random.Generator) -> Unit:
    picture = _unit(image_hwc)
    mean = picture.mean(axis=(0, 1), keepdims=True)
    return np.asarray((picture - mean) * contrast + mean)


def _jpeg(image_hwc: NDArray[np.uint8], quality: float, _: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(image_hwc).save(file, "JPEG", quality=int(quality))
    return Image.open(file)


def _pixelated(image_hwc: NDArray[np.uint8], share: float, _: np.random.Generator) -> Image.Image:
    picture = Image.fromarray(image_hwc)
    small = (int(picture.width * share), int(picture.height * share))
    return picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST)


CORRUPTIONS: Final[dict[str, tuple[Corrupt, tuple[float, ...]]]] = {  # constants at severities 1 to 5
    "Gaussian noise": (_noisy, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot noise": (_shot, (60, 25, 12, 5, 3)),
    "Gaussian blur": (_blurred, (1, 2, 3, 4, 6)),
    "brightness": (_bright, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_flat, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "JPEG": (_jpeg, (25, 18, 15, 10, 7)),
    "pixelation": (_pixelated, (0.6, 0.5, 0.4, 0.3, 0.25)),
}


class Case(NamedTuple):
    """A corruption at a severity; none and 0 are clean photographs."""

    corruption: str | None = None
    severity: int = 0

    def of(self, image_hwc: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
        """Return the photograph of that number corrupted, uint8 (H, W, 3); always the same."""
        if self.corruption is None:
            return image_hwc
        corrupt, constants = CORRUPTIONS[self.corruption]
        random = np.random.default_rng([SEED, number, list(CORRUPTIONS).index(self.corruption), self.severity])
        made = corrupt(image_hwc, constants[self.severity - 1], random)
        if isinstance(made, Image.Image):
            return np.asarray(made.convert("RGB"), dtype=np.uint8)
        return np.rint(255 * np.clip(made, 0.0, 1.0)).astype(np.uint8)


CASES: Final = (Case(), *(Case(name, severity) for name in CORRUPTIONS for severity in SEVERITIES))

Seen = list[list[tuple[int, int]]]  # per case, of the teacher and every method: class, bytes


class Bench:
    """A bundle at one level, and codecs at one setting each, before the same network."""

    def __init__(self, bundle: str, level: int | None, codecs: Sequence[tuple[Codec, int]]) -> None:
        self.device, self._edge = Device(bundle, threads=1), Edge(bundle, threads=1)
        self.level = self.device.checked_level(level)
        self._codecs = codecs

    def see(self, number: int, one: Labelled) -> Seen | PictureError:
        """Return what a photograph is taken for, in every case."""
        try:
            image_hwc = self.device.crop(one.path)[0]
        except PictureError as error:
            return error
        return [self._in_case(case.of(image_hwc, number)) for case in CASES]

    def _in_case(self, image_hwc: NDArray[np.uint8]) -> list[tuple[int, int]]:
        latent_chw = self.device.encoder.latent_chw(image_hwc[None])
        packet = self.device.pack_latent(latent_chw, level=self.level)
        ours = self._edge.answer(packet, tasks=["classify"], top=1)["answers"]["classify"][0]["index"]
        seen = [(self._top(image_hwc), 0), (ours, len(packet))]
        for codec, setting in self._codecs:
            (file,) = codec.encode([image_hwc], setting)
            (back_hwc,) = codec.decode([file])
            seen.append((self._top(back_hwc), len(file)))
        return seen

    def _top(self, image_hwc: NDArray[np.uint8]) -> int:
        return self._edge.picture_answer(image_hwc[None], top=1)["answers"]["classify"][0]["index"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled photographs")
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--level", type=int, metavar="N", help="default: the bundle's")
    parser.add_argument("--codecs", default="avif,jpeg", metavar="C,...")
    parser.add_argument("--rates", type=Path, default=RATES, metavar="FILE", help=f"default: {RATES}")
    parser.add_argument("--most", type=int, metavar="N", help="photographs")
    parser.add_argument("--out", type=Path, default=Path("reports/corruptions.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    at_least_one("--most", options.most)
    ready(options.out)
    report = measure(options)
    write(report, options.out, name="corruptions.py", options=options)
    print_table(
        f"{report['bundle']}, level {report['level']}: {report['photographs']} photographs", head(report), rows(report)
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the report. Photographs that cannot be read are left out, and complained of."""
    level = Device(options.bundle, threads=1).checked_level(options.level)
    codecs = settings(read_report(options.rates), level, codecs_named([c for c in options.codecs.split(",") if c]))
    bench = Bench(options.bundle, level, codecs)
    labelled = labelled_pictures(options.data, bench.device.bundle.manifest)[: options.most]
    seen, labels = [], []
    with progress() as bar, ThreadPoolExecutor(cores()) as pool:
        task = bar.add_task("corrupting", total=len(labelled), note="")
        for one, found in zip(labelled, pool.map(bench.see, range(len(labelled)), labelled), strict=True):
            bar.advance(task)
            if isinstance(found, PictureError):
                complain(found)
            else:
                seen.append(found)
                labels.append(one.index)
    if not seen:
        raise DataError(f"none of {len(labelled)} photographs in {options.data} can be read; give others")
    seen_ncm2, label_n = np.array(seen), np.array(labels)
    methods = ["splitcodec", *(codec.name for codec, _ in codecs)]
    return {
        "bundle": bench.device.bundle.ident,
        "level": level,
        "data": options.data.name,
        "photographs": len(seen),
        "settings": {codec.name: f"{codec.dial} {setting}" for codec, setting in codecs},
        "cases": [_case(case, seen_ncm2[:, c], label_n, methods) for c, case in enumerate(CASES)],
    }


def settings(rates: dict[str, Any], level: int, codecs: Sequence[Codec]) -> list[tuple[Codec, int]]:
    """Return each codec's cheapest setting for whole crops that scores at least as well as our level, clean.

    Raises SettingsError where the report has none.
    """
    points = rates["points"]
    ours = [one["top1"] for one in points if (one["method"], one["setting"]) == ("splitcodec", f"level {level}")]
    found = []
    for codec in codecs:
        values = {f"{codec.dial} {value}": value for value in codec.sweep}
        as_good = [one for one in points if one["method"] == codec.name and one["setting"] in values]
        as_good = [one for one in as_good if ours and one["top1"] >= ours[0]]
        if not as_good:
            raise SettingsError(
                f"--rates: no setting of {codec.name} scores as well as level {level}; give the report of "
                "`make arena`, or leave the codec out"
            )
        found.append((codec, values[min(as_good, key=lambda one: float(one["bytes_mean"]))["setting"]]))
    return found


def _case(
    case: Case, seen_nm2: NDArray[np.int64], label_n: NDArray[np.int64], methods: Sequence[str]
) -> dict[str, Any]:
    class_nm, teacher_n = seen_nm2[:, :, 0], seen_nm2[:, 0, 0]
    return {
        "corruption": case.corruption,
        "severity": case.severity,
        "teacher_top1": 100 * float((teacher_n == label_n).mean()),
        "methods": {
            name: {
                "bytes_mean": float(seen_nm2[:, m, 1].mean()),
                "top1": 100 * float((class_nm[:, m] == label_n).mean()),
                "minus_teacher": list(difference(class_nm[:, m] == label_n, teacher_n == label_n)),
            }
            for m, name in enumerate(methods, start=1)
        },
    }


def _unit(image_hwc: NDArray[np.uint8]) -> Unit:
    return image_hwc.astype(np.float64) / 255


if __name__ == "__main__":
    sys.exit(main())
