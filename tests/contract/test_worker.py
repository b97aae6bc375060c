"""A worker that does not read for a while, as its parent sees it."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from ext_proc.workers.siblings import Seat
from ext_proc.workers.worker import Worker

CHILD = """
import pathlib, socket, sys, time
from ext_proc.workers import frames

def read(size):
    found = b""
    while len(found) < size:
        piece = connection.recv(size - len(found))
        if not piece:
            sys.exit()
        found += piece
    return found

go_on, connection = pathlib.Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
while not go_on.exists():
    time.sleep(0.02)
while True:
    length, _ = frames.HEAD.unpack(read(frames.HEAD.size))
    if b'"metrics"' in read(length):
        content = frames.pack("metrics", families=[])
        connection.sendall(frames.HEAD.pack(len(content), frames.PARENT) + content)
"""


async def test_a_worker_that_reads_again_is_asked_again(tmp_path: Path) -> None:
    go_on, told = tmp_path / "go on", asyncio.Event()
    seat = Seat(0, 2, str(tmp_path / "0.sock"), b"salt")
    worker = Worker(seat, lambda *_: None, lambda _: None, lambda *_: told.set())
    await worker.start((sys.executable, "-c", CHILD, str(go_on)))
    try:
        async with asyncio.timeout(60):
            while worker.pass_on(bytes(1 << 20)):
                await asyncio.sleep(0)
            # Its parent asks it in vain, as a scrape or a poll does.
            answer = worker.ask_metrics()
            go_on.touch()
            while not told.is_set():
                worker.ask_metrics()
                await asyncio.sleep(0.05)
            await answer
    finally:
        worker.send(signal.SIGKILL)
        await worker.has_ended.wait()
