"""A second router beside the one in charge."""

from __future__ import annotations

import asyncio

import pytest

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.settings import RouterSettings
from ext_proc.core.types import Policy, Scores, Verdict
from ext_proc.router.ask import RouterAsker
from ext_proc.router.shadow import ShadowedAsker
from ext_proc.telemetry import Telemetry
from tests.support.builders import a_route, a_snapshot, a_target
from tests.unit.router.test_ask import GOOD, MESSAGES, POLICIES, FakeRouter, question, raises, returns, turns

SETTINGS = RouterSettings("fake", 60.0, None, 64)
LEGAL = Scores((0.1, 0.8), 0.1)


class Reports(list[tuple[Verdict, Verdict]]):
    def take(self, decided: Verdict, shadow: Verdict) -> None:
        self.append((decided, shadow))


async def shadowed(
    router: FakeRouter, shadow: FakeRouter, reports: Reports, percent: float = 100
) -> ShadowedAsker:
    asker = ShadowedAsker(
        RouterAsker(router, SETTINGS), RouterAsker(shadow, SETTINGS), round(percent * 100), reports.take
    )
    await asker.prepare(POLICIES)
    return asker


async def test_the_router_in_charge_decides_and_the_other_is_compared() -> None:
    reports = Reports()
    subject = await shadowed(returns(GOOD), returns(LEGAL), reports)
    assert (await subject.ask(MESSAGES, POLICIES)).policy == "code"
    assert reports == []
    await turns()
    ((decided, shadow),) = reports
    assert (decided.policy, shadow.policy) == ("code", "legal")


async def test_a_shadow_that_hangs_or_fails_holds_up_nobody() -> None:
    forever = asyncio.Event()

    async def hang() -> Scores:
        await forever.wait()
        return GOOD

    reports = Reports()
    subject = await shadowed(returns(GOOD), FakeRouter(hang), reports)
    assert (await subject.ask(MESSAGES, POLICIES)).policy == "code"
    forever.set()
    subject = await shadowed(returns(GOOD), raises(RouterError(Reason.ROUTER_BUSY, "full")), reports)
    assert (await subject.ask(MESSAGES, POLICIES)).policy == "code"
    await turns()
    assert [shadow.failure for _, shadow in reports] == [None, Reason.ROUTER_BUSY]


async def test_a_shadow_that_takes_long_to_load_holds_up_nobody_and_is_asked_when_it_is_there() -> None:
    loaded = asyncio.Event()

    class Slow(FakeRouter):
        async def prepare(self, policies: tuple[Policy, ...]) -> None:
            await loaded.wait()

    async def legal() -> Scores:
        return LEGAL

    reports, shadow = Reports(), Slow(legal)
    subject = ShadowedAsker(
        RouterAsker(returns(GOOD), SETTINGS),
        RouterAsker(shadow, SETTINGS),
        10_000,
        reports.take,
        patience_s=0.001,
    )
    await subject.prepare(POLICIES)
    assert (await subject.ask(MESSAGES, POLICIES)).policy == "code"
    await turns()
    assert shadow.calls == 0
    loaded.set()
    await turns()
    await subject.ask(MESSAGES, POLICIES)
    await turns()
    assert len(reports) == 1
    await subject.close()


async def test_a_share_of_the_conversations_is_asked_about_and_always_the_same() -> None:
    shadow = returns(LEGAL)
    subject = await shadowed(returns(GOOD), shadow, Reports(), percent=25)
    for _ in range(2):
        for number in range(200):
            await subject.ask(question(number), POLICIES)
    await turns()
    asked = shadow.calls / 2
    assert asked == int(asked)
    assert 30 <= asked <= 70


async def test_failures_and_policies_of_a_request_are_left_out() -> None:
    shadow = returns(LEGAL)
    failing = await shadowed(raises(ValueError()), shadow, Reports())
    await failing.ask(MESSAGES, POLICIES)
    fine = await shadowed(returns(GOOD), shadow, Reports())
    await fine.ask(MESSAGES, (Policy("mine", "x"), Policy("yours", "y")))
    await turns()
    assert shadow.calls == 0


@pytest.mark.parametrize(
    ("shadow", "said"),
    [
        (Verdict("code"), 'policy="code",said="same"'),
        (Verdict(None), 'policy="code",said="other"'),
        (Verdict(failure=Reason.ROUTER_TIMEOUT), 'policy="code",said="failed"'),
    ],
)
def test_agreement_is_counted_by_policy(shadow: Verdict, said: str) -> None:
    telemetry = Telemetry()
    telemetry.follow(lambda: a_snapshot(routes=(a_route(a_target(), policy="code"),)))
    telemetry.shadow_router_said(Verdict("code", (("code", 1.0),)), shadow)
    assert f"arch_ext_proc_shadow_router_total{{{said}}} 1.0" in telemetry.exposition().decode()


async def test_closing_closes_both() -> None:
    router, shadow = returns(GOOD), returns(GOOD)
    await (await shadowed(router, shadow, Reports())).close()
    assert router.closed
    assert shadow.closed
