"""A policy moves to another model by itself: a good canary is promoted, a bad one is rolled back."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from openai import AsyncOpenAI

from demo.ask import Question, ask
from demo.processes import command
from demo.show import Show
from demo.stack import Stack
from demo.stand_in import Behaviour

POLICY = "customer support"
PROMPT = "help with an order: a refund, the delivery or the invoice"
CANARY_UPSTREAM = "MISTRAL_UPSTREAM"

AT_ONCE = 8
FAILING = 4
"""One in so many requests fails at the bad canary."""

LIMIT_S = 60.0

FASTER = {"interval: 1m": "interval: 250ms", "min_requests: 200": "min_requests: 15"}
"""What of the rollout in `arch_config.yaml` is other here: a day's patience made seconds."""

MARGIN = {
    "metrics: [error_rate, left_share]": (
        "metrics: [{metric: error_rate, max_degradation: 0.3}, {metric: left_share, max_degradation: 0.3}]"
    )
}
"""The usual margin of 3 points takes a few thousand requests to show."""

_sessions = count()


def quicken(config_file: Path) -> None:
    """Have the rollout of a configuration take seconds. Errors: ValueError when it has none like that."""
    text = config_file.read_text()
    for old, new in {**FASTER, **MARGIN}.items():
        if text.count(old) != 1:
            raise ValueError(f"{config_file.name} has not one rollout with {old!r}")
        text = text.replace(old, new)
    config_file.write_text(text)


async def play(show: Show, stack: Stack, client: AsyncOpenAI) -> None:
    """Two rollouts of the same policy, one after the other."""
    for old, new in {**FASTER, **MARGIN}.items():
        show.line(f"  for this demo: {old}  →  {new}")
    good = await _run(show, stack, client)
    show.expect(good["current"]["phase"] == "promoted", "the good canary was promoted", _why(good))
    stack.stand_ins[CANARY_UPSTREAM].behave = Behaviour(fail_every=FAILING)
    show.line(f"  now one in {FAILING} requests fails at {good['declared']['target']}")
    bad = await _run(show, stack, client)
    stack.stand_ins[CANARY_UPSTREAM].behave = Behaviour()
    show.expect(
        bad["current"]["phase"] == "aborted",
        f"the bad canary was rolled back: {bad['exposed']} of its answers reached users",
        _why(bad),
    )
    output = await _rollout(show, stack, "list")
    show.line(output)


async def _run(show: Show, stack: Stack, client: AsyncOpenAI) -> dict[str, Any]:
    """Start it, send sessions until it is over, and tell what happens meanwhile."""
    show.line(await _rollout(show, stack, "start", POLICY))
    show.progress(f"new sessions, {AT_ONCE} at a time: “{PROMPT}” …")
    told = 0
    async with aiohttp.ClientSession(stack.admin_url) as admin, _traffic(client), asyncio.timeout(LIMIT_S):
        while True:
            found: dict[str, Any] = await _get(admin, f"/rollouts/{POLICY}")
            events = (await _get(admin, f"/rollouts/{POLICY}/history"))["events"]
            events = [event for event in events if event["run"] == found["current"]["run"]]
            for event in events[told:]:
                show.progress(f"  {event['text']} ({event['exposed']} answers of the canary so far)")
            told = len(events)
            if found["current"]["phase"] in ("promoted", "aborted"):
                return found
            await asyncio.sleep(0.2)


@asynccontextmanager
async def _traffic(client: AsyncOpenAI) -> AsyncIterator[None]:
    """Sessions that come one after the other, a few at a time."""

    async def work() -> None:
        while True:
            session = f"rollout-{next(_sessions)}"
            question = Question(({"role": "user", "content": PROMPT},), session=session)
            await ask(client, question, f"demo-{session}")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(AT_ONCE)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _rollout(show: Show, stack: Stack, *arguments: str) -> str:
    """Run `arch-ext-proc rollout …`; what it printed."""
    show.line(f"$ arch-ext-proc rollout {shlex.join(arguments)}")
    process = await asyncio.create_subprocess_exec(
        command("arch-ext-proc"),
        "rollout",
        *arguments,
        env={**os.environ, "ARCH_ADMIN_URL": stack.admin_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode().rstrip()
    if process.returncode:
        show.problem(text)
    return text


async def _get(session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(quote(path, safe="/?=&")) as answer:
        return await answer.json()


def _why(found: dict[str, Any]) -> str:
    return f"it is {found['current']['phase']}: {found['current']['text']}"
