"""A run or bundle whose latent a smaller encoder learns to make: the same decoder, priors and gains from the start.

A thin encoder that begins at random is far from anything a decoder can use. Told the latent of a larger one that is
trained already, it needs neither decoder nor tail to learn most of what it can, and a step costs a third.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from splitcodec.errors import RecipeError, one_line
from splitcodec.model.student import Student
from splitcodec.session import Graph
from splitcodec.training.build import Halves, build_student, build_teacher
from splitcodec.training.earlier import is_run
from splitcodec.training.from_bundle import adopt_bundle, check_teacher, opened
from splitcodec.training.from_onnx import FromOnnx
from splitcodec.training.recipe import Recipe
from splitcodec.training.run import Run


@final
class Lead:
    """The student of another run or bundle, frozen. Raises RecipeError for another teacher."""

    def __init__(self, place: Path, recipe: Recipe, *, fabric: Fabric) -> None:
        self._place = place
        self._bundle = None if is_run(place) else opened("lead", place)
        if self._bundle is not None:
            model, name = self._bundle.graph("encoder"), "encoder.onnx"
            on_cpu = fabric.device.type == "cpu"
            self._encoder = (
                Graph(model, name=name, threads=torch.get_num_threads())
                if on_cpu
                else FromOnnx(model, name=name).to(fabric.device)
            )
            self._device = fabric.device
            gains = self._bundle.tables[0].gain_lc.copy()
        else:
            theirs = Run(place).recipe()
            teacher = build_teacher(theirs)
            self._student = build_student(theirs, teacher)
            self._student.load_state_dict(Run(place).weights())
            self._student.to(fabric.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
            self._halves = Halves(fabric, theirs, teacher=teacher)
            if theirs.teacher != recipe.teacher:
                raise RecipeError(f"lead: {place} has another teacher section; both must agree to the letter")
            gains = self._student.tabled().gains()
        share_c = torch.from_numpy(gains).to(fabric.device)[-1].square()
        self._share_c = share_c / share_c.mean()

    def adopt(self, student: Student, *, image_u8: Tensor, feature_bchw: Tensor, latent_bchw: Tensor) -> None:
        """Copy decoder, priors and gains into a student. Raises RecipeError where the sizes, or teachers, differ.

        Some crops uint8 (B, 3, H, W), the teacher's feature and the lead's latent of them serve a bundle.
        """
        if self._bundle is not None:
            check_teacher("lead", self._bundle, image_u8[:2], feature_bchw[:2])
            adopt_bundle("lead", self._bundle, student, latent_bchw)
            return
        try:
            student.bottleneck.load_state_dict(self._student.bottleneck.state_dict())
            student.decoder.load_state_dict(self._student.decoder.state_dict())
        except RuntimeError as error:
            raise RecipeError(
                f"lead: levels, channels or decoder differ from that run's ({one_line(error)}); make them the same"
            ) from error

    @torch.no_grad()
    def latent(self, image_u8: Tensor) -> Tensor:
        """Return the latent before gain, for pixels (B, 3, H, W)."""
        if self._bundle is not None:
            image_bhwc = image_u8.to(self._device).permute(0, 2, 3, 1)
            if isinstance(self._encoder, Graph):  # one by one: their maps stay in the processor's caches
                ones = image_bhwc.contiguous().numpy()
                return torch.from_numpy(np.concatenate([self._encoder(ones[i : i + 1]) for i in range(len(ones))]))
            out: Tensor = self._encoder(image_bhwc)
            return out
        return self._student.latent(self._halves.stem(self._halves.scale(image_u8)))

    def apart(self, latent_bchw: Tensor, wanted_bchw: Tensor) -> Tensor:
        """Return the squared error of a latent relative to the wanted one's variance, weighted by squared gains."""
        wanted = wanted_bchw.float()
        share = self._share_c.view(1, -1, 1, 1)
        error = ((latent_bchw.float() - wanted).square() * share).mean()
        spread = ((wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)).square() * share).mean()
        return error / spread.clamp_min(1e-12)
