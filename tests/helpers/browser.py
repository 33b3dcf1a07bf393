"""A real browser for what a person sees and does: Debian's chromium, or the one that playwright installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
# As root, and without a network.
OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def opened_browser() -> Iterator[Any]:
    """Yield a browser without a window; skip the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-browser")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(OPTIONS))
        except playwright.Error as error:
            pytest.skip(f"no browser: apt-get install chromium, or playwright install chromium ({error})")
        yield browser
        browser.close()


@contextmanager
def opened_page(browser: Any, address: str, size: str = "desktop", scheme: str = "light") -> Iterator[Any]:
    """Yield a page of the browser, and at the end check that it reported no error and asked for nothing outside."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=size == "phone", offline=True
    )
    page, told, asked = context.new_page(), list[str](), list[str]()
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    assert told == []
    assert [url for url in asked if not url.startswith(("data:", address))] == []
    context.close()
