"""Pictures of the page at /demo on a wide and on a narrow screen, for docs/demo-page.md.

    python benchmarks/screenshots.py --out docs/images

Starts the page's server in this process and a headless Chromium (Debian's), waits until every answer is there, and
writes demo-wide.png and demo-narrow.png: the whole page each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from outcome import exit_code

from chromium import chromium
from splitcodec.demo.assets import find_ort
from splitcodec.demo.web import mount
from splitcodec.edge.answer import Edge
from splitcodec.edge.server import BackgroundServer, create_app, read_settings
from splitcodec.evaluation.output import write_whole
from splitcodec.wire.durable import made_folder

SETTLED_MS = 300
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the pictures; returns the exit code: 0, 2 for what is refused, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="efficientnet-lite0")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), metavar="DIR")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    made_folder(options.out)
    for path in write_whole(options.out, take(options.bundle)):
        print(f"written: {path}")


def take(bundle: str) -> dict[str, bytes]:
    """Return the pictures by the names of their files. Raises MissingExtra without Chromium or Playwright."""
    edge = Edge(bundle)
    app = create_app(edge, read_settings())
    mount(app, edge, ort=find_ort())
    taken = {}
    with BackgroundServer(app) as server, chromium() as browser:
        for name, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"{server.url}/demo")
            for sample in (0, 1, 0):  # what runs for the first time takes longer than a visitor's next picture
                page.locator("#samples button").nth(sample).click()
                page.locator("#pair[aria-busy=false]").wait_for()
                page.wait_for_timeout(SETTLED_MS)
                page.locator("#pair[aria-busy=false]").wait_for()
            taken[f"demo-{name}.png"] = page.screenshot(full_page=True)
    return taken


if __name__ == "__main__":
    sys.exit(main())
