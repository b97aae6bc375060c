"""The server's wall clock set forward and back by a month, while clients ask and a rollout goes on."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.chaos.test_store_in_trouble import CONFIG, assert_nobody_noticed, drives_again
from tests.support.load import under_load
from tests.support.mesh import LIMIT_S, Mesh, running_mesh

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
"""Debian's `libfaketime`, which `make test` installs: a program is told the time that a file says."""

DAY_S = 86_400


def environ_of(clock: Path) -> dict[str, str]:
    """A wall clock as the file says. Waits are left alone: the library would make them long, jump or none."""
    assert LIBRARY, "no libfaketime: `make test` installs Debian's package"
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }


async def reloaded(mesh: Mesh) -> float:
    """When the server thinks that it is now: it says when it last read its file."""
    before = await in_force_since(mesh)
    mesh.stack.server.send(signal.SIGHUP)
    while (now := await in_force_since(mesh)) == before:
        await asyncio.sleep(0.05)
    return now


async def in_force_since(mesh: Mesh) -> float:
    async with mesh.http.get(f"{mesh.stack.admin_url}/config") as answer:
        return float((await answer.json())["in_force_since"])


async def test_a_clock_that_jumps_costs_no_request_and_no_weight(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environ = {**environ_of(clock), "ROLLOUT_STORE": str(tmp_path / "rollouts.sqlite")}
    async with running_mesh(CONFIG, tmp_path, "openai", "coder", "next", environ=environ) as mesh:
        async with under_load(mesh, by_policy_every=1) as load:
            await drives_again(mesh, load)
            begun = await reloaded(mesh)
            for days in (30, -30, 0):
                clock.write_text(f"{days:+}d")
                async with asyncio.timeout(LIMIT_S):
                    while round((await reloaded(mesh) - begun) / DAY_S) != days:
                        pass  # the library looks at its file once a second
                await load.decides()
                await drives_again(mesh, load)
        await assert_nobody_noticed(mesh, load)
