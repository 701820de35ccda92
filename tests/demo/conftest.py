"""A headless Chromium for the page's tests, and what happens where it is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def missing(what: str, how: str) -> NoReturn:
    """Skip in one line, or fail where SPLITCODEC_REQUIRE names what is missing (a comma-separated list)."""
    if what in os.environ.get("SPLITCODEC_REQUIRE", "").split(","):
        pytest.fail(f"{what} is missing and required here: {how}", pytrace=False)
    pytest.skip(f"{what} is missing: {how}")


@pytest.fixture(scope="module")  # while it runs, asyncio.run cannot: the tests of other rooms need that
def chromium() -> Iterator[Browser]:
    """Return a running headless Chromium with a camera that is not real."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        missing("chromium", "apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("chromium", "pip install playwright")
    arguments = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium refuses its sandbox to root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()
