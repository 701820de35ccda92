"""What deploy/ starts, as far as it runs without a container or systemd."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from splitcodec import Edge
from splitcodec.edge.server import BackgroundServer, create_app, read_settings
from splitcodec.wire.bundle import Bundle

DEPLOY = Path(__file__).parents[2] / "deploy"


def healthy(port: int, **environment: str) -> bool:
    """Run the image's own health check."""
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", "")
    found = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.MULTILINE)
    assert found
    python, *rest = json.loads(found[1])
    assert python == "python"
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment = {**clean, "SPLITCODEC_PORT": str(port), **environment}
    return subprocess.run([sys.executable, *rest], env=environment, capture_output=True, check=False).returncode == 0


def test_a_reload_that_comes_too_early_does_not_stop_the_service_for_good() -> None:
    lines = (DEPLOY / "splitcodec.service").read_text().splitlines()
    unit = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert unit["ExecReload"].split()[:2] == ["/bin/kill", "-HUP"]
    assert unit["Restart"] == "on-failure"  # which an end by SIGHUP is not
    assert unit["RestartForceExitStatus"] == "SIGHUP"


def test_a_proxy_is_not_asked_for_the_health_of_a_container(tiny: Bundle) -> None:
    """podman hands the host's HTTP_PROXY on, and every container behind one was taken for unhealthy."""
    with BackgroundServer(create_app(Edge(tiny, threads=1), read_settings())) as server:
        assert healthy(server.port)
        assert healthy(server.port, http_proxy="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9")
    assert not healthy(server.port)
