"""Envoy drained, restarted and killed with requests under way: the server keeps nothing of them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from demo.stand_in import Behaviour
from tests.support.mesh import LIMIT_S, Mesh, Reply, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLIENTS = 20


@asynccontextmanager
async def half_answered(mesh: Mesh) -> AsyncIterator[tuple[asyncio.Event, list[asyncio.Task[Reply]]]]:
    """Streams of which each client has the first piece, and what lets them go on."""
    coder, go_on = mesh.providers["coder"], asyncio.Event()
    coder.behave = Behaviour(hold=go_on)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(mesh.ask(stream=True)) for _ in range(CLIENTS)]
        await eventually(lambda: len(coder.seen) == CLIENTS, "all requests at the provider")
        try:
            yield go_on, asking
        finally:
            go_on.set()


async def streams_are_gone(mesh: Mesh) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await mesh.counted("arch_ext_proc_streams_in_flight"):
            await asyncio.sleep(0.02)
    assert await mesh.counted("arch_ext_proc_stream_errors_total") == 0


async def test_a_drained_envoy_finishes_what_was_decided(mesh: Mesh) -> None:
    stack = mesh.stack
    async with half_answered(mesh) as (go_on, asking):
        async with mesh.http.post(f"{stack.envoy_admin_url}/drain_listeners?graceful") as answer:
            assert answer.status == 200
        go_on.set()
    replies = [task.result() for task in asking]
    assert {(reply.status, reply.reason, reply.model) for reply in replies} == {(200, "policy", "vllm/coder")}
    assert all(reply.body.endswith(b"data: [DONE]\n\n") for reply in replies)
    await stack.envoy.stop()
    await streams_are_gone(mesh)
    await stack.envoy.start()
    await mesh.decided_again()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["restarted", "killed"])
async def test_an_envoy_that_ends_leaves_no_stream_and_is_served_again(
    mesh: Mesh, how: signal.Signals
) -> None:
    """Its clients lose their answers, which no server can help."""
    coder = mesh.providers["coder"]
    coder.behave = Behaviour(delay_s=3600.0)
    asking = asyncio.gather(*(mesh.ask() for _ in range(CLIENTS)), return_exceptions=True)
    await eventually(lambda: len(coder.seen) == CLIENTS, "all requests at the provider")
    mesh.stack.envoy.send(how)
    await mesh.stack.envoy.wait()
    lost = await asking
    assert all(isinstance(error, aiohttp.ClientError) for error in lost), lost
    await streams_are_gone(mesh)
    coder.behave = Behaviour()
    await mesh.stack.envoy.start()
    await mesh.decided_again()
    reply = await mesh.ask()
    assert (reply.status, reply.reason) == (200, "policy")
