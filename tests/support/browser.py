"""A real browser: Debian's Chromium, without a screen, driven by Playwright, asking nobody but the page that is opened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright

from tests.support.peers import need

ALONE = (
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = {"width": 360, "height": 740}
WCAG = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}}


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """Run a browser for as long as the block; a test is skipped where there is none."""
    chromium = need("chromium", "chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(ALONE))
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def on_a_phone(browser: Browser, **more: Any) -> AsyncIterator[tuple[Page, list[str]]]:
    """Open a page of a phone's width; the list holds whatever the browser complains of, and whoever else it asks."""
    context = await browser.new_context(viewport=PHONE, **more)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.is_navigation_request() else complaints.append(request.url))
    try:
        yield page, complaints
    finally:
        await context.close()


async def problems_of(page: Page) -> list[str]:
    """What stands in the way of somebody who cannot see, or hold, a page as others do: WCAG 2.2 AA by axe-core."""
    found = await Axe().run(page, options=WCAG)
    return [f"{each['id']}: {node['html']}" for each in found.response["violations"] for node in each["nodes"]]
