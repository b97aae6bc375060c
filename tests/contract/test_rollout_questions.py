"""A rollout that asks outside before it goes on: hooks, checks and listeners over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from ext_proc.core.rollout_plan import Hook
from ext_proc.core.rollout_settings import Endpoint, PolicyRollout, WebhookCheck
from ext_proc.core.rollout_types import Phase
from ext_proc.core.types import Secret
from tests.support.answering import Answering, answering
from tests.support.replicas import Replica, a_plan, a_replica, settings_of


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Answering]:
    async with answering() as server:
        yield server


def at(server: Answering, path: str) -> Endpoint:
    return Endpoint(Secret(server.url + path), None, 30.0)


def asking(file: Path, server: Answering, *hooks: Hook, has_check: bool = False) -> Replica:
    """A replica whose rollout asks these hooks, each at the path of its name."""
    checks = (WebhookCheck("evals", at(server, "/evals"), None),) if has_check else ()
    rollout = PolicyRollout(
        a_plan(hooks=frozenset(hooks), checks=tuple(check.name for check in checks)),
        hooks={hook: (at(server, f"/{hook}"),) for hook in hooks},
        listeners=(at(server, "/events"),),
        checks=checks,
    )
    return a_replica(file, settings=settings_of(rollout))


async def until(one: Replica, holds: Callable[[], bool]) -> None:
    """Turn until it holds; answers come on their own time."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)
            await one.turns()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rollouts.sqlite"


async def test_a_weight_rises_only_when_its_hook_agrees(file: Path, server: Answering) -> None:
    server.statuses["/confirm-rollout"] = 503
    one = asking(file, server, Hook.CONFIRM_ROLLOUT)
    await until(one, lambda: len(server.asked("/confirm-rollout")) >= 3)
    assert (one.state.phase, one.weight) == (Phase.PROGRESSING, 0)
    server.statuses["/confirm-rollout"] = 200
    await until(one, lambda: one.weight == 500)
    question = json.loads(server.asked("/confirm-rollout")[0])
    assert (question["policy"], question["asked"], question["weight"]) == ("coding", "confirm-rollout", 0)
    await one.controller.stop()


async def test_a_hook_that_denies_pauses(file: Path, server: Answering) -> None:
    server.statuses["/confirm-rollout"] = 403
    one = asking(file, server, Hook.CONFIRM_ROLLOUT)
    await until(one, lambda: one.state.phase is Phase.PAUSED)
    assert one.weight == 0
    await one.controller.stop()


async def test_promotion_waits_for_its_hook(file: Path, server: Answering) -> None:
    server.statuses["/confirm-promotion"] = 503
    one = asking(file, server, Hook.CONFIRM_PROMOTION)
    await one.walk(10_000)
    await until(one, lambda: len(server.asked("/confirm-promotion")) >= 2)
    assert one.state.phase is Phase.PROGRESSING
    server.statuses["/confirm-promotion"] = 200
    await until(one, lambda: one.state.phase is Phase.PROMOTED)
    await one.controller.stop()


async def test_the_rollback_hook_rolls_back(file: Path, server: Answering) -> None:
    server.statuses["/rollback"] = 503
    one = asking(file, server, Hook.ROLLBACK)
    await one.walk(2_500)
    server.statuses["/rollback"] = 200
    await until(one, lambda: one.state.phase is Phase.ABORTED)
    assert one.weight == 0
    assert (await one.causes())[-1] == "rollback_hook"
    await one.controller.stop()


async def test_a_step_waits_for_its_checks_and_fails_with_them(file: Path, server: Answering) -> None:
    server.content = {"verdict": "inconclusive"}
    one = asking(file, server, has_check=True)
    one.answers(5)
    await until(one, lambda: len(server.asked("/evals")) >= 3)
    one.answers(5)
    await one.turns(3)
    assert one.weight == 500
    server.content = {"verdict": "pass"}
    await until(one, lambda: one.weight == 2_500)
    server.content = {"verdict": "fail"}
    await until(one, lambda: one.state.phase is Phase.ABORTED)
    assert (await one.causes())[-1] == "check_failed"
    await one.controller.stop()


async def test_listeners_get_every_event(file: Path, server: Answering) -> None:
    one = asking(file, server)
    await one.walk(2_500)
    one.answers(3, status=500)
    await one.turns()
    causes = await one.causes()
    await until(one, lambda: len(server.asked("/events")) == len(causes))
    told = [json.loads(event) for event in server.asked("/events")]
    assert sorted(event["cause"] for event in told) == sorted(causes)
    (breach,) = [event for event in told if event["cause"] == "hard_limit"]
    assert (breach["breach"]["requests"], breach["after_per_10k"]) == (3, 0)
    await one.controller.stop()
