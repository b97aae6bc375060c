"""Splits whose weights Envoy holds: the same arms as by this server, until somebody changes them there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from urllib.parse import quote, urlencode

import pytest
import pytest_asyncio

from demo.stand_in import Behaviour
from ext_proc.core import headers
from ext_proc.core.split import choose_arm
from tests.support.mesh import (
    CLIENT_KEY,
    CONFIGS,
    LIMIT_S,
    PROVIDER_KEYS,
    Mesh,
    chat,
    no_secret_in,
    running_mesh,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSIONS = 2_000
OF_ARM = {"baseline": "coder", "canary": "next", "canary-2": "local"}
"""The stand-in behind each arm."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def splitting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("split")
    async with running_mesh(CONFIGS / "split_by_envoy.yaml", folder, "openai", *OF_ARM.values()) as mesh:
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(splitting: Mesh) -> Mesh:
    splitting.forget()
    await weigh(splitting, {"baseline": "", "canary": "", "canary-2": ""})
    return splitting


async def weigh(mesh: Mesh, weights: dict[str, str], policy: str = "code generation") -> None:
    """Change Envoy's weights; an empty one is what was rendered."""
    keys = {f"arch.split.arch-arm/{policy}/{arm}": weight for arm, weight in weights.items()}
    async with mesh.http.post(
        f"{mesh.stack.envoy_admin_url}/runtime_modify?{urlencode(keys, quote_via=quote)}"
    ) as answer:
        assert answer.status == 200, await answer.text()


async def test_envoy_gives_each_session_the_arm_that_this_server_would(mesh: Mesh) -> None:
    route = mesh.stack.configuration.snapshot.routes["code generation"]
    sessions = iter(range(SESSIONS))

    async def work() -> None:
        for number in sessions:
            assert (await mesh.ask("hi code", session=f"session-{number}")).status == 200

    asked = sum((await mesh.envoy_stats("ext_proc.streams_started")).values())
    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(work())
    assert sum((await mesh.envoy_stats("ext_proc.streams_started")).values()) - asked == SESSIONS
    for arm, name in OF_ARM.items():
        for seen in mesh.providers[name].seen:
            assert seen.headers.getall(headers.ARM) == [arm]
            assert choose_arm(route.arms, int(seen.headers[headers.BUCKET])).name == arm
    assert sum(mesh.counts().values()) == SESSIONS
    assert set(mesh.counts()) == set(OF_ARM.values())


async def test_weights_changed_in_envoy_hold_and_each_provider_gets_its_own(mesh: Mesh) -> None:
    await weigh(mesh, {"baseline": "0", "canary": "10000", "canary-2": "0"})
    body = chat("hi code")
    replies = [
        await mesh.send(body, headers=[("x-arch-session", f"session-{number}")]) for number in range(40)
    ]
    assert Counter((reply.status, reply.model) for reply in replies) == {(200, "vllm/next"): 40}
    assert mesh.counts() == {"next": 40}
    for seen in mesh.providers["next"].seen:
        assert (seen.model, seen.path) == ("next", "/v1/chat/completions")
        assert seen.headers.getall("x-next-key") == [PROVIDER_KEYS["NEXT_KEY"]]
        assert seen.headers.getall(headers.ARM) == ["canary"]
        assert no_secret_in(seen, PROVIDER_KEYS["CODER_KEY"], CLIENT_KEY)


async def test_an_arm_that_fails_is_followed_by_the_fallbacks_and_by_no_other_arm(mesh: Mesh) -> None:
    for name in OF_ARM.values():
        mesh.providers[name].behave = Behaviour(status=503)
    replies = [await mesh.ask("hi code", session=f"session-{number}") for number in range(20)]
    assert {(reply.status, reply.model) for reply in replies} == {(200, "openai/gpt-4o-mini")}
    assert {reply.headers["x-arch-attempts"] for reply in replies} == {"2"}
    assert sum(len(mesh.providers[name].seen) for name in OF_ARM.values()) == 20


async def test_a_call_that_some_arm_cannot_serve_is_split_by_this_server(mesh: Mesh) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for number in range(60):
        body = chat("hi code", tools=tools)
        assert (await mesh.send(body, headers=[("x-arch-session", f"session-{number}")])).status == 200
    assert not mesh.providers["next"].seen
    assert set(mesh.counts()) == {"coder", "local", "openai"}


TESTER = [(headers.TRY_ARM, "canary-2"), (headers.TRY_KEY, "the-key-of-the-testers")]
NO_TESTER = [TESTER[0], (headers.TRY_KEY, "the-key-of-the-tester")]


async def models_of(mesh: Mesh, given: list[tuple[str, str]]) -> list[str | None]:
    sessions = [("x-arch-session", f"session-{number}") for number in range(30)]
    return [(await mesh.send(chat("hi code"), headers=[*given, session])).model for session in sessions]


async def test_a_tester_gets_the_arm_asked_for_and_no_provider_learns_the_key(mesh: Mesh) -> None:
    by_bucket = await models_of(mesh, [])
    assert len(set(by_bucket)) == 3
    assert set(await models_of(mesh, TESTER)) == {"local/third"}
    assert await models_of(mesh, NO_TESTER) == by_bucket
    await mesh.send(None, "/v1/models", method="GET", headers=TESTER)
    await mesh.send(b"{bad", headers=TESTER)
    for provider in mesh.providers.values():
        for seen in provider.seen:
            assert not {headers.TRY_ARM, headers.TRY_KEY} & {name.lower() for name in seen.headers}


async def test_listed_sessions_get_their_arm_whatever_the_weights(mesh: Mesh) -> None:
    assert (await mesh.ask("hi code", session="colleague")).model == "vllm/next"
    assert (await mesh.ask("hi code", user="colleague")).model == "vllm/next"
    assert (await mesh.ask("hi code", session="careful")).model == "vllm/coder"
    await weigh(mesh, {"baseline": "0", "canary": "0", "canary-2": "10000"})
    assert (await mesh.ask("hi code", session="careful")).model == "vllm/coder"


async def test_answers_are_counted_for_the_model_that_envoy_chose(mesh: Mesh) -> None:
    """Their arm is the one that the file's weights give, here the baseline."""
    await weigh(mesh, {"baseline": "0", "canary": "10000"}, "legal")
    for number in range(20):
        reply = await mesh.ask("questions of law, contracts and privacy", session=f"session-{number}")
        assert (reply.status, reply.policy, reply.model) == (200, "legal", "vllm/next")
    # No other test's answers are observed.
    name = "arch_ext_proc_answers_total"
    async with asyncio.timeout(LIMIT_S):
        while await mesh.counted(name) < 20:
            await asyncio.sleep(0.02)
    labels = {"policy": "legal", "model": "vllm/next", "arm": "baseline", "status": "2xx", "role": "primary"}
    assert await mesh.counted(name, **labels) == await mesh.counted(name) == 20
