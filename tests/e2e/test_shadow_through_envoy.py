"""Copies of sampled sessions: fit for the provider that gets them, unnoticed by the client."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from math import sqrt

import pytest
import pytest_asyncio

from demo.processes import free_port
from demo.stand_in import Behaviour
from tests.support.mesh import (
    CLIENT_KEY,
    CODING,
    CONFIGS,
    PROVIDER_KEYS,
    TRAVELLING,
    Mesh,
    chat,
    eventually,
    no_secret_in,
    running_mesh,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEGAL = "questions of law: contracts, terms and conditions, privacy and compliance"
WRITING = "write a story, a poem, song lyrics, a slogan or another imaginative text"
SUPPORT = "I need help with an order, a refund, a delivery, an invoice or my account"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shadowing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    down = {"DOWN_UPSTREAM": f"http://127.0.0.1:{free_port()}/v1"}
    folder = tmp_path_factory.mktemp("shadow")
    names = ("openai", "next", "anthropic", "local")
    async with running_mesh(CONFIGS / "shadow.yaml", folder, *names, environ=down) as mesh:
        yield mesh


@pytest.fixture
def mesh(shadowing: Mesh) -> Mesh:
    shadowing.forget()
    return shadowing


async def copy_at(mesh: Mesh, name: str) -> None:
    await eventually(lambda: mesh.providers[name].seen, f"a copy at {name}")


async def test_a_copy_has_the_shadow_targets_model_path_host_and_key(mesh: Mesh) -> None:
    body = b'{ "model":"x", "seed": 1E+2, "messages" :[{"role":"user","content":"write a function in code"}]}'
    reply = await mesh.send(body, "/v1/chat/completions?a=1")
    assert (reply.status, reply.policy, reply.model) == (200, "code generation", "openai/gpt-4o")
    assert b"gpt-4o at openai" in reply.body
    await copy_at(mesh, "next")
    (copy,) = mesh.providers["next"].seen
    assert copy.path.partition("?")[0] == "/v1/other/path/chat/completions"
    assert copy.body == body.replace(b'"x"', b'"next"')
    assert copy.headers["host"] == mesh.providers["next"].base_url.split("/")[2]
    assert copy.headers.getall("authorization") == [f"Bearer {PROVIDER_KEYS['NEXT_KEY']}"]
    assert no_secret_in(copy, PROVIDER_KEYS["OPENAI_KEY"], CLIENT_KEY)
    (primary,) = mesh.providers["openai"].seen
    assert primary.body == body.replace(b'"x"', b'"gpt-4o"')
    assert primary.headers.getall("authorization") == [f"Bearer {PROVIDER_KEYS['OPENAI_KEY']}"]


async def test_a_copy_may_carry_its_key_in_another_header(mesh: Mesh) -> None:
    await mesh.ask(TRAVELLING)
    await copy_at(mesh, "anthropic")
    (copy,) = mesh.providers["anthropic"].seen
    assert copy.headers.getall("x-api-key") == [PROVIDER_KEYS["ANTHROPIC_KEY"]]
    assert "authorization" not in copy.headers
    assert no_secret_in(copy, PROVIDER_KEYS["OPENAI_KEY"], CLIENT_KEY)


async def test_a_copy_for_a_provider_without_a_key_has_none_even_if_it_passes_clients_keys(
    mesh: Mesh,
) -> None:
    await mesh.ask(LEGAL)
    await copy_at(mesh, "local")
    (copy,) = mesh.providers["local"].seen
    assert copy.model == "keyless"
    assert not {"authorization", "x-api-key"} & {name.lower() for name in copy.headers}
    assert no_secret_in(copy, PROVIDER_KEYS["OPENAI_KEY"], CLIENT_KEY)


async def test_streamed_compressed_and_large_requests_are_copied_too(mesh: Mesh) -> None:
    for body in (chat(CODING, stream=True), chat(CODING, padding="x" * (2 << 20))):
        mesh.forget()
        packed = gzip.compress(json.dumps(body).encode())
        reply = await mesh.send(packed, headers=[("content-encoding", "gzip")])
        assert reply.policy == "code generation"
        await copy_at(mesh, "next")
        (copy,) = mesh.providers["next"].seen
        assert json.loads(copy.body) == body | {"model": "next"}
        assert "content-encoding" not in copy.headers


async def test_what_no_policy_decided_is_not_copied(mesh: Mesh) -> None:
    await mesh.send(b"not json")
    await mesh.send(chat(CODING, model="openai/gpt-4o-mini"))
    await mesh.send(None, "/v1/models", method="GET")
    await mesh.ask(TRAVELLING)
    await copy_at(mesh, "anthropic")
    assert not mesh.providers["next"].seen
    assert len(mesh.providers["openai"].seen) == 4


async def test_a_sampled_session_is_copied_each_time_and_the_others_never(mesh: Mesh) -> None:
    sessions = [f"session-{number}" for number in range(400)]

    async def copied() -> set[str]:
        mesh.forget()
        counted = await mesh.counted("arch_ext_proc_shadows_total", policy="customer support")
        for at in range(0, len(sessions), 20):
            replies = await asyncio.gather(
                *(mesh.ask(SUPPORT, session=session) for session in sessions[at : at + 20])
            )
            assert {(reply.status, reply.policy) for reply in replies} == {(200, "customer support")}
        sampled = await mesh.counted("arch_ext_proc_shadows_total", policy="customer support") - counted
        seen = mesh.providers["next"].seen
        await eventually(lambda: len(seen) >= sampled, f"{sampled} copies")
        assert len(seen) == sampled
        return {copy.headers["x-arch-session"] for copy in seen}

    once = await copied()
    assert abs(len(once) / 400 - 0.3) <= 4 * sqrt(0.3 * 0.7 / 400)
    assert await copied() == once


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(delay_s=3600), Behaviour(status=500), Behaviour(status=429), Behaviour(reset=True)],
    ids=["hangs", "fails", "refuses", "breaks off"],
)
async def test_a_shadow_provider_in_trouble_costs_the_client_nothing(
    mesh: Mesh, behaviour: Behaviour
) -> None:
    mesh.providers["next"].behave = behaviour
    replies = await asyncio.gather(*(mesh.ask(stream=odd) for odd in [True, False] * 5))
    assert {(reply.status, reply.model) for reply in replies} == {(200, "openai/gpt-4o")}
    assert len(mesh.providers["openai"].seen) == 10
    await eventually(lambda: len(mesh.providers["next"].seen) == 10, "all copies")


async def test_a_shadow_provider_that_is_down_costs_the_client_nothing(mesh: Mesh) -> None:
    replies = [await mesh.ask(WRITING) for _ in range(5)]
    assert {(reply.status, reply.policy) for reply in replies} == {(200, "creative writing")}
    assert mesh.counts() == {"openai": 5}
