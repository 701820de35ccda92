"""Graphs: they run, they repeat themselves, and ONNX Runtime's complaints come through one door."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from splitcodec.errors import GraphError, SettingsError
from splitcodec.session import PROVIDERS, Graph, JointGraph, processor, providers, runtime_version
from splitcodec.wire.bundle import Bundle
from tests.wire.protobuf import model, node, part, text, value_info


@pytest.fixture(scope="module")
def encoder(tiny: Bundle) -> Graph:
    return Graph(tiny.graph("encoder"), name="encoder.onnx", threads=1)


@pytest.fixture(scope="module")
def fork() -> Graph:
    nodes = node("Abs", "x", "y") + node("Neg", "x", "z")
    return Graph(model(nodes, inputs=("x",), outputs=("y", "z")), name="fork.onnx", threads=1)


def image(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, (1, height, width, 3), dtype=np.uint8)


def test_a_graph_says_what_it_takes_and_gives(encoder: Graph) -> None:
    assert encoder.input_name == "image_bhwc"
    assert encoder.input_shape == ("batch", "height", "width", 3)
    assert encoder.output_names == ("latent_bchw",)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (16, 160)])
def test_batch_and_spatial_axes_are_free(encoder: Graph, height: int, width: int) -> None:
    latent = encoder(np.concatenate([image(height, width)] * 2))
    assert latent.dtype == np.float32
    assert latent.shape == (2, 4, height // 16, width // 16)
    assert np.array_equal(latent[0], latent[1])


def test_the_same_answer_from_every_thread(encoder: Graph) -> None:
    one = image(64, 64)
    with ThreadPoolExecutor(4) as pool:
        latents = list(pool.map(encoder, [one] * 8))
    assert all(np.array_equal(latent, latents[0]) for latent in latents)


def test_all_outputs_by_name(fork: Graph) -> None:
    outputs = fork.outputs(np.array([-1, 2], np.float32))
    assert {name: value.tolist() for name, value in outputs.items()} == {"y": [1, 2], "z": [1, -2]}
    with pytest.raises(GraphError, match=r"fork\.onnx: outputs y, z, expected one"):
        fork(np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "array", [np.zeros((1, 64, 64, 3), np.float32), np.zeros((64, 64, 3), np.uint8), np.zeros((1, 64, 64, 4), np.uint8)]
)
def test_another_input_is_refused_on_one_line(
    encoder: Graph, array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> None:
    with pytest.raises(GraphError, match=r"encoder\.onnx: .* came, the graph takes tensor\(uint8\)") as refusal:
        encoder(array)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("data", [b"", b"junk", b"\x1c\0\0\0ORTM" + bytes(40)])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(GraphError, match=r"x\.onnx: ONNX Runtime refuses the graph"):
        Graph(data, name="x.onnx")


def test_an_unknown_operator_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GraphError, match="refuses the graph"):
        Graph(model(node("NoSuchOperator", "x", "y"), inputs=("x",), outputs=("y",)), name="x.onnx")
    assert capfd.readouterr().err == ""


def test_two_inputs_are_refused() -> None:
    with pytest.raises(GraphError, match="2 inputs, expected 1"):
        Graph(model(node("Abs", "x", "y"), inputs=("x", "w"), outputs=("y",)), name="x.onnx")


def test_what_is_no_array_of_numbers_is_refused() -> None:
    untyped = part(12, text(1, "y"))
    graph = model(node("SequenceConstruct", "x", "y"), inputs=("x",), outputs=(), more=untyped)
    with pytest.raises(GraphError, match=r"x\.onnx: y is no tensor of numbers"):
        Graph(graph, name="x.onnx", threads=1)(np.zeros(2, np.float32))
    with pytest.raises(GraphError, match=r"x\.onnx: y is no tensor of numbers"):
        JointGraph(graph, name="x.onnx", threads=1).outputs({"x": np.zeros(2, np.float32)})


@pytest.mark.parametrize("kind", [Graph, JointGraph])
@pytest.mark.parametrize("field", [11, 12])
def test_a_name_that_is_no_utf8_is_refused(kind: type[Graph | JointGraph], field: int) -> None:
    """The tail of a task, a graph of several inputs, raised UnicodeDecodeError."""
    nodes = node("Abs", "x", "y") + node("Abs", "x", "ZZ" if field == 12 else "z")
    graph = model(nodes, inputs=("x",), outputs=("y",), more=part(field, value_info("ZZ")))
    with pytest.raises(GraphError, match=r"x\.onnx: a name in it is no UTF-8"):
        kind(graph.replace(b"ZZ", b"\xff\xfe"), name="x.onnx", threads=1)


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_fewer_than_one_thread_or_more_than_a_machine_starts(tiny: Bundle, threads: int) -> None:
    with pytest.raises(SettingsError, match="expected at least 1"):
        Graph(tiny.graph("encoder"), name="encoder.onnx", threads=threads)


def test_onnx_runtime_reports_to_nobody(tiny_folder: Path, tmp_path: Path) -> None:
    """It kept a database in the user's cache and looked up a collector's name: a card written, a paid link used."""
    code = f"from splitcodec import Edge; Edge({str(tiny_folder)!r})"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment | home)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_pictures_of_many_shapes_leave_no_plans_behind() -> None:
    """ONNX Runtime kept one for each shape: 29 MB after these 81, and there are hundreds."""
    code = (
        "import resource, numpy as np; from pathlib import Path; from splitcodec.session import Graph\n"
        "from splitcodec.wire.bundle import open_bundle\n"
        "graph = Graph(open_bundle('efficientnet-lite0-tiny').read('encoder.onnx'), name='encoder', threads=1)\n"
        "run = lambda rows, cols: graph(np.zeros((1, rows, cols, 3), np.uint8))\n"
        "pages = lambda: int(Path('/proc/self/statm').read_text().split()[1])\n"
        "run(640, 640); before = pages()\n"
        "[run(rows, cols) for rows in range(64, 640, 64) for cols in range(64, 640, 64)]\n"
        "print((pages() - before) * resource.getpagesize())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert int(done.stdout) < 10_000_000


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("model name : AMD EPYC\nflags : fpu avx avx2 avx512f avx512_vnni\n", "AMD EPYC (AVX-512, VNNI)"),
        ("model name : AMD EPYC\nflags : fpu avx avx2\n", "AMD EPYC (AVX2)"),
        ("model name : N100\nflags : avx2 avx_vnni\n\nmodel name : N100\nflags : avx2\n", "N100 (AVX2, VNNI)"),
        ("Features : fp asimd asimddp\nModel : Raspberry  Pi 5\n", "Raspberry Pi 5 (dotprod)"),
        ("Features : fp asimd\nModel : Raspberry Pi 4\n", "Raspberry Pi 4"),
    ],
)
def test_a_processor_is_told_with_what_it_can_do(monkeypatch: pytest.MonkeyPatch, cpuinfo: str, name: str) -> None:
    """Two machines of one name were one to `tune`, and in reports."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: cpuinfo)
    assert processor() == name


def _has(monkeypatch: pytest.MonkeyPatch, *names: str, starts: Sequence[str]) -> list[Any]:
    """Let ONNX Runtime have execution providers of which some start; return what it is asked for."""
    asked: list[Any] = []

    def session(model: bytes, options: object, *, providers: Any, **_: object) -> object:
        asked.append(providers)
        ends = SimpleNamespace(name="x", shape=[1], type="tensor(float)")
        return SimpleNamespace(
            get_providers=lambda: [f"{one}ExecutionProvider" for one in starts],
            get_inputs=lambda: [ends],
            get_outputs=lambda: [ends],
        )

    full = [f"{one}ExecutionProvider" for one in names]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: full)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return asked


def test_graphs_run_on_what_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _has(monkeypatch, "Tensorrt", "CUDA", "OpenVINO", "CPU", starts=["CUDA", "OpenVINO", "CPU"])
    monkeypatch.delenv(PROVIDERS, raising=False)
    cpu = ("CPUExecutionProvider", dict[str, str]())
    Graph(b"", name="x.onnx")
    assert (providers(), asked.pop()) == (("cpu",), [cpu])
    monkeypatch.setenv(PROVIDERS, " CUDA,OpenVINOExecutionProvider cuda")
    assert providers() == ("cuda", "openvino", "cpu")
    assert runtime_version() == f"{onnxruntime.__version__} (cuda, openvino)"
    Graph(b"", name="x.onnx")
    assert asked.pop() == [("CUDAExecutionProvider", {}), ("OpenVINOExecutionProvider", {}), cpu]
    JointGraph(b"", name="x.onnx", threads=3)
    cuda, openvino, _ = asked.pop()
    assert (cuda, openvino) == (("CUDAExecutionProvider", {}), ("OpenVINOExecutionProvider", {"num_of_threads": "3"}))


def test_what_does_not_start_is_refused_for_onnx_runtime_goes_on_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _has(monkeypatch, "CUDA", "CPU", starts=["CPU"])
    monkeypatch.setenv(PROVIDERS, "cuda")
    with pytest.raises(SettingsError, match=r"SPLITCODEC_PROVIDERS: cuda does not start, .*leave it out"):
        Graph(b"", name="x.onnx")


@pytest.mark.parametrize("name", ["cudo", "azure", "cpu,ExecutionProvider", "x" * 99])
def test_what_this_build_does_not_have_is_refused(tiny: Bundle, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Azure's provider, which many builds have, would send its input away."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setenv(PROVIDERS, name)
    with pytest.raises(SettingsError, match=r"is none of what this ONNX Runtime runs on \(cpu\)") as refusal:
        Graph(tiny.graph("encoder"), name="encoder.onnx")
    assert len(str(refusal.value)) < 200
    with pytest.raises(SettingsError):
        runtime_version()


def test_a_refusal_names_where_the_graph_was_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel\nfor it")

    _has(monkeypatch, "CUDA", "CPU", starts=[])
    monkeypatch.setattr(onnxruntime, "InferenceSession", refused)
    monkeypatch.setenv(PROVIDERS, "cuda")
    with pytest.raises(
        GraphError, match=r"refuses the graph on cuda, cpu \(try without SPLITCODEC_PROVIDERS\): no kern"
    ):
        Graph(b"", name="x.onnx")


def test_the_processor_may_be_named(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROVIDERS, raising=False)
    unnamed = Graph(tiny.graph("encoder"), name="encoder.onnx", threads=1)
    monkeypatch.setenv(PROVIDERS, "cpu")
    named = Graph(tiny.graph("encoder"), name="encoder.onnx", threads=1)
    assert np.array_equal(named(image(64, 64)), unnamed(image(64, 64)))
    assert runtime_version() == onnxruntime.__version__
