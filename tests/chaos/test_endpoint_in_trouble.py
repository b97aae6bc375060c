"""A router behind an endpoint that is dead, slow, hung or talks nonsense, while 50 clients ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import router_endpoint as endpoint
from tests.support.load import under_load
from tests.support.mesh import Mesh, running_mesh
from tests.support.router_endpoint import Answer, RouterEndpoint

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = Path(__file__).with_name("endpoint.yaml")
ASKED_EVERY = 3
"""So many clients for one that the router is asked about: then fewer ask than may wait for it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked() -> AsyncIterator[RouterEndpoint]:
    found = RouterEndpoint()
    await found.up()
    yield found
    await found.down()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asking(tmp_path_factory: pytest.TempPathFactory, asked: RouterEndpoint) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("endpoint")
    environ = {"ROUTER_ENDPOINT": asked.url}
    async with running_mesh(CONFIG, folder, "openai", "coder", environ=environ) as mesh:
        for provider in mesh.providers.values():
            provider.keep_bodies = False
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(asking: Mesh, asked: RouterEndpoint) -> Mesh:
    asked.answer = endpoint.well
    await asked.up()
    asking.forget()
    await asking.decided_again()
    return asking


async def failures(mesh: Mesh, reason: str) -> float:
    return await mesh.counted("arch_ext_proc_router_failures_total", reason=reason, then="on_failure")


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (endpoint.hangs, "router_timeout"),
        (endpoint.never_ends, "router_timeout"),
        (endpoint.fails, "router_error"),
        (endpoint.breaks_off, "router_unreachable"),
        (endpoint.talks_nonsense, "router_garbled"),
        (endpoint.is_no_http, "router_unreachable"),
    ],
    ids=["hangs", "never ends its answer", "fails", "breaks off", "talks nonsense", "is no HTTP server"],
)
async def test_an_endpoint_in_trouble_costs_no_request(
    mesh: Mesh, asked: RouterEndpoint, trouble: Answer, reason: str
) -> None:
    before = await failures(mesh, reason)
    async with under_load(mesh, by_policy_every=ASKED_EVERY) as load:
        await load.gives("policy", 20)
        asked.answer = trouble
        await load.gives(reason, 5)
        # Five failures in a row: from now on it is hardly asked, and nobody waits for it.
        await load.gives("router_unreachable")
        asked.answer = endpoint.well
        await load.gives("policy", 20)
    assert (load.failures, load.undecided) == ([], 0)
    assert set(load.reasons) <= {"pinned", "policy", reason, "router_unreachable"}
    assert await failures(mesh, reason) >= before + 5


async def test_a_slow_endpoint_is_waited_for(mesh: Mesh, asked: RouterEndpoint) -> None:
    async with under_load(mesh, by_policy_every=ASKED_EVERY) as load:
        asked.answer = endpoint.slow
        await load.gives("policy")
    assert (load.failures, load.undecided) == ([], 0)


async def test_an_endpoint_that_dies_and_comes_back_again_and_again_costs_no_request(
    mesh: Mesh, asked: RouterEndpoint
) -> None:
    async with under_load(mesh, by_policy_every=ASKED_EVERY) as load:
        for _ in range(5):
            await load.gives("policy", 10)
            await asked.down()
            await load.gives("router_unreachable", 10)
            await asked.up()
        await load.gives("policy", 10)
    assert (load.failures, load.undecided) == ([], 0)
    assert set(load.reasons) <= {"pinned", "policy", "router_unreachable"}


async def test_a_full_queue_costs_no_request(mesh: Mesh, asked: RouterEndpoint) -> None:
    before = await failures(mesh, "router_busy")
    async with under_load(mesh, by_policy_every=1) as load:
        asked.answer = endpoint.hangs
        await load.gives("router_busy")
        asked.answer = endpoint.well
        await load.gives("policy", 20)
    assert (load.failures, load.undecided) == ([], 0)
    assert await failures(mesh, "router_busy") > before
