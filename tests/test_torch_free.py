"""Each shore is imported in a fresh interpreter; what it drags in is held against what the design allows."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRAINING = {"torch", "torchvision", "timm", "lightning_fabric", "onnx"}
SERVER = {"fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client"}


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "banned"),
    [
        ("import splitcodec.device.client, splitcodec.edge.server", TRAINING),
        ("import splitcodec.device.client, splitcodec.device.link", TRAINING | SERVER),
        ("import splitcodec.device.watch, splitcodec.device.fragmented", TRAINING | SERVER | {"httpx", "paho", "cv2"}),
        ("import splitcodec.device.links, splitcodec.device.camera", TRAINING | SERVER | {"paho", "cv2"}),
        ("from splitcodec import Device", TRAINING | SERVER | {"httpx"}),
        ("from splitcodec import Edge", TRAINING | SERVER | {"httpx", "PIL"}),
    ],
)
def test_a_shore_imports_nothing_of_the_others(statement: str, banned: set[str]) -> None:
    if "server" in statement:
        pytest.importorskip("fastapi")
    loaded = loaded_by(statement)
    assert "splitcodec" in loaded
    assert not loaded & banned
