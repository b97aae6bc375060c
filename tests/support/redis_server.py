"""A real Redis on a port of its own, which can be frozen and killed."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from demo.processes import free_port

START_LIMIT_S = 30.0


@dataclass
class RedisServer:
    """`url` as a configuration names it."""

    process: asyncio.subprocess.Process
    port: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def command(self, *words: str) -> bytes:
        """Send one command: the first line of what it answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(" ".join(words).encode() + b"\r\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer.strip()


@asynccontextmanager
async def running_redis(folder: Path, port: int = 0) -> AsyncIterator[RedisServer]:
    """Run Debian's redis-server with nothing on disk. Errors: AssertionError when there is none."""
    binary = shutil.which("redis-server")
    assert binary, "no redis-server on PATH: `make test` installs Debian's package"
    port = port or free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    arguments += ["--dbfilename", f"{time.time_ns()}.rdb", "--rdbcompression", "no"]
    process = await asyncio.create_subprocess_exec(
        binary, *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(START_LIMIT_S):
            while not await _answers(port):
                assert process.returncode is None, f"redis-server ended: {process.returncode}"
                await asyncio.sleep(0.02)
        yield RedisServer(process, port)
        await _save(port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _save(port: int) -> None:
    """Write down what was stored, for the search of `tests.support.secret_grep`. It may be gone or frozen."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(5.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"SAVE\r\n")
                await reader.readline()
            finally:
                writer.transport.abort()
                with suppress(OSError):
                    await writer.wait_closed()


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"PING\r\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer == b"+PONG\r\n"
