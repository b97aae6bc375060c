"""The ext_proc server killed, frozen, restarted and starved while 50 connections are in use."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.load import Load, under_load
from tests.support.mesh import Mesh, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


def assert_no_client_noticed(load: Load) -> None:
    assert load.failures == []
    assert set(load.kinds) == {"small", "large", "streamed"}


async def test_a_server_killed_again_and_again_costs_no_client_a_request(mesh: Mesh) -> None:
    async with under_load(mesh) as load:
        await load.decides()
        for _ in range(3):
            await mesh.stack.server.kill()
            await load.fails_open()
            await mesh.stack.restart_server()
            await load.decides()
    assert_no_client_noticed(load)


async def test_a_frozen_server_costs_no_client_a_request(mesh: Mesh) -> None:
    async with under_load(mesh) as load:
        await load.decides()
        mesh.stack.freeze_server()
        await load.fails_open()
        mesh.stack.thaw_server()
        await load.decides()
    assert_no_client_noticed(load)


async def test_a_server_that_is_told_to_end_drains_and_costs_no_client_a_request(mesh: Mesh) -> None:
    async with under_load(mesh) as load:
        await load.decides()
        assert await mesh.stack.server.stop() == 0
        await load.fails_open()
        await mesh.stack.restart_server()
        await load.decides()
    assert_no_client_noticed(load)


def descriptors(pid: int) -> set[int]:
    return set(map(int, os.listdir(f"/proc/{pid}/fd")))


@contextmanager
def few_descriptors(pid: int, port: int) -> Iterator[int]:
    """A process that may have but so many descriptors, and more connections to its port than that."""
    few = len(descriptors(pid)) + 5
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        with ExitStack() as held:
            for _ in range(few + 20):
                held.enter_context(socket.create_connection(("127.0.0.1", port)))
            yield few
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_a_server_out_of_descriptors_costs_no_request_and_recovers(mesh: Mesh) -> None:
    stack = mesh.stack
    pid, port = stack.server.pid, int(stack.environ["ARCH_PORT"])
    # Envoy's connections, were they there already, would be served on.
    await stack.envoy.stop()
    with few_descriptors(pid, port) as few:
        await eventually(lambda: descriptors(pid) >= set(range(few)), "nothing is left")
        await stack.envoy.start()
        async with under_load(mesh) as load:
            await load.fails_open()
        assert set(load.reasons) == {"server_unavailable"}
    async with under_load(mesh) as recovered:
        await recovered.decides()
    assert_no_client_noticed(load)
    assert recovered.failures == []
