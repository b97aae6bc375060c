"""Names, reasons and errors with markup in them are shown as they are: text, whatever they hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import expect

from ext_proc.admin.app import AdminServer, Sources
from ext_proc.comparisons import RecentComparisons
from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Decide, Part, RequestHeaders
from ext_proc.core.observation import Comparison, Role
from ext_proc.core.rollout_settings import PolicyRollout
from ext_proc.core.settings import Address
from ext_proc.core.types import Decision, Dialect, Outcome, Verdict
from ext_proc.telemetry import Telemetry
from tests.support.browser import Tab, a_tab, running_browser
from tests.support.builders import a_route, a_snapshot, a_target
from tests.support.replicas import a_plan, a_replica, an_answer, settings_of

EVIL = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>{{7*7}}"
TARGET = a_target(f"openai/{EVIL}")
RELOAD = {"at": 0, "outcome": EVIL, "problems": [EVIL], "warnings": [], "waits_for_restart": [EVIL]}
SNAPSHOT = a_snapshot(routes=(a_route(TARGET, a_target("vllm/next"), policy=EVIL),))


async def explain(body: bytes, dialect: Dialect, session: str | None) -> Mapping[str, Any]:
    raise AssertionError("nothing is tried here")


@asynccontextmanager
async def the_page(tmp_path: Path) -> AsyncIterator[tuple[Tab, Telemetry]]:
    telemetry, recent = Telemetry(), RecentComparisons()
    rollout = PolicyRollout(a_plan(policy=EVIL, target=EVIL, interval_s=3600.0), baseline=EVIL)
    replica = a_replica(tmp_path / "rollouts.sqlite", settings=settings_of(rollout), name=EVIL)
    server = AdminServer(
        Address("127.0.0.1", 0),
        telemetry,
        is_ready=lambda: True,
        sources=Sources(
            current=lambda: SNAPSHOT,
            config=lambda: {
                "file": EVIL,
                "in_force_since": 0,
                "last_reload": RELOAD,
                "configuration": {EVIL: EVIL},
            },
            shadows=recent.shown,
            rollouts=lambda: replica.controller,
            explainer=explain,
        ),
    )
    primary, shadow = (an_answer(policy=EVIL, target=EVIL, role=role) for role in (Role.PRIMARY, Role.SHADOW))
    recent.compared(Comparison(primary, shadow, at=0.0))
    await replica.controller.start()
    port = await server.start()
    try:
        async with (
            running_browser() as browser,
            a_tab(browser, f"http://127.0.0.1:{port}", expected=("status of 500", "status of 409")) as tab,
        ):
            yield tab, telemetry
    finally:
        await server.stop()
        await replica.controller.stop()


async def test_markup_is_shown_and_does_nothing(tmp_path: Path) -> None:
    async with the_page(tmp_path) as (tab, telemetry):
        page = tab.page
        request = Decide(Part.REQUEST_BODY, Dialect.CHAT_COMPLETIONS, RequestHeaders(request_id=EVIL), b"")
        decision = Decision(TARGET, Reason.POLICY, policy=EVIL, arm="baseline")
        telemetry.decided(request, Outcome(decision, 0.004, Verdict(EVIL, ((EVIL, 0.9),)), 0.003))
        telemetry.activity.fault(EVIL, EVIL)
        telemetry.activity.observed(an_answer(policy=EVIL, target=EVIL, request_id=EVIL, status=503))
        for place in (
            "#decisions tbody",
            "#policies",
            "#cards",
            "#replica",
            "#faults",
            "#pairs",
            "#loaded",
            "#reload",
        ):
            await expect(page.locator(place)).to_contain_text(EVIL)
        await page.get_by_text("The last pairs").click()
        await expect(page.locator("#differences")).to_contain_text(EVIL)
        await page.get_by_text("History").click()
        await expect(page.locator("article details")).to_contain_text("started")
        await page.get_by_role("button", name="Promote to 100 %").click()
        await expect(page.get_by_role("dialog")).to_contain_text(EVIL)
        await page.keyboard.press("Escape")
        await page.get_by_role("textbox", name="Message").fill(EVIL)
        await page.get_by_role("button", name="Decide").click()
        await expect(page.locator("#explained")).to_contain_text("the server has a bug")
        assert await page.locator("main img, main script").count() == 0
        assert await page.title() == "arch-ext-proc"


async def test_nothing_could_become_code_if_the_page_had_a_bug(tmp_path: Path) -> None:
    async with the_page(tmp_path) as (tab, _):
        tab_cannot = "(f => { try { f(); return false } catch { return true } })"
        evaluate = tab.page.evaluate
        assert await evaluate(f"{tab_cannot}(() => {{ document.body.innerHTML = '<b>x</b>' }})")
        assert await evaluate(f"{tab_cannot}(() => document.createElement('script').src = '/page/page.js')")
        refused = [said for said in tab.complaints if "TrustedHTML" in said or "TrustedScriptURL" in said]
        assert len(refused) == 2
        tab.complaints.clear()
