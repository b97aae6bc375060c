"""`RouterAsker`: whatever a router does, a request gets a verdict in time."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

import pytest

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.settings import RouterSettings
from ext_proc.core.types import Message, Policy, Scores, Verdict
from ext_proc.router.ask import RouterAsker, verdict_of

POLICIES = (Policy("code", "write code"), Policy("legal", "questions of law"))
MESSAGES = (Message("user", "a secret text"),)
GOOD = Scores((0.7, 0.2), 0.1)


class FakeRouter:
    """Answers with whatever `answer` does, and counts."""

    def __init__(self, answer: Callable[[], Awaitable[Scores]]) -> None:
        self._answer = answer
        self.calls = 0
        self.cancelled = 0
        self.closed = False

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        pass

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        self.calls += 1
        try:
            return await self._answer()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def close(self) -> None:
        self.closed = True


def returns(scores: Scores) -> FakeRouter:
    async def answer() -> Scores:
        return scores

    return FakeRouter(answer)


def raises(error: BaseException) -> FakeRouter:
    async def answer() -> Scores:
        raise error

    return FakeRouter(answer)


def waits_for(event: asyncio.Event) -> FakeRouter:
    async def answer() -> Scores:
        await event.wait()
        return GOOD

    return FakeRouter(answer)


def asker(router: FakeRouter, deadline_s: float = 60.0, max_waiting: int = 8) -> RouterAsker:
    return RouterAsker(router, RouterSettings("fake", deadline_s, None, max_waiting))


async def test_the_likeliest_policy_wins() -> None:
    verdict = await asker(returns(GOOD)).ask(MESSAGES, POLICIES)
    assert verdict == Verdict("code", (("code", 0.7), ("legal", 0.2)), 0.1)


@pytest.mark.parametrize("none", [0.6, 0.4])
def test_none_wins_where_it_is_as_likely(none: float) -> None:
    verdict = verdict_of(Scores((0.4, 1 - 0.4 - none), none), POLICIES)
    assert verdict.policy is None
    assert verdict.failure is None
    assert verdict.none == none


@pytest.mark.parametrize(
    "scores",
    [
        Scores((math.nan, 0.2), 0.1),
        Scores((0.7, 0.2), math.nan),
        Scores((math.inf, 0.2), 0.1),
        Scores((0.7, 0.2), -math.inf),
        Scores((1.7, -0.8), 0.1),
        Scores((0.7, 0.7), 0.7),
        Scores((0.9,), 0.1),
        Scores((0.4, 0.4, 0.1), 0.1),
        Scores((), 1.0),
    ],
)
async def test_scores_that_are_no_probabilities_are_garbled(scores: Scores) -> None:
    verdict = await asker(returns(scores)).ask(MESSAGES, POLICIES)
    assert verdict == Verdict(failure=Reason.ROUTER_GARBLED)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RouterError(Reason.ROUTER_UNREACHABLE, "a secret text"), Reason.ROUTER_UNREACHABLE),
        (RouterError(Reason.ROUTER_BUSY, "full"), Reason.ROUTER_BUSY),
        (ValueError("a secret text"), Reason.ROUTER_ERROR),
        (TimeoutError("of its own"), Reason.ROUTER_ERROR),
    ],
)
async def test_what_a_router_raises_is_a_reason_and_its_text_stays_out_of_the_log(
    error: Exception, reason: Reason, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        verdict = await asker(raises(error)).ask(MESSAGES, POLICIES)
    assert verdict == Verdict(failure=reason)
    assert not any("secret" in repr(vars(record)) for record in caplog.records)


async def test_a_router_that_is_cancelled_without_its_caller_has_failed() -> None:
    verdict = await asker(raises(asyncio.CancelledError())).ask(MESSAGES, POLICIES)
    assert verdict == Verdict(failure=Reason.ROUTER_ERROR)


async def test_the_deadline_ends_the_wait_and_cancels_the_router() -> None:
    router = waits_for(asyncio.Event())
    subject = asker(router, deadline_s=0.0)
    for _ in range(3):
        assert await subject.ask(MESSAGES, POLICIES) == Verdict(failure=Reason.ROUTER_TIMEOUT)
    assert router.cancelled == router.calls


async def test_one_more_than_may_wait_is_turned_away_at_once_and_the_slots_come_back() -> None:
    event = asyncio.Event()
    router = waits_for(event)
    subject = asker(router, max_waiting=2)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(subject.ask(MESSAGES, POLICIES)) for _ in range(2)]
        await asyncio.sleep(0)
        assert await subject.ask(MESSAGES, POLICIES) == Verdict(failure=Reason.ROUTER_BUSY)
        assert router.calls == 2
        event.set()
    assert [task.result().policy for task in waiting] == ["code", "code"]
    assert (await subject.ask(MESSAGES, POLICIES)).policy == "code"


async def test_the_callers_cancellation_passes_through_and_frees_the_slot() -> None:
    event = asyncio.Event()
    router = waits_for(event)
    subject = asker(router, max_waiting=1)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(subject.ask(MESSAGES, POLICIES))
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert router.cancelled == 1
    event.set()
    assert (await subject.ask(MESSAGES, POLICIES)).policy == "code"


async def test_a_router_is_not_asked_about_nothing() -> None:
    router = returns(GOOD)
    subject = asker(router)
    assert await subject.ask(MESSAGES, ()) == Verdict(failure=Reason.NO_POLICIES)
    assert await subject.ask((), POLICIES) == Verdict(failure=Reason.NO_CONVERSATION)
    assert router.calls == 0


async def test_closing_closes_the_router() -> None:
    router = returns(GOOD)
    await asker(router).close()
    assert router.closed
