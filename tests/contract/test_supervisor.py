"""The parent and real child processes, which stand for workers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from ext_proc.admin.app import front_application
from ext_proc.config.load import load_text
from ext_proc.workers.supervisor import Supervisor

LIMIT_S = 60.0
FILE = """
model_providers: [{model: openai/a, default: true}]
affinity: {salt: a salt that is long enough}
server: {workers: 2}
admin: {port: 0}
"""
WORKER = """
import asyncio, socket, sys
from ext_proc.workers.siblings import Siblings

async def main():
    siblings, stopping = Siblings(socket.socket(fileno=int(sys.argv[1]))), asyncio.Event()
    await siblings.start(list, stopping.set)
    siblings.ready(1)
    await stopping.wait()

asyncio.run(main())
"""
HANGING = """
import os, pathlib, sys, time

starts = pathlib.Path(sys.argv[1])
sys.argv = sys.argv[1:]
with starts.open("a") as file:
    file.write(f"{os.getpid()}\\n")
if len(starts.read_text().split()) in HANGS:
    time.sleep(3600)
"""
"""Of all starts those hang that it is told: before they take their seat."""


def hanging(folder: Path, *starts: int) -> tuple[str, ...]:
    """The command of workers of which these, counted from 1 over all places, never become ready."""
    script = folder / "worker.py"
    script.write_text(HANGING.replace("HANGS", repr(starts)) + WORKER)
    return sys.executable, str(script), str(folder / "starts")


async def until_two_serve(supervisor: Supervisor) -> None:
    async with asyncio.timeout(LIMIT_S):
        while len(supervisor.serving()) < 2:
            await asyncio.sleep(0.02)


async def test_a_worker_that_says_nothing_is_killed_and_replaced(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    configuration = load_text(FILE, "f.yaml", {}, lambda: b"").configuration
    command = (sys.executable, str(script))
    # Short for what is silent, and not for one that a busy machine keeps waiting.
    supervisor = Supervisor(configuration, command, lambda: None, front_application, hung_s=5.0, poll_s=0.1)
    running = asyncio.get_running_loop().create_task(supervisor.run())
    try:
        async with asyncio.timeout(LIMIT_S):
            while len(supervisor.serving()) < 2:
                await asyncio.sleep(0.02)
            first, second = (place["pid"] for place in supervisor.report())
            os.kill(first, signal.SIGSTOP)
            while (
                any(place["pid"] in (None, first) for place in supervisor.report())
                or len(supervisor.serving()) < 2
            ):
                await asyncio.sleep(0.02)
        assert [place["starts"] for place in supervisor.report()] == [2, 1]
        assert supervisor.report()[1]["pid"] == second
        assert b'worker_restarts_total{why="crashed",worker="0"} 1.0' in await supervisor.metrics()
    finally:
        supervisor.stop()
        assert await running == 0


async def test_a_worker_that_hangs_before_it_is_ready_is_replaced(tmp_path: Path) -> None:
    configuration = load_text(FILE, "f.yaml", {}, lambda: b"").configuration
    command = hanging(tmp_path, 3)  # the one that takes the killed one's place
    # Short for what hangs, and not for a start on a busy machine.
    supervisor = Supervisor(configuration, command, lambda: None, front_application, poll_s=0.1, start_s=10.0)
    running = asyncio.get_running_loop().create_task(supervisor.run())
    try:
        await until_two_serve(supervisor)
        os.kill(supervisor.report()[0]["pid"], signal.SIGKILL)
        async with asyncio.timeout(LIMIT_S):
            while supervisor.report()[0]["starts"] < 3:
                await asyncio.sleep(0.02)
        await until_two_serve(supervisor)
        _, _, hung, *_ = map(int, (tmp_path / "starts").read_text().split())
        assert hung not in [place["pid"] for place in supervisor.report()]
    finally:
        supervisor.stop()
        assert await running == 0


async def test_workers_that_hang_at_the_very_first_start_end_the_parent(tmp_path: Path) -> None:
    """Whoever started it shall know, as of any other fault at the first start."""
    configuration = load_text(FILE, "f.yaml", {}, lambda: b"").configuration
    command = hanging(tmp_path, 1, 2)
    supervisor = Supervisor(configuration, command, lambda: None, front_application, poll_s=0.1, start_s=1.0)
    async with asyncio.timeout(LIMIT_S):
        assert await supervisor.run() == signal.SIGKILL
