"""The server killed, frozen and ended while bodies are on their way to it: what a client then sees.

Envoy has no copy of what it sent, so it cannot fail open for those. docs/envoy.md says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.mesh import CODING, LIMIT_S, Mesh, Reply, chat, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
SMALL = json.dumps(chat(CODING)).encode()
LONG = json.dumps(chat(CODING + " and more of it" * (2 * MIB // 15))).encode()
BEFORE_DECISION, AFTER_DECISION = 20, MIB


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def streaming(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    config = Path(__file__).with_name("streamed.yaml")
    async with running_mesh(config, tmp_path_factory.mktemp("streamed"), "openai", "coder") as mesh:
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(streaming: Mesh) -> AsyncIterator[Mesh]:
    await streaming.decided_again()
    streaming.forget()
    yield streaming
    streaming.stack.thaw_server()
    if not streaming.stack.server.is_running:
        await streaming.stack.restart_server()


class Upload:
    """A request whose body stops in the middle, where `holds_at` bytes of it are on their way."""

    def __init__(self, mesh: Mesh, holds_at: int) -> None:
        self._mesh = mesh
        self._holds_at = holds_at
        self._go_on = asyncio.Event()

    async def __aenter__(self) -> Upload:
        self._reply = asyncio.ensure_future(self._mesh.send(self._body()))
        async with asyncio.timeout(LIMIT_S):
            while not await self._has_arrived():
                await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._go_on.set()
        await asyncio.wait([self._reply])

    async def finish(self) -> Reply:
        self._go_on.set()
        return await self._reply

    async def reply(self) -> Reply:
        """What the client is told without having sent the rest."""
        return await asyncio.wait_for(asyncio.shield(self._reply), LIMIT_S)

    async def _body(self) -> AsyncIterator[bytes]:
        yield LONG[: self._holds_at]
        await self._go_on.wait()
        yield LONG[self._holds_at :]

    async def _has_arrived(self) -> bool:
        if self._holds_at == BEFORE_DECISION:
            return bool(await self._mesh.counted("arch_ext_proc_streams_in_flight"))
        active = "cluster.coder.upstream_rq_active"
        return bool((await self._mesh.envoy_stats(active)).get(active))


async def fails_open(mesh: Mesh) -> set[int]:
    """Ask until requests go to the default provider again; every status until then."""
    statuses = set()
    async with asyncio.timeout(LIMIT_S):
        while True:
            replies = [await mesh.send(SMALL), await mesh.send(LONG)]
            statuses |= {reply.status for reply in replies}
            if all((reply.status, reply.reason) == (200, "server_unavailable") for reply in replies):
                return statuses


async def test_a_dead_server_costs_requests_a_503_until_envoy_knows_and_then_none(mesh: Mesh) -> None:
    await mesh.stack.server.kill()
    assert await fails_open(mesh) <= {200, 503}
    mesh.forget()
    for _ in range(20):
        assert await fails_open(mesh) == {200}
    assert [seen.body for seen in mesh.providers["openai"].seen] == [SMALL, LONG] * 20


@pytest.mark.parametrize("holds_at", [BEFORE_DECISION, AFTER_DECISION])
async def test_a_server_that_dies_mid_body_costs_that_request_a_503_and_no_provider_sees_half_of_it(
    mesh: Mesh, holds_at: int
) -> None:
    async with Upload(mesh, holds_at) as upload:
        await mesh.stack.server.kill()
        assert (await upload.reply()).status == 503
    assert mesh.seen() == {}


@pytest.mark.parametrize("holds_at", [BEFORE_DECISION, AFTER_DECISION])
async def test_a_frozen_server_holds_no_body_for_long(mesh: Mesh, holds_at: int) -> None:
    async with Upload(mesh, holds_at) as upload:
        mesh.stack.freeze_server()
        assert (await upload.reply()).status == 503
        assert await fails_open(mesh) <= {200, 503}
    mesh.stack.thaw_server()
    await mesh.decided_again()


@pytest.mark.parametrize("holds_at", [BEFORE_DECISION, AFTER_DECISION])
async def test_a_server_that_is_told_to_end_serves_the_bodies_on_their_way(mesh: Mesh, holds_at: int) -> None:
    async with Upload(mesh, holds_at) as upload:
        ending = asyncio.ensure_future(mesh.stack.server.stop())
        assert await fails_open(mesh) <= {200, 503}
        reply = await upload.finish()
        assert (reply.status, reply.reason) == (200, "policy")
        assert await ending == 0
