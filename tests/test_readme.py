"""The README's Python lines run as they stand, and its list of files is the tree."""

from __future__ import annotations

import contextlib
import io
import re
import tomllib
from pathlib import Path

import pytest

from splitcodec.device.client import Device
from splitcodec.edge.answer import Edge
from splitcodec.edge.server import BackgroundServer, Settings, create_app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_lines_run(monkeypatch: pytest.MonkeyPatch) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", README, re.S)
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    with BackgroundServer(create_app(Edge(), Settings())) as server, contextlib.redirect_stdout(printed):
        exec(compile(lines.replace("http://127.0.0.1:8080", server.url), "README.md", "exec"), {})
    assert "bytes" in printed.getvalue()
    assert "efficientnet-lite0@" in printed.getvalue()


def test_the_answer_that_is_shown_is_the_bundle_s() -> None:
    """Its probability was an earlier bundle's."""
    (shown,) = re.findall(
        r'\{"bundle": "(\S+)", "level": (\d+), .*"index": (\d+), "label": ".*?", "p": ([0-9.]+)\}', README
    )
    packet = Device().encode(ROOT / "src" / "splitcodec" / "demo" / "photos" / "cat.jpg", level=int(shown[1]))
    answer = Edge().answer(packet, top=1)
    (best,) = answer["answers"]["classify"]
    assert (answer["bundle"], best["index"]) == (shown[0], int(shown[2]))
    assert best["p"] == pytest.approx(float(shown[3]), abs=0.02)


def test_tree_names_every_source_file() -> None:
    listed = set(re.findall(r"^\s{4,}(\w+(?:\.py)?)\s", README, re.M))
    for path in (ROOT / "src" / "splitcodec").rglob("*.py"):
        if path.name != "__init__.py" and path.name != "__main__.py":
            assert path.stem in listed, f"{path.relative_to(ROOT)} is missing in the README's tree"


def test_the_licences_name_every_library() -> None:
    """httpcore was not there; WordNet's licence wants its notice on every copy."""
    told = (ROOT / "LICENSES.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for name, some in project["optional-dependencies"].items() if name != "dev" for one in some]
    for needed in (*project["dependencies"], *extras):
        (name,) = re.findall(r"^[\w-]+", needed)
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", told, re.I), f"{name} is missing in LICENSES.md"
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in told


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
