"""Many sessions: what a 90/10 split and a 20 % shadow do to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from time import perf_counter
from typing import Any

import aiohttp
from openai import AsyncOpenAI

from demo.ask import Answer, Question, ask
from demo.conversations import arrived
from demo.decisions import DecisionLog
from demo.show import Show, new_table, share
from demo.stack import Stack

SESSIONS = 200
AT_ONCE = 4
"""Few enough that no request waits long for the router, even on a slow core."""

SPLIT_PROMPT = "write a Python function that sorts a list of names"
SHADOW_PROMPT = "explain what this piece of code does and find the bug in it"
UNDECIDED = "None"
"""The arm, or the shadow, of a request that no policy decided: the router was late on a busy machine."""

_COPIES_LIMIT_S = 20.0


async def play(show: Show, stack: Stack, client: AsyncOpenAI, log: DecisionLog) -> list[str]:
    """Send two requests per session, so that it shows who stays; then print where they went.

    The arm of each session.
    """
    show.progress(f"{SESSIONS} sessions, 2 requests each: “{SPLIT_PROMPT}” …")
    first = await from_all(show, client, SPLIT_PROMPT, "split-1")
    second = await from_all(show, client, SPLIT_PROMPT, "split-2")
    show.progress(f"{SESSIONS} sessions, 1 request each: “{SHADOW_PROMPT}” …")
    shadowed = await from_all(show, client, SHADOW_PROMPT, "shadow")
    answers = [*first, *second, *shadowed]
    for error in {answer.error for answer in answers if answer.error}:
        show.problem(error)
    arms = [await arms_of(log, batch) for batch in (first, second)]
    copies = [
        (answer, shadow)
        for answer, shadow in zip(shadowed, await _logged(log, shadowed, "shadow"), strict=True)
        if shadow != UNDECIDED
    ]
    _print(show, stack, first, arms[0], copies)
    pairs = [pair for pair in zip(*arms, strict=True) if UNDECIDED not in pair]
    moved = sum(before != after for before, after in pairs)
    show.expect(moved == 0, f"no session changed its arm with its second request ({len(pairs)} sessions)")
    if len(pairs) < SESSIONS:
        show.line(
            f"  {SESSIONS - len(pairs)} sessions found the router busy and went to the default provider"
        )
    arrived_copies = await _await_copies(stack, [answer for answer, _ in copies])
    show.expect(
        arrived_copies == len(copies) > 0,
        f"{len(copies)} of {len(copies)} copies reached the shadow's upstream; their answers no client saw",
        f"{arrived_copies} did",
    )
    await _show_comparisons(show, stack, len(copies))
    to_canary = {
        model for model, arm in zip((a.model for a in first), arms[0], strict=True) if arm == "canary"
    }
    show.expect(len(to_canary) == 1, "every session of the canary was answered by the canary's model")
    return arms[0]


async def from_all(show: Show, client: AsyncOpenAI, prompt: str, name: str) -> list[Answer]:
    """One request from each session, a few at a time; a line whenever another second has passed."""
    gate = asyncio.Semaphore(AT_ONCE)
    done, told = 0, perf_counter()

    async def one(number: int) -> Answer:
        nonlocal done, told
        question = Question(({"role": "user", "content": prompt},), session=f"user-{number}")
        async with gate:
            answer = await ask(client, question, f"demo-{name}-{number}")
        done += 1
        if perf_counter() - told > 2:
            told = perf_counter()
            show.progress(f"  {done} of {SESSIONS}")
        return answer

    return await asyncio.gather(*map(one, range(SESSIONS)))


async def arms_of(log: DecisionLog, answers: Iterable[Answer]) -> list[str]:
    """Which arm each answer came from."""
    return await _logged(log, answers, "arm")


async def _logged(log: DecisionLog, answers: Iterable[Answer], field: str) -> list[str]:
    return [str((await log.find(answer.request_id)).get(field)) for answer in answers]


def _print(
    show: Show, stack: Stack, answers: list[Answer], arms: list[str], copies: list[tuple[Answer, str]]
) -> None:
    table = new_table()
    for name in ("policy", "arm", "model", "configured", "sessions", "share"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("sessions", "share") else "left")
    counts = Counter(zip(arms, (answer.model for answer in answers), strict=True))
    routes = stack.configuration.snapshot.routes
    for policy, route in routes.items():
        numbers = [counts[(arm.name, arm.target.model)] for arm in route.arms]
        if len(route.arms) > 1 and any(numbers):
            for arm, number in zip(route.arms, numbers, strict=True):
                configured = f"{arm.weight_per_10k / 100:g} %"
                table.add_row(
                    policy, arm.name, arm.target.model, configured, str(number), share(number, len(answers))
                )
        for shadow in route.shadows:
            number = sum(name == shadow.target.name for _, name in copies)
            configured = f"{shadow.percent_per_10k / 100:g} %"
            table.add_row(
                policy, "shadow", shadow.target.model, configured, str(number), share(number, SESSIONS)
            )
    show.table(table)


async def _show_comparisons(show: Show, stack: Stack, copies: int) -> None:
    """What the server found when it compared the copies' answers with those that clients got."""
    totals: dict[str, Any] = {}
    try:
        async with asyncio.timeout(_COPIES_LIMIT_S), aiohttp.ClientSession() as http:
            while totals.get("pairs", 0) < copies:
                await asyncio.sleep(0.1)
                async with http.get(f"{stack.admin_url}/shadows") as answer:
                    shown = await answer.json()
                totals = next((total for total in shown["totals"] if total["role"] == "shadow"), {})
    except TimeoutError:
        pass
    show.expect(
        totals.get("pairs", 0) >= copies,
        f"their answers were compared: {totals.get('exact') or 0:.0%} the same,"
        f" mean similarity {totals.get('similarity') or 0:.2f}",
        f"{totals.get('pairs', 0)} of {copies} were",
    )


async def _await_copies(stack: Stack, answers: list[Answer]) -> int:
    """How many of these requests reached two upstreams. Copies come when they come: nobody waits for them."""
    try:
        async with asyncio.timeout(_COPIES_LIMIT_S):
            while any(len(arrived(stack, answer.request_id)) < 2 for answer in answers):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    except TimeoutError:
        pass
    return sum(len(arrived(stack, answer.request_id)) == 2 for answer in answers)
