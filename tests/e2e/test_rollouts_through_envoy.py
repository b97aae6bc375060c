"""Rollouts through Envoy: canaries that are good, bad in every way, and servers that die in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from demo.stand_in import Behaviour
from tests.support.mesh import CONFIGS, LIMIT_S, Mesh, running_mesh
from tests.support.redis_server import running_redis
from tests.support.rollout_traffic import CLIENTS, OVER, Rollout

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = CONFIGS / "rollout.yaml"
PROVIDERS = ("openai", "coder", "next")
TEXTS = {
    "healthy": "write new functions, scripts, queries or boilerplate code from a description",
    "failing": "plan trips, find and book flights, hotels, trains and things to see",
    "slow": "write stories, poems, song lyrics, slogans and other imaginative texts",
    "dear": "help with an order, a refund, a delivery, an invoice or an account problem",
    "wrong": "cooking and recipes: what to eat, and how to prepare a dish from what is in the fridge",
    "broken": "contracts, leases, terms and conditions, privacy and other questions of law",
    "saved": "sports and fitness, training plans, exercises and the rules of ball games",
}


def rollout_of(mesh: Mesh, policy: str) -> Rollout:
    return Rollout(mesh, policy, TEXTS[policy])


@asynccontextmanager
async def a_mesh(folder: Path, store: str | None = None) -> AsyncIterator[Mesh]:
    environ = {"ROLLOUT_STORE": store or str(folder / "rollouts.sqlite")}
    async with running_mesh(CONFIG, folder, *PROVIDERS, environ=environ) as mesh:
        yield mesh


RIGHT = "Boil the pasta, then toss it in a pan with garlic, oil and a handful of parsley."
WRONG = "The general assembly of shareholders elects the board of directors every year."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with a_mesh(tmp_path_factory.mktemp("rollouts")) as mesh:
        yield mesh


@pytest.fixture
def mesh(shared: Mesh) -> Mesh:
    shared.forget()
    return shared


async def test_a_healthy_canary_walks_its_steps_and_is_promoted(mesh: Mesh) -> None:
    rollout = rollout_of(mesh, "healthy")
    await rollout.tell("start")
    async with rollout.traffic():
        found = await rollout.becomes(*OVER)
    assert found["current"]["phase"] == "promoted", found
    events = await rollout.events()
    weights = [event["after_per_10k"] for event in events if event["cause"] == "step"]
    assert weights == [500, 2_500, 5_000, 10_000]
    assert [event["cause"] for event in events].count("analysis_passed") == 3
    rollout.answered.clear()
    for _ in range(20):
        await rollout.ask()
    assert rollout.to_canary() == 20


@pytest.mark.parametrize(
    ("policy", "present", "canary", "metric"),
    [
        ("failing", Behaviour(), Behaviour(fail_every=20), "error_rate"),
        ("slow", Behaviour(delay_s=0.15), Behaviour(delay_s=0.3), "latency_p50"),
        ("dear", Behaviour(tokens=50), Behaviour(tokens=150), "cost"),
        ("wrong", Behaviour(text=RIGHT), Behaviour(text=WRONG), "similarity"),
    ],
)
async def test_a_bad_canary_is_rolled_back(
    mesh: Mesh, policy: str, present: Behaviour, canary: Behaviour, metric: str
) -> None:
    mesh.providers["coder"].behave, mesh.providers["next"].behave = present, canary
    rollout = rollout_of(mesh, policy)
    await rollout.tell("start")
    async with rollout.traffic():
        found = await rollout.becomes(*OVER)
    last = (await rollout.events())[-1]
    assert (last["cause"], last["to_phase"], last["after_per_10k"]) == ("analysis_failed", "aborted", 0)
    (finding,) = last["findings"]
    assert (finding["metric"], finding["outcome"]) == (metric, "worse")
    assert finding["canary"] > (finding["baseline"] or 0.0)
    # What was exposed is told, and nothing is exposed any more.
    assert 0 < last["exposed"] <= found["exposed"] <= rollout.to_canary()
    rollout.answered.clear()
    for _ in range(20):
        await rollout.ask()
    assert rollout.to_canary() == 0


async def test_a_hard_limit_takes_effect_between_two_looks(mesh: Mesh) -> None:
    rollout = rollout_of(mesh, "broken")
    await rollout.tell("start")
    mesh.providers["next"].behave = Behaviour(status=500)
    async with rollout.traffic(clients=1):
        found = await rollout.becomes("aborted")
    last = (await rollout.events())[-1]
    assert (last["cause"], last["breach"]["value"], last["breach"]["requests"]) == ("hard_limit", 1.0, 5)
    failed = [at for at, model, status in rollout.answered if model == "vllm/next" and status == 500]
    assert last["at"] - failed[4] < 2.0
    # One client: a few more at most, while the fifth failure was being seen. The next look is in an hour.
    assert 5 <= found["exposed"] <= len(failed) <= 30


async def test_a_canary_whose_answers_are_saved_by_a_fallback_is_rolled_back(mesh: Mesh) -> None:
    rollout = rollout_of(mesh, "saved")
    await rollout.tell("start")
    mesh.providers["next"].behave = Behaviour(status=503)
    async with rollout.traffic(clients=1):
        await rollout.becomes("aborted")
    last = (await rollout.events())[-1]
    assert (last["cause"], last["breach"]["value"], last["breach"]["requests"]) == ("hard_limit", 1.0, 5)
    # No client noticed: the second in the list answered.
    models = {model for _, model, status in rollout.answered if status == 200}
    assert models == {"vllm/coder", "openai/gpt-4o-mini"}
    assert len(rollout.answered) == sum(status == 200 for _, _, status in rollout.answered)
    assert await mesh.counted("arch_ext_proc_answer_errors_total", policy="saved") == 0


async def test_a_fallback_that_breaks_off_too_is_one_failure_of_the_canary(mesh: Mesh) -> None:
    rollout = rollout_of(mesh, "saved")
    await rollout.tell("start")
    mesh.providers["next"].behave = Behaviour(status=503)
    mesh.providers["openai"].behave = Behaviour(reset_after=2)
    broken = 0
    while broken < 3:
        try:
            await rollout.ask(stream=True)
        except aiohttp.ClientPayloadError:
            broken += 1
    errors, cut = ("arch_ext_proc_answer_errors_total", "arch_ext_proc_answers_cut_total")
    labels = {"policy": "saved", "arm": "canary"}
    async with asyncio.timeout(LIMIT_S):
        while min(await mesh.counted(errors, **labels), await mesh.counted(cut, **labels)) < broken:
            await asyncio.sleep(0.05)
    # Two streams told of each, and five failures in a row would be too many.
    found = await rollout.show()
    assert (found["current"]["phase"], found["exposed"]) == ("progressing", 3)
    await rollout.tell("abort")


async def test_a_canary_that_breaks_its_answers_off_is_rolled_back(mesh: Mesh) -> None:
    rollout = rollout_of(mesh, "broken")
    await rollout.tell("start")
    mesh.providers["next"].behave = Behaviour(reset_after=2)
    failed_before = await mesh.counted("arch_ext_proc_answer_errors_total", policy="broken", arm="canary")
    broken = 0
    async with asyncio.timeout(LIMIT_S):
        while (await rollout.show())["current"]["phase"] != "aborted":
            try:
                await rollout.ask(stream=True)
            except aiohttp.ClientPayloadError:
                broken += 1
    last = (await rollout.events())[-1]
    assert (last["cause"], last["breach"]["value"], last["breach"]["requests"]) == ("hard_limit", 1.0, 5)
    assert broken >= 5
    # Two streams tell of each, and the one that counts it comes some seconds later.
    cut, errors = ("arch_ext_proc_answers_cut_total", "arch_ext_proc_answer_errors_total")
    labels = {"policy": "broken", "arm": "canary"}
    async with asyncio.timeout(LIMIT_S):
        while await mesh.counted(cut, **labels) < broken:
            await asyncio.sleep(0.05)
    assert (await rollout.show())["exposed"] == broken
    assert await mesh.counted(errors, **labels) == failed_before + broken


async def put_in(rollout: Rollout, phase: str) -> None:
    """Bring a rollout that waits into this phase."""
    if phase != "waiting":
        await rollout.tell("start")
        await rollout.becomes("progressing", weight=50.0)
    if phase == "paused":
        await rollout.tell("pause")
    elif phase == "aborted":
        await rollout.tell("abort")
    elif phase == "promoted":
        await rollout.tell("promote", full=True)


async def test_a_killed_server_comes_back_where_it_was(tmp_path: Path) -> None:
    phases = {"waiting": 0, "progressing": 50, "paused": 50, "promoted": 100, "aborted": 0}
    async with a_mesh(tmp_path) as mesh:
        rollouts = {phase: rollout_of(mesh, policy) for phase, policy in zip(phases, TEXTS, strict=False)}
        # The policy whose weight is 5 % first is the one that waits.
        for phase, rollout in rollouts.items():
            await put_in(rollout, phase)
        before = {phase: await rollout.becomes(phase) for phase, rollout in rollouts.items()}
        await mesh.stack.server.kill()
        await mesh.stack.restart_server()
        for phase, rollout in rollouts.items():
            found = await rollout.show()
            assert found["current"]["weight_here"] == phases[phase], found
            for key in ("phase", "step", "run", "weight", "target"):
                assert found["current"][key] == before[phase]["current"][key]
            assert [event["to_phase"] for event in await rollout.events()][-1:] in ([phase], [])
        # And it goes on from there.
        await rollouts["paused"].tell("resume")
        assert (await rollouts["paused"].becomes("progressing"))["replica"]["leads"]


async def test_of_two_replicas_one_leads_and_the_other_takes_over(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("redis", "one", "two")]
    for folder in folders:
        folder.mkdir()
    async with (
        running_redis(folders[0]) as redis,
        a_mesh(folders[1], redis.url) as one,
        a_mesh(folders[2], redis.url) as two,
    ):
        leading, following = rollout_of(one, "healthy"), rollout_of(two, "healthy")
        replicas = [(await rollout.show())["replica"]["leads"] for rollout in (leading, following)]
        assert replicas == [True, False]
        # Told at the one that follows, done by the one that leads.
        await following.tell("start")
        async with leading.traffic(CLIENTS // 2), following.traffic(CLIENTS // 2):
            await following.becomes("progressing", weight=25.0)
        await one.stack.server.kill()
        async with following.traffic():
            found = await following.becomes(*OVER)
        assert (found["current"]["phase"], found["replica"]["leads"]) == ("promoted", True)
        weights = [event["after_per_10k"] for event in await following.events() if event["cause"] == "step"]
        assert weights == [500, 2_500, 5_000, 10_000]
        await one.stack.restart_server()
        found = await leading.show()
        assert (found["current"]["weight_here"], found["replica"]["leads"]) == (100.0, False)
