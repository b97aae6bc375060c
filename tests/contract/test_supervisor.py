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
