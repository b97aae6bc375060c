"""The ext_proc server killed, frozen and restarted while 50 connections are in use."""

from __future__ import annotations

import pytest

from tests.support.load import Load, under_load
from tests.support.mesh import Mesh

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
