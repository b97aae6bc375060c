"""The server killed under load while requests go through a chain of targets, sound and failing."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.load import CONNECTIONS, Load, under_load
from tests.support.mesh import PROVIDER_KEYS, Mesh, no_secret_in, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

KILLS = 3
OWN_KEYS = {name: PROVIDER_KEYS[f"{name.upper()}_KEY"] for name in ("openai", "coder", "next")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def failing_over(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("failover")
    config = Path(__file__).with_name("failover.yaml")
    async with running_mesh(config, folder, *OWN_KEYS) as mesh:
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(failing_over: Mesh) -> Mesh:
    failing_over.forget()
    await failing_over.decided_again()
    failing_over.forget()
    return failing_over


async def killed_again_and_again(mesh: Mesh, load: Load) -> None:
    await load.decides()
    for _ in range(KILLS):
        await mesh.stack.server.kill()
        await load.fails_open()
        await mesh.stack.restart_server()
        await load.decides()


def assert_no_provider_saw_anothers_key(mesh: Mesh) -> None:
    for name, provider in mesh.providers.items():
        others = {key for owner, key in OWN_KEYS.items() if owner != name}
        assert provider.seen
        assert all(no_secret_in(seen, *others) for seen in provider.seen)


async def test_a_killed_server_costs_nothing_while_the_first_targets_answer(mesh: Mesh) -> None:
    async with under_load(mesh, by_policy_every=1) as load:
        await killed_again_and_again(mesh, load)
    sys.stdout.write(f"{len(load.failures)} of {load.reasons.total()} requests failed\n")
    assert load.failures == []


async def test_a_killed_server_costs_only_what_it_was_needed_for_and_no_key(mesh: Mesh) -> None:
    """A request whose first target fails after the server died gets 503: it is not shown to the next one."""
    mesh.providers["coder"].behave.status = 429
    async with under_load(mesh, by_policy_every=1) as load:
        await killed_again_and_again(mesh, load)
    sys.stdout.write(f"{len(load.failures)} of {load.reasons.total()} requests failed\n")
    assert all("status 503" in failure for failure in load.failures), load.failures[:5]
    assert len(load.failures) <= KILLS * CONNECTIONS
    assert_no_provider_saw_anothers_key(mesh)
