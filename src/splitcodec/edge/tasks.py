"""Stage 7 of 7, for several tasks at once: features -> answers.   before: decoder.py   inside: tail, boxes, mask

The decoder ran once already; the backbone behind it runs once for all tasks that share it, however many are asked. A
task that brings its own decoder or backbone pays for it alone.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast, final

import numpy as np
from numpy.typing import NDArray

from splitcodec.edge.boxes import Found, find_boxes
from splitcodec.edge.mask import label_map
from splitcodec.edge.tail import TASKS, Tail, unknown_task
from splitcodec.errors import BundlePart, GraphError, TaskError
from splitcodec.session import Graph, JointGraph
from splitcodec.wire.answer import GUESSES, LEAST_REGION, LEAST_SCORE, Answers, Box, Mask, Region
from splitcodec.wire.bundle import Bundle
from splitcodec.wire.given import names
from splitcodec.wire.png import palette, write_png
from splitcodec.wire.task import TaskSpec

CLASSIFY = "classify"
DECODER = "decoder"
JOINT = "tail_classify"
"""The backbone of bundles whose classifier gives the later layers' features as well: then all three tasks share it."""
FURTHER_TASK = 2
"""What a task beside classification counts, in decodings with classification; measured: docs/server.md, Batching."""


class Answered(NamedTuple):
    """Answers for each picture of a batch, and the seconds that each stage took for all of them."""

    answers: list[Answers]
    seconds: dict[str, float]


class _Maps(NamedTuple):
    """A feature at the cut, and what the backbone made of it, by the graph's names for it and in its order."""

    feature_bchw: NDArray[np.float32]
    later: dict[str, NDArray[np.float32]]


@final
class Tasks:
    """All tails of a bundle, opened and run once; safe to share between threads.

    With `teacher`, the uncompressed task teachers' tails (`teacher_<task>.onnx`) in place of the students'.
    Raises BundlePart, BundleHash, BundleUnsafe, BundleFormat, GraphError.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, teacher: bool = False) -> None:
        self.bundle = bundle
        self._threads = threads
        known = [task for task in bundle.manifest.tasks if task in TASKS]
        self.classify = Tail(bundle, CLASSIFY, threads=threads) if CLASSIFY in known else None
        self.heads = {
            task: TaskTail(bundle, task, threads=threads, teacher=teacher) for task in known if task != CLASSIFY
        }
        self._teacher = teacher
        backbones = {head.backbone for head in self.heads.values()} - {"", JOINT}
        self._backbones = {name: self._open(name) for name in backbones}
        if self.classify is None and any(head.backbone == JOINT for head in self.heads.values()):
            raise BundlePart(f"{bundle.ident}: a task takes its maps from {JOINT}.onnx, but classify is no task of it")
        decoders = {head.spec.decoder for head in self.heads.values()} - {DECODER}
        self._decoders = {} if teacher else {name: self._open(name) for name in decoders}

    @property
    def names(self) -> tuple[str, ...]:
        """Return the tasks that can be asked for."""
        return ((CLASSIFY,) if self.classify is not None else ()) + tuple(self.heads)

    def check(self, tasks: Sequence[str] | None) -> tuple[str, ...]:
        """Return the tasks without doubles; none is ("classify",). Raises TaskError."""
        wanted = (CLASSIFY,) if tasks is None else names(tasks)
        if not wanted:
            raise TaskError(f"tasks {tasks!r:.40}; expected a list of at least one task")
        for task in wanted:
            if task not in self.names:
                raise unknown_task(task, self.bundle)
        return wanted

    def cost(self, tasks: Sequence[str]) -> int:
        """Return what answering `tasks`, which `check` gave, counts: 1 for the decoder, with classification or without.

        Each further task counts FURTHER_TASK, and 1 more if it brings a decoder of its own.
        """
        heads = [self.heads[task] for task in tasks if task != CLASSIFY]
        return 1 + sum(FURTHER_TASK + (head.spec.decoder != DECODER) for head in heads)

    def answer(
        self,
        feature_bchw: NDArray[np.float32],
        tasks: Sequence[str],
        *,
        latent_bchw: NDArray[np.float32] | None = None,
        top: int = GUESSES,
    ) -> Answered:
        """Return what each of several pictures' features say for `tasks`, which `check` gave.

        `latent_bchw` is what the decoder took; only tasks with a decoder of their own need it. Stages are "backbone"
        (its own time and that of further decoders), "tail" for classification, and each other task by its name.
        Raises GraphError.
        """
        found: list[dict[str, Any]] = [dict.fromkeys(tasks) for _ in feature_bchw]
        seconds: dict[str, float] = {}
        known: dict[tuple[str, str], _Maps] = {}
        for task in sorted(tasks, key=lambda one: one != CLASSIFY):  # its tail may give the others' maps
            begin = time.perf_counter()
            if task == CLASSIFY:
                assert self.classify is not None  # noqa: S101  # `check` saw to it
                logit_bn, later = self.classify.outputs(feature_bchw)
                known[DECODER, JOINT] = _Maps(feature_bchw, later)
                for one, guesses in zip(found, self.classify.guesses(logit_bn, top=top), strict=True):
                    one[task] = guesses
                seconds["tail"] = time.perf_counter() - begin
                continue
            head = self.heads[task]
            maps = self._maps(head, feature_bchw, latent_bchw, known=known)
            mapped = time.perf_counter()
            for one, answer in zip(found, head.answers(maps), strict=True):
                one[task] = answer
            seconds["backbone"] = seconds.get("backbone", 0.0) + mapped - begin
            seconds[task] = time.perf_counter() - mapped
        return Answered(cast("list[Answers]", found), seconds)

    def maps(
        self, task: str, feature_bchw: NDArray[np.float32], *, latent_bchw: NDArray[np.float32] | None = None
    ) -> list[NDArray[np.float32]]:
        """Return what a task's tail takes, from features of the shared decoder (or, for a teacher, of the head)."""
        return self._maps(self.heads[task], feature_bchw, latent_bchw, known={})

    def _maps(
        self,
        head: TaskTail,
        feature_bchw: NDArray[np.float32],
        latent_bchw: NDArray[np.float32] | None,
        *,
        known: dict[tuple[str, str], _Maps],
    ) -> list[NDArray[np.float32]]:
        decoder = DECODER if self._teacher else head.spec.decoder
        key = (decoder, head.backbone)
        if key not in known:
            feature = feature_bchw
            if decoder != DECODER:
                if latent_bchw is None:
                    raise GraphError(
                        f"{self.bundle.ident}: {head.spec.task} has a decoder of its own and needs latents"
                    )
                feature = self._decoders[decoder](np.ascontiguousarray(latent_bchw))
            later: dict[str, NDArray[np.float32]] = {}
            if head.backbone == JOINT:
                assert self.classify is not None  # noqa: S101  # opening saw to it
                later = self.classify.outputs(feature)[1]
            elif head.backbone:
                later = self._backbones[head.backbone].outputs(np.ascontiguousarray(feature))
            known[key] = _Maps(feature, later)
        return head.chosen(known[key])

    def _open(self, name: str) -> Graph:
        return Graph(self.bundle.graph(name), name=f"{self.bundle.ident}: {name}.onnx", threads=self._threads)


@final
class TaskTail:
    """One task's neck and head: `tail_<task>.onnx` or `teacher_<task>.onnx`, and what its output means."""

    def __init__(self, bundle: Bundle, task: str, *, threads: int | None, teacher: bool = False) -> None:
        self.spec: TaskSpec = bundle.task(task)
        self.backbone = self.spec.teacher_backbone if teacher else self.spec.backbone
        name = f"{'teacher' if teacher else 'tail'}_{task}"
        if not bundle.has(f"{name}.onnx"):
            raise BundlePart(f"{bundle.ident}: no {name}.onnx in it; export the task again")
        self._graph = JointGraph(bundle.graph(name), name=f"{bundle.ident}: {name}.onnx", threads=threads)
        self._palette_k3 = palette(len(self.spec.classes))

    def chosen(self, maps: _Maps) -> list[NDArray[np.float32]]:
        """Return what the tail takes of a backbone's outputs: those named like its layers, else all in their order.

        Raises GraphError for a classifier's graph without one of the layers, and for what are no maps.
        """
        layers = self.spec.layers[int(self.spec.keeps_feature) :]
        named = all(layer in maps.later for layer in layers)
        if self.backbone == JOINT and not named:
            gives = ", ".join(maps.later) or "logits alone"
            raise GraphError(
                f"{JOINT}.onnx gives {gives}; {self.spec.task} takes {', '.join(layers)}: export the task again"
            )
        later = [maps.later[layer] for layer in layers] if named else list(maps.later.values())
        taken = [maps.feature_bchw, *later] if self.spec.keeps_feature else later
        if not taken or any(one.ndim != 4 for one in taken):
            shapes = ", ".join(str(one.shape) for one in taken) or "none"
            raise GraphError(f"{self._graph.name} takes maps (B, C, H, W), {shapes} came; export the task again")
        return taken

    def boxes(self, maps: Sequence[NDArray[np.float32]], *, least: float = LEAST_SCORE) -> list[Found]:
        """Return the boxes of each picture in pixels of the network's input. Raises GraphError."""
        outputs = self._run(maps)
        size = self.size(maps)
        try:
            if (classes := outputs["scores"].shape[2]) != len(self.spec.classes):
                raise ValueError(f"{classes} classes, expected {len(self.spec.classes)}")
            return [
                find_boxes(score_nk, edge_n4, size=size, strides=self.spec.strides, least=least)
                for score_nk, edge_n4 in zip(outputs["scores"], outputs["edges"], strict=True)
            ]
        except (ValueError, KeyError, IndexError) as error:
            raise GraphError(f"{self._graph.name} breaks its contract ({error}); export it again") from None

    def label_maps(self, maps: Sequence[NDArray[np.float32]]) -> list[NDArray[np.uint8]]:
        """Return the label map of each picture's network input, uint8 (rows, cols). Raises GraphError."""
        logits = self._run(maps).get("logits")
        if logits is None or logits.ndim != 4 or logits.shape[1] != len(self.spec.classes) or not logits.size:
            raise GraphError(f"{self._graph.name} gives no logits of {len(self.spec.classes)} classes; export it again")
        return [label_map(logit_khw, size=self.size(maps)) for logit_khw in logits]

    def size(self, maps: Sequence[NDArray[np.float32]]) -> tuple[int, int]:
        """Return (rows, cols) of the network's input in pixels."""
        stride = self.spec.feature_stride
        return maps[0].shape[2] * stride, maps[0].shape[3] * stride

    def answers(self, maps: Sequence[NDArray[np.float32]]) -> list[list[Box]] | list[Mask]:
        """Return each picture's part of the answer. Raises GraphError."""
        if self.spec.task == "segment":
            return [self._mask(index_hw) for index_hw in self.label_maps(maps)]
        rows, cols = self.size(maps)
        whole = np.array([cols, rows, cols, rows], np.float32)
        return [
            [
                Box(
                    index=label,
                    label=self.spec.classes[label],
                    score=round(score, 4),
                    box=[round(side, 5) for side in sides],
                )
                for sides, score, label in zip(
                    np.clip(found.box_n4 / whole, 0, 1).tolist(),
                    found.score_n.tolist(),
                    found.label_n.tolist(),
                    strict=True,
                )
            ]
            for found in self.boxes(maps)
        ]

    def _mask(self, index_hw: NDArray[np.uint8]) -> Mask:
        share_k = np.bincount(index_hw.ravel(), minlength=len(self.spec.classes)) / index_hw.size
        regions = [
            Region(index=int(k), label=self.spec.classes[k], share=round(float(share_k[k]), 4))
            for k in np.argsort(-share_k, kind="stable")
            if share_k[k] >= LEAST_REGION
        ]
        png = base64.b64encode(write_png(index_hw, self._palette_k3)).decode("ascii")
        return Mask(size=list(index_hw.shape), png=png, classes=regions)

    def _run(self, maps: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        named = {f"map_{place}": np.ascontiguousarray(one) for place, one in enumerate(maps)}
        outputs = self._graph.outputs(named)
        for name, value in outputs.items():
            if value.shape[:1] != maps[0].shape[:1] or not np.isfinite(value).all():
                raise GraphError(f"{self._graph.name}: {name} is not finite, or of another batch; export it again")
        return outputs
