"""Pictures of the page at /demo on a wide and on a narrow screen, for docs/demo-page.md.

    python benchmarks/screenshots.py --out docs/images

Starts the page's server in this process and a headless Chromium (Debian's), waits until every answer is there, and
writes demo-wide.png and demo-narrow.png: the whole page each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright

from splitcodec.cli.show import complain
from splitcodec.demo.assets import find_ort
from splitcodec.demo.web import mount
from splitcodec.edge.answer import Edge
from splitcodec.edge.server import BackgroundServer, create_app, read_settings
from splitcodec.errors import SettingsError, SplitcodecError

SIZES = {"wide": (1280, 900), "narrow": (390, 844)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the pictures; returns the exit code: 0, or 2 for what is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        for path in take(options.bundle, options.out):
            print(f"written: {path}")
    except SplitcodecError as error:
        complain(error)
        return 2
    return 0


def take(bundle: str, out: Path) -> list[Path]:
    """Return the pictures that were written. Raises SettingsError without Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise SettingsError("chromium is missing; apt-get install chromium")
    out.mkdir(parents=True, exist_ok=True)
    edge = Edge(bundle)
    app = create_app(edge, read_settings())
    mount(app, edge, ort=find_ort())
    written = []
    with BackgroundServer(app) as server, sync_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses its sandbox to root
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        for name, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"{server.url}/demo")
            page.locator("#pair[aria-busy=false]").wait_for()
            written.append(out / f"demo-{name}.png")
            page.screenshot(path=written[-1], full_page=True)
        browser.close()
    return written


if __name__ == "__main__":
    sys.exit(main())
