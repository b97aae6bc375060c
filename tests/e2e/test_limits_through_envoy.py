"""Bodies at the limit, which grow on their way because their new model has a longer name.

Envoy holds a replaced body to the same limit as the one that came, and would say 413 to a client that did
nothing wrong.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.bodies import in_pieces
from tests.support.mesh import CODING, CONFIGS, TRAVELLING, Mesh, chat, eventually, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST, NEXT = "coder-with-quite-a-long-name", "the-next-one-whose-name-is-longer-than-any-other"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("limits")
    async with running_mesh(CONFIGS / "limits.yaml", folder, "openai", "coder", "next") as mesh:
        yield mesh


@pytest.fixture
def mesh(limited: Mesh) -> Mesh:
    limited.forget()
    return limited


def body_of(size: int, text: str) -> bytes:
    """A chat completion of exactly so many bytes, whose model has a short name."""
    empty = len(json.dumps(chat(text, padding="")))
    return json.dumps(chat(text, padding="x" * (size - empty))).encode()


def with_model(body: bytes, model: str) -> bytes:
    return body.replace(b'"whatever"', f'"{model}"'.encode())


def limit_of(mesh: Mesh) -> int:
    return mesh.stack.configuration.envoy.body_limit_bytes


async def assert_arrived(mesh: Mesh, body: bytes) -> None:
    """At the first target, and as a copy, which grows even more."""
    assert [seen.body for seen in mesh.seen()["coder"]] == [with_model(body, FIRST)]
    await eventually(lambda: mesh.providers["next"].seen, "the copy")
    assert [seen.body for seen in mesh.seen()["next"]] == [with_model(body, NEXT)]


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_of_exactly_the_limit_may_grow(mesh: Mesh, framing: str) -> None:
    body = body_of(limit_of(mesh), CODING)
    assert len(body) == limit_of(mesh)
    reply = await mesh.send(body if framing == "length" else in_pieces(body, 10_000))
    assert (reply.status, reply.reason) == (200, "policy")
    await assert_arrived(mesh, body)


async def test_a_body_of_exactly_the_limit_may_grow_for_the_next_target(mesh: Mesh) -> None:
    mesh.providers["coder"].behave.status = 429
    body = body_of(limit_of(mesh), TRAVELLING)
    reply = await mesh.send(body)
    assert (reply.status, reply.reason, reply.model) == (200, "policy", f"vllm/{NEXT}")
    assert [seen.body for seen in mesh.seen()["next"]] == [with_model(body, NEXT)]


async def test_a_packed_body_of_exactly_the_limit_may_grow(mesh: Mesh) -> None:
    body = body_of(limit_of(mesh), CODING)
    reply = await mesh.send(gzip.compress(body), headers=[("content-encoding", "gzip")])
    assert (reply.status, reply.reason) == (200, "policy")
    await assert_arrived(mesh, body)


async def test_a_body_that_grows_beyond_all_room_goes_unchanged_to_the_default(mesh: Mesh) -> None:
    """One that names its model some thousand times, each of which is replaced."""
    body = chat(CODING)
    del body["model"]
    names = ",".join(['"model":"m"'] * (limit_of(mesh) // 13))
    sent = f'{{{names},"messages":{json.dumps(body["messages"])}}}'.encode()
    assert len(sent) < limit_of(mesh)
    counted = await mesh.decisions(reason="body_too_large")
    reply = await mesh.send(sent)
    assert (reply.status, reply.reason) == (200, "body_too_large")
    assert mesh.only("openai").body == sent
    assert await mesh.decisions(reason="body_too_large") == counted + 1


async def test_whatever_envoy_takes_is_answered(mesh: Mesh) -> None:
    """What is above the limit by less than the room has none left to grow."""
    takes = mesh.stack.configuration.envoy.buffer_limit_bytes
    body = body_of(takes, CODING)
    reply = await mesh.send(body)
    assert (reply.status, reply.reason) == (200, "body_too_large")
    assert mesh.only("openai").body == body
    mesh.forget()
    reply = await mesh.send(body_of(takes + 1, CODING))
    assert reply.status == 413
    assert mesh.seen() == {}
