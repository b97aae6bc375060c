"""Debian's Chromium, headless, in a test's words: what a page shows, asks for, and complains of."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright, expect

LIMIT_MS = 60_000
"""How long anything may take here. Nothing is timed: this only ends a test that hangs."""

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium is not None, "no chromium on PATH: make test installs Debian's"
    expect.set_options(timeout=LIMIT_MS)
    # Its sandbox wants more than a container's root may; it only ever sees this project's own page.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Tab:
    """One open page. `complaints`: its console's errors and warnings, uncaught errors, failed requests."""

    page: Page
    origin: str
    complaints: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def strangers(self) -> list[str]:
        """The requests that left the origin."""
        return [url for url in self.requested if not url.startswith(f"{self.origin}/")]

    async def violations(self) -> list[str]:
        """What axe finds wrong for people who cannot see or point."""
        found = await Axe().run(self.page, options={"runOnly": {"type": "tag", "values": TAGS}})
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes']]}"
            for one in found.response["violations"]
        ]

    async def focused(self) -> str:
        """The name of what has the focus, as a screen reader would begin to say it."""
        name: str = await self.page.evaluate(
            "(e => e.getAttribute('aria-label') || e.labels?.[0]?.textContent.trim() || e.textContent.trim())"
            "(document.activeElement)"
        )
        return name

    async def tab_to(self, name: str, most: int = 200) -> None:
        """Press Tab until what has this name has the focus, which must be seen at each stop."""
        for _ in range(most):
            await self.page.keyboard.press("Tab")
            if await self.page.evaluate("document.activeElement !== document.body"):
                outline = await self.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"nothing shows that {await self.focused()!r} has the focus"
            if await self.focused() == name:
                return
        raise AssertionError(f"{most} presses of Tab never came to {name!r}")


@asynccontextmanager
async def a_tab(
    browser: Browser, url: str, *, expected: Iterable[str] = (), **options: Any
) -> AsyncIterator[Tab]:
    """A page of its own session. At the end nothing may have been complained of but what is `expected`."""
    given = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce", **options}
    context = await browser.new_context(**given)
    context.set_default_timeout(LIMIT_MS)
    try:
        page = await context.new_page()
        tab = Tab(page, url.rstrip("/"))
        page.on(
            "console",
            lambda said: tab.complaints.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        page.on("request", lambda request: tab.requested.append(request.url))
        await page.goto(url)
        yield tab
        assert [said for said in tab.complaints if not any(one in said for one in expected)] == []
        assert tab.strangers() == []
    finally:
        await context.close()
