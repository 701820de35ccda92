"""A headless Chromium for those who measure or show the page.   used by: browser.py, screenshots.py

The door to Playwright, which drives Debian's Chromium and is wanted for nothing else: it is looked for only here, and
what it raises leaves as a refusal.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from splitcodec.errors import MissingExtra, OutputError

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a running one. Raises MissingExtra where anything is missing, OutputError for what fails while it runs."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise MissingExtra("needs Chromium, which is missing here; apt-get install chromium")
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError:
        raise MissingExtra("needs Playwright, which is missing here; pip install playwright") from None
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses its sandbox to root
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=flags)
            yield browser
            browser.close()
    except Error as error:
        raise OutputError(f"Chromium failed: {' '.join(str(error).split()):.300}") from None
