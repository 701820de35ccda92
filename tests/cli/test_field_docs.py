"""The guides name only options and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from splitcodec.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", ["field.md", "raspberry-pi.md"])
def test_every_option_in_a_command_line_exists(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"splitcodec (watch|bridge|ask|serve|encode|check|info|tune) ([^`\n#]*)", text)
    assert len(lines) > 5
    for name, rest in lines:
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest)) <= known, (name, rest)


def test_every_option_of_the_table_is_one_of_watch() -> None:
    table = (DOCS / "field.md").read_text(encoding="utf-8").split("| option |")[1].split("\n\n")[0]
    known = {option for parameter in COMMANDS["watch"].params for option in parameter.opts}
    named = set(re.findall(r"--[a-z][a-z-]+", table))
    assert len(named) > 10
    assert named <= known


def test_links_and_paths_lead_somewhere() -> None:
    """One of three pages that were looked at has no link; others that have some were not looked at."""
    found = 0
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        links = [DOCS / target for target in re.findall(r"\]\((?!https?:)([^)#]+)", text)]
        if page.name != "LOG.md":  # which tells of what was
            links += [ROOT / path for path in re.findall(r"`((?:docs|src|tests|deploy|benchmarks)/[\w./@-]+)`", text)]
        missing = [str(target) for target in links if not target.exists()]
        assert not missing, (page.name, missing)
        found += len(links)
    assert found > 60


def test_the_service_finds_what_tune_recorded() -> None:
    unit = re.search(r"^Environment=(XDG_STATE_HOME=/\S+)$", (DOCS / "field.md").read_text(encoding="utf-8"), re.M)
    user = re.search(r"^User=(\w+)$", (DOCS / "field.md").read_text(encoding="utf-8"), re.M)
    assert unit is not None
    assert user is not None
    for page in ("field.md", "raspberry-pi.md"):
        assert f"sudo -u {user[1]} env {unit[1]} splitcodec tune " in (DOCS / page).read_text(encoding="utf-8")
