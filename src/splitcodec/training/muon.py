"""Muon: steps of a kernel with all singular values alike (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

Adam scales a step number by number; what few directions of a kernel say drowns the others. Muon makes the momentum's
singular values equal, by five rounds of a Newton-Schulz iteration, so rare directions learn as fast as frequent ones.
A thin encoder that learns a larger one's latent needs a tenth of the pictures for the same loss (docs/LOG.md).

Steps are as large as Adam's would be (root mean square 0.2 times the learning rate: Liu et al., "Muon is scalable for
LLM training", arXiv 2502.16982), so both share one learning rate. `torch.optim.Muon` takes matrices alone; this takes
kernels of convolutions, a row for each output channel, and leaves the rest (depthwise kernels, norms, biases, priors,
gains) to Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from splitcodec.training.processes import multiplies_bf16

ROUNDS: Final = 5
FACTORS: Final = (3.4445, -4.7750, 2.0315)
"""Of the iteration `a X + (b X X' + c (X X')^2) X`, as published: they bring values to 0.7 to 1.2 fast, not to 1."""
SIZE: Final = 0.2
"""Root mean square of a step in learning rates: about that of Adam."""


BROAD: Final = 128
"""Matrices whose smaller side has so many rows are evened in bfloat16, as published, where that is quick: the rounds
need no more digits, and kernels of 512 x 512 channels otherwise take longer than the step's own gradient."""


def is_kernel(parameter: nn.Parameter) -> bool:
    """Whether a parameter is a convolution's kernel (out, in, height, width) that mixes channels."""
    return parameter.ndim == 4 and parameter.shape[0] > 1 and parameter.shape[1] > 1


def evened(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors and singular values near 1 (of zeros: zeros)."""
    a, b, c = FACTORS
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.float().T if tall else matrix.float()
    x = x / x.norm().clamp_min(1e-12)
    if len(x) >= BROAD and multiplies_bf16():
        x = x.bfloat16()
    for _ in range(ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).float()


@final
class Muon(torch.optim.Adam):
    """Muon for kernels of convolutions, Adam for everything else, at one learning rate."""

    def __init__(
        self, params: Iterable[dict[str, Any]], *, lr: float, momentum: float, betas: tuple[float, float]
    ) -> None:
        super().__init__(params, lr=lr, betas=betas)
        self._momentum = momentum

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # Adam's
        """Take a step; gradients of kernels are used up by it (set to None)."""
        with torch.no_grad():
            for group in self.param_groups:
                for kernel in filter(is_kernel, group["params"]):
                    if kernel.grad is not None:
                        self._step(kernel, kernel.grad, rate=group["lr"])
                        kernel.grad = None
        lost: float | None = super().step(closure)
        return lost

    def _step(self, kernel: nn.Parameter, gradient: Tensor, *, rate: float) -> None:
        state = self.state[kernel]
        if "mean" not in state:
            state |= {"mean": torch.zeros_like(kernel), "step": torch.zeros(())}  # Adam looks for a step in every state
        state["step"] += 1
        mean: Tensor = state["mean"].lerp_(gradient, 1 - self._momentum)
        ahead = gradient.lerp(mean, self._momentum).flatten(1)  # Nesterov's
        step = evened(ahead) * (SIZE * max(ahead.shape) ** 0.5)
        kernel.add_(step.view_as(kernel), alpha=-rate)
