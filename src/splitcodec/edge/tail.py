"""Stage 7 of 7: features -> the task's answer.   before: edge/decoder.py   after: nothing

The tail is the teacher's own second half, untouched; what it says of good features is what the teacher would say.
"""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from splitcodec.errors import GraphError, SettingsError, TaskError
from splitcodec.session import Graph
from splitcodec.wire.answer import GUESSES, Guess
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.given import whole
from splitcodec.wire.task import KINDS

TASKS = ("classify", *KINDS)  # what this version knows how to read out of a tail
LOGITS = "logits"


@final
class Tail:
    """The bundle's `tail_<task>.onnx`, opened; safe to share between threads.

    Raises TaskError for a task that the bundle or this version does not have, BundlePart, BundleHash or BundleUnsafe
    for the file, GraphError if it does not open.
    """

    def __init__(self, bundle: Bundle, task: str, *, threads: int | None = None) -> None:
        if task not in bundle.manifest.tasks or task != "classify":
            raise unknown_task(task, bundle)
        self._graph = Graph(bundle.graph(f"tail_{task}"), name=f"{bundle.ident}: tail_{task}.onnx", threads=threads)
        self._label_n = bundle.manifest.classes
        names = self._graph.output_names
        self.maps: tuple[str, ...] = tuple(name for name in names if name != LOGITS) if len(names) > 1 else ()
        """Layers whose features the graph gives beside the logits, for other tasks' heads."""
        if self.maps and LOGITS not in names:
            raise GraphError(
                f"{self._graph.name} gives {', '.join(self.maps)[:200]}, none of them {LOGITS!r}; export it again"
            )

    @property
    def batches(self) -> bool:
        """Say whether the graph takes several features at once: its first axis is dynamic."""
        return self._graph.batches

    def logits(self, feature_bchw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the tail's raw output, one logit per class: float32 (B, classes). Raises GraphError."""
        return self.outputs(feature_bchw)[0]

    def outputs(self, feature_bchw: NDArray[np.float32]) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        """Return the logits, and the features of the layers `maps` by name. Raises GraphError."""
        outputs = self._graph.outputs(np.ascontiguousarray(feature_bchw))
        logit_bn: NDArray[np.float32] = outputs.pop(LOGITS if self.maps else self._graph.output_names[0])
        expected = (len(feature_bchw), len(self._label_n))
        if logit_bn.shape != expected or not np.isfinite(logit_bn).all():
            raise GraphError(
                f"{self._graph.name} gave {logit_bn.dtype} {logit_bn.shape}, expected finite numbers {expected}; "
                "the bundle is wrong, export it again"
            )
        return logit_bn, outputs

    def classify(self, feature_bchw: NDArray[np.float32], *, top: int = GUESSES) -> list[list[Guess]]:
        """Return the `top` most probable classes of each of B features, best first; all classes if there are fewer.

        Raises SettingsError for `top` below 1, GraphError.
        """
        check_top(top)
        return self.guesses(self.logits(feature_bchw), top=top)

    def guesses(self, logit_bn: NDArray[np.float32], *, top: int = GUESSES) -> list[list[Guess]]:
        """Return the `top` most probable classes of each row of logits, best first. Raises SettingsError.

        Probabilities have six decimals: an answer may go over a weak link.
        """
        check_top(top)
        p_bn = softmax(logit_bn)
        best_bk = np.argsort(-p_bn, axis=1, kind="stable")[:, :top]
        return [
            [Guess(index=int(n), label=self._label_n[n], p=round(float(p_n[n]), 6)) for n in best_k]
            for p_n, best_k in zip(p_bn, best_bk, strict=True)
        ]


def softmax(logit_bn: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return probabilities over the last axis, in double precision."""
    shifted_bn = logit_bn.astype(np.float64) - logit_bn.max(axis=-1, keepdims=True)
    power_bn = np.exp(shifted_bn)
    return np.asarray(power_bn / power_bn.sum(axis=-1, keepdims=True))


def check_top(top: int) -> None:
    """Refuse a number of guesses below 1."""
    if whole(top) is None or top < 1:
        raise SettingsError(f"top {top!r:.40}; expected at least 1 guess")


def unknown_task(task: str, bundle: Bundle) -> TaskError:
    """Return the refusal of a task, naming those that the bundle has."""
    known = ", ".join(one for one in bundle.manifest.tasks if one in TASKS) or "none that this version knows"
    return TaskError(f"task {task[:40]!r}; {bundle.ident} has {known}")
