"""The admin page in a real browser: real traffic through real Envoy, and what an operator does about it.

`ARCH_SCREENSHOTS=FOLDER` keeps the pictures (`make screenshots`), after a minute of traffic.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from PIL import Image
from playwright.async_api import Browser, Locator, Page, expect

from tests.support.browser import Tab, a_tab, running_browser
from tests.support.mesh import CONFIGS, Mesh, chat, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "the-admin-token-of-these-tests-and-no-other"
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}
CODING = "write a Python function that parses dates"
REFUSED = "status of 401"
"""What Chromium itself says of a refused request."""

CONVERSATIONS = {
    CODING: 5,
    "write a csv parser in Go": 4,
    "why does this regex not match? debug it": 3,
    "explain what this function does": 3,
    "my order never arrived": 5,
    "I want a refund for this invoice": 4,
    "a poem about the sea": 3,
    "a flight to Lisbon in May": 3,
    "how long to boil an egg?": 1,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("page")
    environ = {"ROLLOUT_STORE": str(folder / "rollouts.sqlite"), "ADMIN_TOKEN": TOKEN}
    names = ("openai", "coder", "next", "anthropic")
    async with running_mesh(CONFIGS / "page.yaml", folder, *names, environ=environ) as running:
        await running.decided_again("a flight to Lisbon in May")
        yield running


@asynccontextmanager
async def the_page(browser: Browser, mesh: Mesh, *expected: str, **options: object) -> AsyncIterator[Tab]:
    async with a_tab(browser, mesh.stack.admin_url, expected=expected, **options) as tab:
        await expect(tab.page.locator("#link")).to_have_text("live")
        yield tab


@asynccontextmanager
async def traffic(mesh: Mesh) -> AsyncIterator[None]:
    """Four clients, each request of a session of its own."""

    async def client(number: int) -> None:
        dice = random.Random(number)
        for turn in range(100_000):
            (text,) = dice.choices(list(CONVERSATIONS), list(CONVERSATIONS.values()))
            await mesh.ask(text, session=f"{number}-{turn}")
            await asyncio.sleep(dice.random() * 0.2)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client(number)) for number in range(4)]
        yield
        for task in tasks:
            task.cancel()


def card(page: Page, policy: str) -> Locator:
    return page.get_by_role("article", name=f"Rollout of {policy}")


async def phase(mesh: Mesh, policy: str) -> str:
    async with mesh.http.get(f"{mesh.stack.admin_url}/rollouts/{policy}") as answer:
        found: str = (await answer.json())["current"]["phase"]
        return found


async def test_a_request_through_envoy_appears_with_its_answer(browser: Browser, mesh: Mesh) -> None:
    async with the_page(browser, mesh) as tab:
        await mesh.send(
            {"model": "x", "messages": [{"role": "user", "content": CODING}]},
            headers=[("x-arch-session", "one"), ("x-request-id", "the-request-of-this-test")],
        )
        row = tab.page.locator("#decisions tbody tr", has_text="the-request-of-this-test")
        await expect(row.locator("td").nth(1)).to_have_text("code generation")
        await expect(row.locator("td").nth(3)).to_contain_text("vllm/qwen-coder")
        await expect(row.locator("td").nth(4)).to_have_text("policy")
        await expect(row.locator("td").nth(6)).to_have_text("200")
        body = tab.page.locator("#policies tbody", has_text="code generation")
        await expect(body.locator("tr").first).to_contain_text("of all")
        assert "Quarzklee" not in await tab.page.content()


async def test_decisions_can_be_held_and_narrowed_down(browser: Browser, mesh: Mesh) -> None:
    async with the_page(browser, mesh) as tab:
        page, rows = tab.page, tab.page.locator("#decisions tbody tr:visible")
        await page.get_by_role("button", name="Pause", exact=True).click()
        await mesh.send(chat(CODING), headers=[("x-request-id", "held-back")])
        await expect(page.locator("#hold")).to_have_text(re.compile(r"Go on \(\d+\)"))
        await expect(rows.filter(has_text="held-back")).to_have_count(0)
        await page.locator("#hold").click()
        await expect(rows.filter(has_text="held-back")).to_have_count(1)
        await page.get_by_label("Show only").fill("travel planning")
        await expect(rows.filter(has_text="held-back")).to_have_count(0)
        await expect(rows.filter(has_text="travel planning")).not_to_have_count(0)


async def test_a_button_needs_the_token_and_the_page_keeps_it_to_itself(browser: Browser, mesh: Mesh) -> None:
    async with the_page(browser, mesh, REFUSED) as tab:
        page, dialog = tab.page, tab.page.get_by_role("dialog", name="Admin token")
        await card(page, "customer support").get_by_role("button", name="Start").click()
        await expect(dialog).to_be_visible()
        await dialog.get_by_label("Token").fill("not the token")
        await dialog.get_by_role("button", name="Use it").click()
        await expect(dialog).to_contain_text("did not take this token")
        await dialog.get_by_role("button", name="Cancel").click()
        await expect(dialog).to_be_hidden()
        assert await phase(mesh, "customer support") == "waiting"

        await card(page, "customer support").get_by_role("button", name="Start").click()
        await dialog.get_by_label("Token").fill(TOKEN)
        await dialog.get_by_role("button", name="Use it").click()
        await expect(page.locator("#said")).to_have_text("customer support: progressing at 25 %")
        assert await phase(mesh, "customer support") == "progressing"

        # From here on it is not asked for again.
        await card(page, "customer support").get_by_role("button", name="Pause").click()
        await expect(page.locator("#said")).to_have_text("customer support: paused at 25 %")
        await card(page, "customer support").get_by_role("button", name="Resume").click()
        await expect(page.locator("#said")).to_have_text("customer support: progressing at 25 %")
        await card(page, "customer support").get_by_role("button", name="Promote to 100 %").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        assert await phase(mesh, "customer support") == "progressing"
        await card(page, "customer support").get_by_role("button", name="Abort").click()
        await page.get_by_role("dialog").get_by_role("button", name="Abort").click()
        await expect(page.locator("#said")).to_have_text("customer support: aborted at 0 %")

        kept = "JSON.stringify([localStorage, sessionStorage, document.cookie, document.body.outerHTML])"
        assert TOKEN not in await page.evaluate(kept)
        assert await page.locator("#token-value").input_value() == ""
        assert not any(TOKEN in url for url in tab.requested)
        await page.reload()
        await expect(page.locator("#link")).to_have_text("live")
        await card(page, "customer support").get_by_role("button", name="Start").click()
        await expect(dialog).to_be_visible()


async def test_all_of_it_by_keyboard_alone(browser: Browser, mesh: Mesh) -> None:
    async with the_page(browser, mesh, REFUSED) as tab:
        press = tab.page.keyboard.press
        await tab.tab_to("Skip to the figures", most=1)
        await press("Enter")
        assert await tab.page.evaluate("document.activeElement.id") == "main"
        await tab.tab_to("Start: creative writing")
        await press("Enter")
        await expect(tab.page.get_by_role("dialog")).to_be_visible()
        assert await tab.focused() == "Token"
        await tab.page.keyboard.type(TOKEN)
        await press("Enter")
        await expect(tab.page.locator("#said")).to_have_text("creative writing: progressing at 10 %")
        # Its button is gone, and the focus is still in the card.
        await expect(card(tab.page, "creative writing").locator(":focus")).to_have_count(1)
        await tab.tab_to("Abort: creative writing")
        await press("Enter")
        await expect(tab.page.get_by_role("dialog")).to_be_visible()
        await press("Escape")
        await expect(tab.page.get_by_role("dialog")).to_be_hidden()
        assert await phase(mesh, "creative writing") == "progressing"
        assert await tab.focused() == "Abort: creative writing"
        await press("Enter")
        await expect(tab.page.get_by_role("dialog")).to_be_visible()
        await press("Enter")
        await expect(tab.page.locator("#said")).to_have_text("creative writing: aborted at 0 %")
        await tab.tab_to("Message")
        await tab.page.keyboard.type(CODING)
        await press("Control+Enter")
        await expect(tab.page.locator("#explained .verdict")).to_contain_text("code generation")


async def test_a_message_is_tried_and_goes_nowhere(browser: Browser, mesh: Mesh) -> None:
    async with the_page(browser, mesh, REFUSED) as tab:
        before = await mesh.decisions()
        await tab.page.get_by_role("textbox", name="Message").fill(f"{CODING} of Quarzklee")
        await tab.page.get_by_label("Session").fill("somebody")
        await tab.page.get_by_role("button", name="Decide").click()
        await tab.page.get_by_label("Token", exact=True).fill(TOKEN)
        await tab.page.keyboard.press("Enter")
        shown = tab.page.locator("#explained")
        await expect(shown.locator(".verdict")).to_contain_text("because policy")
        await expect(shown.locator("tr.chosen").first).to_contain_text("code generation")
        await expect(shown).to_contain_text("none of them")
        await expect(shown).to_contain_text("2,000 to 10,000 (80 %)")
        assert not any(b"Quarzklee" in seen.body for all_ in mesh.seen().values() for seen in all_)
        assert await mesh.decisions() == before
        await tab.page.get_by_label("Model asked for").fill("openai/gpt-4o-mini")
        await tab.page.get_by_role("button", name="Decide").click()
        await expect(shown.locator(".verdict")).to_contain_text("because pinned")


async def test_the_configuration_is_shown_without_its_secrets(browser: Browser, mesh: Mesh) -> None:
    async with the_page(browser, mesh) as tab:
        await expect(tab.page.locator("#config")).to_contain_text("access_key: $OPENAI_KEY")
        text = await tab.page.locator("#config").inner_text()
        assert 'salt: "***"' in text
        assert "name: travel planning" in text
        assert TOKEN not in text
        assert "end-to-end-tests-salt" not in text


async def test_copies_are_shown_with_their_differences(browser: Browser, mesh: Mesh) -> None:
    async with the_page(browser, mesh) as tab:
        for number in range(8):
            await mesh.ask("explain what this function does", session=f"copied-{number}")
        pairs = tab.page.locator("#pairs tbody")
        await expect(pairs.locator("tr", has_text="noise floor")).to_contain_text("100.0 %")
        await expect(pairs.locator("tr", has_text="vllm/qwen-coder-next")).to_contain_text(
            "code understanding"
        )
        await tab.page.get_by_text("The last pairs").click()
        await expect(tab.page.locator("#differences tbody tr").first).to_contain_text("200 / 200")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
async def test_everybody_can_use_it(browser: Browser, mesh: Mesh, scheme: str, width: int) -> None:
    """Contrast, names, roles, headings, landmarks, focus, at both ends of the widths and in both schemes."""
    viewport = {"width": width, "height": 800}
    async with (
        the_page(browser, mesh, REFUSED, color_scheme=scheme, viewport=viewport) as tab,
        traffic(mesh),
    ):
        page = tab.page
        await expect(page.locator("#decisions tbody tr").nth(20)).to_be_attached()
        await page.get_by_text("The last pairs").click()
        await card(page, "customer support").get_by_text("History").click()
        assert await tab.violations() == []
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        lightness = (
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => a + +b, 0)"
        )
        assert (await page.evaluate(lightness) > 380) == (scheme == "light")
        await page.get_by_role("button", name="Token").click()
        assert await tab.violations() == []


async def test_it_tells_when_the_server_is_away_and_goes_on_when_it_is_back(
    browser: Browser, mesh: Mesh
) -> None:
    lost = (
        "ERR_CONNECTION_REFUSED",
        "ERR_INCOMPLETE_CHUNKED_ENCODING",
        "ERR_EMPTY_RESPONSE",
        "ERR_CONNECTION_RESET",
    )
    async with the_page(browser, mesh, *lost) as tab:
        await mesh.stack.server.stop()
        await expect(tab.page.locator("#link")).to_have_text("no answer, trying again")
        await mesh.stack.restart_server()
        await expect(tab.page.locator("#link")).to_have_text("live")
        await mesh.decided_again("a flight to Lisbon in May")
        await mesh.send(chat(CODING), headers=[("x-request-id", "after-the-restart")])
        row = tab.page.locator("#decisions tbody tr", has_text="after-the-restart")
        await expect(row).to_have_count(1)


async def test_pictures(browser: Browser, mesh: Mesh, tmp_path: Path) -> None:
    """A wide page and a narrow one, with traffic. Those of the README when a folder is given."""
    kept = os.environ.get("ARCH_SCREENSHOTS")
    folder = Path(kept) if kept else tmp_path
    mesh.providers["next"].behave.delay_s = 0.02
    mesh.providers["anthropic"].behave.fail_every = 9
    start = f"{mesh.stack.admin_url}/rollouts/customer support/start"
    async with mesh.http.post(start, json={}, headers=AUTHORIZED) as answer:
        assert answer.status == 200
    async with traffic(mesh):
        await asyncio.sleep(60 if kept else 0)
        for name, scheme, width, height in (
            ("admin-light", "light", 1600, 900),
            ("admin-dark", "dark", 1600, 900),
            ("admin-narrow", "dark", 390, 844),
        ):
            viewport = {"width": width, "height": height}
            async with the_page(browser, mesh, color_scheme=scheme, viewport=viewport) as tab:
                await expect(tab.page.locator("#decisions tbody tr").nth(20)).to_be_attached()
                await expect(tab.page.locator("#policies tbody").nth(4)).to_contain_text("of all")
                await small_picture(tab.page, folder / f"{name}.png")


async def small_picture(page: Page, file: Path) -> None:
    """A page has few colours, so a palette of them is a third of the size."""
    picture = Image.open(io.BytesIO(await page.screenshot()))
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    assert len(picture.getcolors(1 << 20) or ()) > 50, "a page with something on it"
    assert file.stat().st_size < 200_000
