"""Two workers behind the real Envoy: one is killed, both are restarted in turn, and nobody notices."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.crew import all_serve, asked_of_each, free_ports, workers_of
from tests.support.load import CONNECTIONS, under_load
from tests.support.mesh import (
    CODING,
    LIMIT_S,
    PROVIDER_KEYS,
    TRAVELLING,
    Mesh,
    eventually,
    run,
    running_mesh,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONFIG = Path(__file__).with_name("workers.yaml")
PINNED = "vllm/coder"
"""A request that names it is decided without the router, has no copy and is in no rollout."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crew(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("workers")
    config = folder / CONFIG.name
    config.write_bytes(CONFIG.read_bytes())
    environ = {"ARCH_PORT": str(free_ports(2)), "ROLLOUTS": str(folder / "rollouts.sqlite")}
    async with running_mesh(config, folder, "openai", "coder", "next", environ=environ) as mesh:
        for provider in mesh.providers.values():
            provider.keep_bodies = False
        yield mesh


@pytest_asyncio.fixture(loop_scope="session")
async def mesh(crew: Mesh) -> AsyncIterator[Mesh]:
    await all_serve(crew)
    crew.forget()
    yield crew
    crew.forget()
    if not crew.stack.server.is_running:
        await crew.stack.restart_server()


async def both_are_asked(mesh: Mesh) -> None:
    """Wait until both workers have got a request more."""
    before = await asked_of_each(mesh)
    async with asyncio.timeout(LIMIT_S):
        while any(count <= before[host] for host, count in (await asked_of_each(mesh)).items()):
            assert (await mesh.ask(model=PINNED)).reason == "pinned"


async def counted(mesh: Mesh, name: str, **labels: str) -> float:
    return await mesh.counted(f"arch_ext_proc_{name}", **labels)


async def until_counted(mesh: Mesh, wanted: float, name: str, **labels: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await counted(mesh, name, **labels) != wanted:
            await asyncio.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def test_requests_are_spread_and_counted_once(mesh: Mesh) -> None:
    before = await mesh.decisions()
    asked = await asked_of_each(mesh)
    for _ in range(40):
        assert (await mesh.ask(model=PINNED)).reason == "pinned"
    assert await mesh.decisions() == before + 40
    now = await asked_of_each(mesh)
    assert len(now) == 2
    assert all(now[host] > asked[host] for host in now)


async def test_answers_meet_wherever_their_streams_are(mesh: Mesh) -> None:
    """With four copies at a time: each is over before the next, and whoever decided it knows."""
    before = await counted(mesh, "pairs_total", outcome="compared")
    for number in range(24):
        await mesh.ask(f"{CODING} {number}")
        await until_counted(mesh, before + number + 1, "pairs_total", outcome="compared")
    assert await counted(mesh, "shadow_copies_refused_total") == 0
    await until_counted(mesh, 0, "shadow_copies_in_flight")
    async with mesh.http.get(f"{mesh.stack.admin_url}/shadows") as answer:
        shown = await answer.json()
    (total,) = shown["totals"]
    assert total["pairs"] >= 24
    assert len(shown["recent"]) == total["pairs"]


async def test_a_rollout_has_one_weight_on_all_workers(mesh: Mesh) -> None:
    url = f"{mesh.stack.admin_url}/rollouts/travel/start"
    async with mesh.http.post(url, json={"by": "a test"}) as answer:
        assert answer.status in (200, 202)
    in_a_row = 0
    async with asyncio.timeout(LIMIT_S):
        while in_a_row < 20:
            model = (await mesh.ask(f"{TRAVELLING} {in_a_row}")).model
            in_a_row = in_a_row + 1 if model == "vllm/next" else 0
    assert await counted(mesh, "rollout_weight", policy="travel") == 1
    assert await counted(mesh, "rollout_lease_held") == 1


async def test_a_killed_worker_costs_no_request_and_is_replaced(mesh: Mesh) -> None:
    restarts = await counted(mesh, "worker_restarts_total", why="crashed")
    async with under_load(mesh) as load:
        await load.decides()
        victim = (await workers_of(mesh))[0]["pid"]
        counts = await mesh.decisions()
        os.kill(victim, signal.SIGKILL)
        await load.decides()
        assert await mesh.decisions() >= counts
        await all_serve(mesh)
        await load.decides()
    assert load.failures == []
    assert victim not in [worker["pid"] for worker in await workers_of(mesh)]
    assert await counted(mesh, "worker_restarts_total", why="crashed") == restarts + 1
    await both_are_asked(mesh)


async def test_a_frozen_worker_costs_no_request_and_is_passed_over(mesh: Mesh) -> None:
    """What it holds waits for `envoy.message_timeout`; then its health checks fail, and the other gets all.

    That its parent replaces one that stays so, tests/contract/test_supervisor.py holds.
    """
    victim = (await workers_of(mesh))[0]["pid"]
    async with under_load(mesh) as load:
        await load.decides()
        os.kill(victim, signal.SIGSTOP)
        try:
            async with asyncio.timeout(LIMIT_S):
                while len(await asked_of_each(mesh)) > 1:
                    await asyncio.sleep(0.1)
                # Those that it holds end undecided; then there are none.
                undecided = -1
                while load.undecided != undecided:
                    undecided = load.undecided
                    await load.decides(2 * CONNECTIONS)
        finally:
            os.kill(victim, signal.SIGCONT)
        await all_serve(mesh)
        await load.decides()
    assert load.failures == []
    await both_are_asked(mesh)


async def test_a_restart_in_turn_leaves_no_request_undecided(mesh: Mesh) -> None:
    rolled = await counted(mesh, "worker_restarts_total", why="rolling")
    old = [worker["pid"] for worker in await workers_of(mesh)]
    async with under_load(mesh) as load:
        await load.decides()
        mesh.stack.server.send(signal.SIGHUP)
        await until_counted(mesh, rolled + 2, "worker_restarts_total", why="rolling")
        await all_serve(mesh)
        await load.decides()
    assert (load.failures, load.undecided) == ([], 0)
    assert not set(old) & {worker["pid"] for worker in await workers_of(mesh)}


async def test_what_ended_workers_counted_stays_counted(mesh: Mesh) -> None:
    before = await mesh.decisions()
    rolled = await counted(mesh, "worker_restarts_total", why="rolling")
    for _ in range(10):
        await mesh.ask(model=PINNED)
    mesh.stack.server.send(signal.SIGHUP)
    await until_counted(mesh, rolled + 2, "worker_restarts_total", why="rolling")
    await all_serve(mesh)
    assert await mesh.decisions() == before + 10


async def test_a_file_that_is_wrong_restarts_nobody(mesh: Mesh) -> None:
    old = [worker["pid"] for worker in await workers_of(mesh)]
    file, log = mesh.stack.config_file, mesh.stack.server.log
    right = file.read_bytes()
    try:
        file.write_bytes(right + b"nonsense: 1\n")
        mesh.stack.server.send(signal.SIGHUP)
        await eventually(lambda: "restart_refused" in log.read_text(), "the restart is refused")
    finally:
        file.write_bytes(right)
    assert 'unknown key "nonsense"' in log.read_text()
    assert [worker["pid"] for worker in await workers_of(mesh)] == old


def nobody_listens(ports: list[int]) -> bool:
    """A process may be seen to have ended while a thread of its still holds its sockets."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


async def test_without_their_parent_workers_end(mesh: Mesh) -> None:
    workers = [worker["pid"] for worker in await workers_of(mesh)]
    first = int(mesh.stack.environ["ARCH_PORT"])
    await mesh.stack.server.kill()
    await eventually(lambda: not any(map(is_alive, workers)), "the workers end")
    # Who comes next needs them.
    ports = [first, first + 1, int(mesh.stack.environ["ARCH_ADMIN_PORT"])]
    await eventually(lambda: nobody_listens(ports), "the ports are free")


async def test_a_port_that_is_taken_is_named(mesh: Mesh) -> None:
    environ = {**os.environ, **mesh.stack.environ, **PROVIDER_KEYS}
    with socket.socket() as taken:
        first = free_ports(2)
        taken.bind(("127.0.0.1", first + 1))
        taken.listen()
        environ |= {"ARCH_PORT": str(first), "ARCH_ADMIN_PORT": "0"}
        status, _, errors = await run("arch-ext-proc", "serve", str(mesh.stack.config_file), environ=environ)
    assert status == 1
    assert f"127.0.0.1:{first + 1}" in errors
