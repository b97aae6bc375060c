"""Thousands of reloads: in one process, and through Envoy under load."""

from __future__ import annotations

import gc
import os
import signal
import threading
from pathlib import Path

from ext_proc.core.settings import Configuration
from ext_proc.core.types import Snapshot
from ext_proc.router.ask import RouterAsker
from ext_proc.router.embedded import EmbeddedRouter
from ext_proc.server.routing import Live
from ext_proc.telemetry.reloads import ReloadOutcome
from tests.support import reloaded
from tests.support.load import under_load
from tests.support.mesh import CODING, eventually
from tests.support.reloaded import reloaded_mesh
from tests.support.reloading import Stream, a_file, a_reloader, ask, serving

RELOADS = 2_000
THROUGH_ENVOY = 160


def counted(*kinds: type) -> list[int]:
    gc.collect()
    things = gc.get_objects()
    return [sum(type(thing) is kind for thing in things) for kind in kinds]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_storm_of_reloads_leaves_nothing_behind(tmp_path: Path) -> None:
    """Streams begin before, during and after each; every one is decided, by what it began with."""
    file = tmp_path / "arch_config.yaml"
    file.write_text(a_file())
    kinds = (Live, Snapshot, RouterAsker, EmbeddedRouter, Configuration)
    models = ("vllm/b", "vllm/c")

    def text_of(number: int) -> str:
        router = f"{{router: {{type: embedded, threshold: 0.00{number // 50 % 2}}}, deadline: 20s}}"
        described = (CODING, "write code", "programs")[number // 10 % 3]
        weights = ((100, 0), (0, 100))[number % 2]
        return a_file(description=described, weights=weights, key=f"sk-{number}", routing=router)

    async with serving(text_of(0)) as server:
        reloader = a_reloader(server, file)

        async def storm(numbers: range) -> None:
            for number in numbers:
                held = Stream(server)
                await held.begin()
                file.write_text(text_of(number))
                assert (await reloader.reload()).outcome is ReloadOutcome.OK
                assert (await ask(server, f"{CODING} {number % 7}"))["x-arch-model"] == models[number % 2]
                assert (await held.decided())["x-arch-model"] == models[(number - 1) % 2]
                await held.end()

        await storm(range(1, 101))
        before, threads = (counted(*kinds), descriptors()), threading.active_count()
        await storm(range(101, RELOADS + 1))
        await eventually(lambda: server.routers_held() == 0, "every replaced router is let go")
        assert (counted(*kinds), descriptors()) == before
        # The last threads may be on their way to their end, and a pool has a few; 38 routers had one each.
        await eventually(lambda: threading.active_count() <= threads + 4, "the threads end")
        assert 'reason="policy"' in server.telemetry.exposition().decode()


def held_by(pid: int) -> tuple[int, int]:
    """Open descriptors and threads of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


async def test_a_storm_under_load_fails_no_request_and_leaves_nothing_behind(tmp_path: Path) -> None:
    def text_of(number: int) -> str:
        router = f"{{router: {{type: embedded, threshold: 0.00{number // 10 % 2}}}, deadline: 20s}}"
        coding = ("vllm/coder", "vllm/next")[number % 2]
        described = (reloaded.WRITING, "write code")[number // 5 % 2]
        return reloaded.a_file(coding=coding, described=described, routing=router)

    async with (
        reloaded_mesh(tmp_path, text_of(0)) as found,
        under_load(found.mesh, by_policy_every=2) as load,
    ):
        server = found.mesh.stack.server

        async def storm(numbers: range) -> None:
            for number in numbers:
                before = await found.outcomes()
                found.rename(text_of(number))
                server.send(signal.SIGHUP)
                await found.after(before, "ok")
            # Streams that began before the last swap end, and with them what they hold.
            await load.decides()

        await storm(range(1, 41))
        descriptors, threads = held_by(server.pid)
        await storm(range(41, 41 + THROUGH_ENVOY))
        held = await found.mesh.counted("arch_ext_proc_config_replaced_routers_held")
        assert held <= 1
        # Connections and pool threads come and go with the load; what leaked would be there a hundred times.
        now = held_by(server.pid)
        assert now[0] < descriptors + THROUGH_ENVOY // 4
        assert now[1] < threads + THROUGH_ENVOY // 4
        assert (load.failures, load.undecided) == ([], 0)
