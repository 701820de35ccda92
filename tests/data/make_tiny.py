"""Write the bundle tests/data/tiny, small enough to commit:   python tests/data/make_tiny.py

The teacher averages 8 x 8 blocks, mixes their colours into 8 features and classifies the mean feature. The encoder
averages 16 x 16 blocks and adds a horizontal edge; the decoder spreads each average over its four blocks. Mean features
agree, so the student errs only by rounding. Weights lie in the graphs as float16, as in real bundles.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper

from splitcodec.wire.bundle import Colour, Manifest, write_bundle
from splitcodec.wire.tables import Tables, quantise_mass

CHANNELS, FEATURES, CLASSES, STRIDE = 4, 8, 10, 16
SPREAD = 4.0  # of the latent's colour channels
GAINS = (0.5, 1.0, 3.0)
HERE = Path(__file__).parent


def graph(
    nodes: list[object],
    weights: dict[str, NDArray[np.float32]],
    *,
    source: tuple[str, int, list[object]],
    target: tuple[str, list[object]],
) -> bytes:
    """Return an ONNX file: float16 weights, each cast to float32 before use."""
    stored = [numpy_helper.from_array(value.astype(np.float16), f"{name}_half") for name, value in weights.items()]
    casts = [helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT) for name in weights]
    inputs = [helper.make_tensor_value_info(source[0], source[1], source[2])]
    outputs = [helper.make_tensor_value_info(target[0], TensorProto.FLOAT, target[1])]
    body = helper.make_graph([*casts, *nodes], "tiny", inputs, outputs, stored)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def image_to(kernel: NDArray[np.float32], target: str) -> bytes:
    """Return a graph that scales uint8 RGB to [-1, 1] and convolves it, stride = kernel size."""
    size = kernel.shape[2]
    nodes = [
        helper.make_node("Cast", ["image_bhwc"], ["float_bhwc"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float_bhwc", "half_range"], ["scaled_bhwc"]),
        helper.make_node("Sub", ["scaled_bhwc", "one"], ["centred_bhwc"]),
        helper.make_node("Transpose", ["centred_bhwc"], ["image_bchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["image_bchw", "kernel"], [target], strides=[size, size], kernel_shape=[size, size]),
    ]
    weights = {"kernel": kernel, "half_range": np.array(127.5, np.float32), "one": np.array(1.0, np.float32)}
    image = ("image_bhwc", TensorProto.UINT8, ["batch", "height", "width", 3])
    return graph(nodes, weights, source=image, target=(target, ["batch", kernel.shape[0], "rows", "cols"]))


def tables() -> Tables:
    """Return Laplacian tables: one row per level for the three colours, one for the edge channel."""
    rows: list[tuple[int, NDArray[np.uint32]]] = []
    gains = np.repeat(np.array(GAINS, np.float32)[:, None], CHANNELS, axis=1)
    table_of = np.zeros((len(GAINS), 1, CHANNELS), np.int32)
    for level, gain in enumerate(GAINS):
        for spread, channels in ((SPREAD / 2, (0, 1, 2)), (SPREAD / 8, (3,))):
            reach = int(np.ceil(SPREAD * gain)) if channels[0] == 0 else int(np.ceil(SPREAD * gain / 2))
            table_of[level, 0, list(channels)] = len(rows)
            rows.append((-reach, quantise_mass(np.exp(-np.abs(np.arange(-reach, reach + 1)) / (spread * gain)))))
    freq = np.zeros((len(rows), max(len(row) for _, row in rows)), np.uint32)
    for k, (_, row) in enumerate(rows):
        freq[k, : len(row)] = row
    return Tables(
        freq_ks=freq,
        size_k=np.array([len(row) for _, row in rows], np.int32),
        offset_k=np.array([low for low, _ in rows], np.int32),
        table_of_lxc=table_of,
        gain_lc=gains,
    )


def main() -> None:
    """Write the bundle, replacing the one that is there."""
    random = np.random.default_rng(7)
    encoder = np.zeros((CHANNELS, 3, STRIDE, STRIDE), np.float32)
    for colour in range(3):
        encoder[colour, colour] = SPREAD / STRIDE**2
    encoder[3, :, :, : STRIDE // 2], encoder[3, :, :, STRIDE // 2 :] = SPREAD / 3 / STRIDE**2, -SPREAD / 3 / STRIDE**2
    mix = random.normal(size=(FEATURES, 3)).astype(np.float16).astype(np.float32)
    head = np.repeat(np.repeat(mix[:, :, None, None] / 64, 8, axis=2), 8, axis=3)
    spread = np.zeros((CHANNELS, FEATURES, 2, 2), np.float32)
    spread[:3] = (mix.T / SPREAD)[:, :, None, None]
    latent = ("latent_bchw", TensorProto.FLOAT, ["batch", CHANNELS, "rows", "cols"])
    feature = ("feature_bchw", TensorProto.FLOAT, ["batch", FEATURES, "rows", "cols"])
    classify = [
        helper.make_node("GlobalAveragePool", ["feature_bchw"], ["mean_bchw"]),
        helper.make_node("Flatten", ["mean_bchw"], ["mean_bc"]),
        helper.make_node("Gemm", ["mean_bc", "weight"], ["logits"]),
    ]
    table_file, encoder_graph = io.BytesIO(), image_to(encoder, "latent_bchw")
    tables().save(table_file)
    files = {
        "tables.npz": table_file.getvalue(),
        "encoder.onnx": encoder_graph,
        "head.onnx": image_to(head.astype(np.float32), "feature_bchw"),
        "decoder.onnx": graph(
            [helper.make_node("ConvTranspose", ["latent_bchw", "kernel"], ["feature_bchw"], strides=[2, 2])],
            {"kernel": spread},
            source=latent,
            target=("feature_bchw", ["batch", FEATURES, "rows2", "cols2"]),
        ),
        "tail_classify.onnx": graph(
            classify,
            {"weight": 3 * random.normal(size=(FEATURES, CLASSES)).astype(np.float32)},
            source=feature,
            target=("logits", ["batch", CLASSES]),
        ),
        "MODEL_CARD.md": b"# tiny\n\nColour averages, for tests alone. Written by tests/data/make_tiny.py.\n",
    }
    manifest = Manifest(
        name="tiny",
        version=1,
        colour=Colour(scale=2 / 255, offset=-1.0),
        stride=STRIDE,
        resize=72,
        crop=64,
        channels=CHANNELS,
        levels=len(GAINS),
        default_level=1,
        max_symbols=CHANNELS * 64 * 64,
        max_side=1024,
        classes=tuple(f"c{index}" for index in range(CLASSES)),
        tasks=("classify",),
        encoder={"macs": 64 * 64 * 3 * CHANNELS, "parameters": encoder.size, "bytes": len(encoder_graph)},
        provenance={"recipe": "tests/data/make_tiny.py", "seed": 7},
    )
    if (HERE / "tiny").exists():
        shutil.rmtree(HERE / "tiny")
    bundle = write_bundle(HERE / "tiny", manifest, files=files)
    print(bundle.ident, bundle.fingerprint.hex(), sum(entry.bytes for entry in bundle.manifest.files.values()), "bytes")


if __name__ == "__main__":
    main()
