"""`RouterAsker`: whatever a router does, a request gets a verdict in time."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

import pytest

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.settings import MemorySettings, RouterSettings
from ext_proc.core.types import Message, Policy, Scores, Verdict
from ext_proc.core.verdict import verdict_of
from ext_proc.router.ask import RouterAsker
from ext_proc.router.cache import MAX_KEPT_SCORES, MAX_KEY_CHARS, VerdictCache

POLICIES = (Policy("code", "write code"), Policy("legal", "questions of law"))
MESSAGES = (Message("user", "a secret text"),)
NONE_KEPT = MemorySettings(size=0, ttl_s=0)
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


def asker(
    router: FakeRouter,
    deadline_s: float = 60.0,
    max_waiting: int = 8,
    cache: MemorySettings = NONE_KEPT,
    count: Callable[[str], None] = lambda source: None,
    failed: Callable[[Reason], None] = lambda reason: None,
    clock: Callable[[], float] = lambda: 0.0,
) -> RouterAsker:
    settings = RouterSettings("fake", deadline_s, None, max_waiting, cache=cache)
    return RouterAsker(router, settings, count, failed, clock)


def question(number: int) -> tuple[Message, ...]:
    return (Message("user", f"question {number}"),)


async def turns() -> None:
    """Let the loop run what is ready: a request's task, then its question's."""
    for _ in range(5):
        await asyncio.sleep(0)


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
        (RouterError(Reason.ROUTER_UNREACHABLE, "nobody is there"), Reason.ROUTER_UNREACHABLE),
        (RouterError(Reason.ROUTER_BUSY, "full"), Reason.ROUTER_BUSY),
        (ValueError("a secret text"), Reason.ROUTER_ERROR),
        (TimeoutError("of its own"), Reason.ROUTER_ERROR),
    ],
)
async def test_what_a_router_raises_is_a_reason_and_its_text_stays_out_of_the_log(
    error: Exception, reason: Reason, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Reason] = []
    with caplog.at_level(logging.DEBUG):
        verdict = await asker(raises(error), failed=failures.append).ask(MESSAGES, POLICIES)
    assert verdict == Verdict(failure=reason)
    assert failures == [reason]
    assert not any("secret" in repr(vars(record)) for record in caplog.records)
    if isinstance(error, RouterError):
        # What we say ourselves names no content, and tells an operator what to do.
        assert any(str(error) in repr(vars(record)) for record in caplog.records)


async def test_a_router_that_is_cancelled_without_its_caller_has_failed() -> None:
    verdict = await asker(raises(asyncio.CancelledError())).ask(MESSAGES, POLICIES)
    assert verdict == Verdict(failure=Reason.ROUTER_ERROR)


async def test_the_deadline_ends_the_wait_and_cancels_the_router() -> None:
    router = waits_for(asyncio.Event())
    subject = asker(router, deadline_s=0.0)
    for _ in range(3):
        assert await subject.ask(MESSAGES, POLICIES) == Verdict(failure=Reason.ROUTER_TIMEOUT)
    # A question that nobody waits for any more hears of it with the loop's next turn.
    await asyncio.sleep(0)
    assert router.cancelled == router.calls


async def test_one_more_than_may_wait_is_turned_away_at_once_and_the_slots_come_back() -> None:
    event = asyncio.Event()
    router = waits_for(event)
    subject = asker(router, max_waiting=2)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(subject.ask(question(n), POLICIES)) for n in range(2)]
        await turns()
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
        await turns()
        task.cancel()
    assert task.cancelled()
    await turns()
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


KEPT = MemorySettings(size=2, ttl_s=60.0)


async def test_what_was_answered_is_kept_for_a_while() -> None:
    now, sources = 0.0, list[str]()
    router = returns(GOOD)
    subject = asker(router, cache=KEPT, count=sources.append, clock=lambda: now)
    await subject.prepare(POLICIES)
    first = await subject.ask(MESSAGES, POLICIES)
    assert await subject.ask(MESSAGES, POLICIES) == first
    now = 60.0
    assert await subject.ask(MESSAGES, POLICIES) == first
    assert router.calls == 2
    assert sources == ["router", "cache", "router"]


async def test_what_requests_bring_along_is_not_kept_and_drives_nothing_out() -> None:
    router = returns(GOOD)
    subject = asker(router, cache=KEPT)
    await subject.prepare(POLICIES)
    await subject.ask(MESSAGES, POLICIES)
    for number in range(5):
        await subject.ask(MESSAGES, (POLICIES[0], Policy(f"mine {number}", "x")))
    await subject.ask(MESSAGES, (POLICIES[0], Policy("mine 4", "x")))
    assert router.calls == 7
    await subject.ask(MESSAGES, POLICIES)
    assert router.calls == 7


def test_with_many_policies_fewer_verdicts_are_kept() -> None:
    cache = VerdictCache(MemorySettings(size=1_000, ttl_s=60.0), lambda: 0.0)
    verdict = Verdict("p", tuple((f"p {number}", 0.0) for number in range(MAX_KEPT_SCORES // 10)))
    for number in range(12):
        cache.put(b"%d" % (number % 11), verdict)
    assert [number for number in range(11) if cache.get(b"%d" % number)] == [0, *range(2, 11)]


async def test_the_answer_used_longest_ago_makes_room() -> None:
    router = returns(GOOD)
    subject = asker(router, cache=KEPT)
    await subject.prepare(POLICIES)
    for number in (0, 1, 0, 2, 0, 1):
        await subject.ask(question(number), POLICIES)
    assert router.calls == 4


@pytest.mark.parametrize("error", [RouterError(Reason.ROUTER_UNREACHABLE, "down"), ValueError()])
async def test_a_failure_is_not_kept(error: Exception) -> None:
    router = raises(error)
    subject = asker(router, cache=KEPT)
    await subject.prepare(POLICIES)
    for _ in range(2):
        assert (await subject.ask(MESSAGES, POLICIES)).failure is not None
    assert router.calls == 2


@pytest.mark.parametrize(
    "same",
    [
        (Message("user", " a secret text\n"),),
        (Message("system", "be kind"), *MESSAGES),
        (*MESSAGES, Message("assistant", "calling a tool"), Message("tool", "42")),
    ],
)
async def test_what_no_router_reads_makes_no_other_question(same: tuple[Message, ...]) -> None:
    router = returns(GOOD)
    subject = asker(router, cache=KEPT)
    await subject.prepare(POLICIES)
    await subject.ask(MESSAGES, POLICIES)
    await subject.ask(same, POLICIES)
    assert router.calls == 1


@pytest.mark.parametrize(
    ("messages", "policies"),
    [
        ((Message("user", "another text"),), POLICIES),
        ((Message("user", "a secret"), Message("user", " text")), POLICIES),
        ((Message("assistant", "hi"), *MESSAGES), POLICIES),
        (MESSAGES, POLICIES[:1]),
        (MESSAGES, (POLICIES[0], Policy("legal", "other questions"))),
        (MESSAGES, (POLICIES[0], Policy("legal", "questions of law", examples=("x",)))),
        (MESSAGES, (POLICIES[0], Policy("legal", "questions of law", not_examples=("x",)))),
        (MESSAGES, (POLICIES[0], Policy("legal", "questions of law", "work"))),
    ],
)
async def test_another_question_is_asked(messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> None:
    router = returns(GOOD)
    subject = asker(router, cache=KEPT)
    await subject.prepare(POLICIES)
    await subject.ask(MESSAGES, POLICIES)
    await subject.ask(messages, policies)
    assert router.calls == 2


async def test_a_conversation_too_long_to_be_told_from_others_is_asked_each_time() -> None:
    router = returns(GOOD)
    subject = asker(router, cache=KEPT)
    await subject.prepare(POLICIES)
    messages = (Message("user", "x" * (MAX_KEY_CHARS + 1)),)
    for _ in range(2):
        assert (await subject.ask(messages, POLICIES)).policy == "code"
    assert router.calls == 2


async def test_the_same_question_at_the_same_time_is_asked_once() -> None:
    event, sources = asyncio.Event(), list[str]()
    router = waits_for(event)
    subject = asker(router, max_waiting=1, count=sources.append)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(subject.ask(MESSAGES, POLICIES)) for _ in range(5)]
        await turns()
        event.set()
    assert [task.result().policy for task in waiting] == ["code"] * 5
    assert router.calls == 1
    assert sources == ["router", *["flight"] * 4]


async def test_the_first_to_ask_may_go_without_harm_to_the_others() -> None:
    event = asyncio.Event()
    router = waits_for(event)
    subject = asker(router)
    async with asyncio.TaskGroup() as group:
        first, second = (group.create_task(subject.ask(MESSAGES, POLICIES)) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        assert router.cancelled == 0
        event.set()
    assert first.cancelled()
    assert second.result().policy == "code"
    assert router.calls == 1


async def test_a_question_that_all_have_left_is_asked_anew() -> None:
    event = asyncio.Event()
    router = waits_for(event)
    subject = asker(router)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(subject.ask(MESSAGES, POLICIES))
        await turns()
        first.cancel()
        second = group.create_task(subject.ask(MESSAGES, POLICIES))
        await turns()
        event.set()
    assert second.result().policy == "code"
    assert (router.calls, router.cancelled) == (2, 1)


async def test_closing_ends_the_questions_under_way() -> None:
    router = waits_for(asyncio.Event())
    subject = asker(router)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(subject.ask(MESSAGES, POLICIES))
        await turns()
        await subject.close()
    assert waiting.result() == Verdict(failure=Reason.ROUTER_ERROR)
