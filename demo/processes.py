"""Child processes: the real Envoy and the real server, started, awaited, and always stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

START_LIMIT_S = 120.0
"""Envoy is ready in 0.1 s and the server in one; a busy machine may take a while longer."""

STOP_LIMIT_S = 15.0


class DidNotStart(Exception):
    """A child process ended or hung before it was ready; the text holds the end of its log."""


class Refused(Exception):
    """Envoy does not accept a configuration; the text is what it says."""


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command(name: str) -> str:
    """The path of a command of this environment, or of the machine."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"no command {name}: install this project's extra `demo`")
    return found


class Child:
    """One child process that answers an HTTP path when it is ready. Its output goes to `log`."""

    def __init__(
        self, arguments: list[str], ready_url: str, log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self._arguments = arguments
        self._ready_url = ready_url
        self._environ = {**os.environ, **(environ or {})}
        self._process: asyncio.subprocess.Process | None = None
        self.log = log

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self._arguments[0]} was not started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended. A stopped (SIGSTOP) one has not."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start, and wait until it is ready. Errors: DidNotStart."""
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environ,
                # Ctrl-C is for whoever started us: they stop this when its clients are done.
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await self._await_ready(self._process)
        except TimeoutError:
            await self.stop()
            raise DidNotStart(
                f"{self._arguments[0]} is not ready after {START_LIMIT_S} s\n{self.tail()}"
            ) from None

    async def _await_ready(self, process: asyncio.subprocess.Process) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                if process.returncode is not None:
                    raise DidNotStart(f"{self._arguments[0]} ended: {process.returncode}\n{self.tail()}")
                try:
                    async with session.get(self._ready_url) as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.02)

    def tail(self, lines: int = 30) -> str:
        """The end of what it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def send(self, number: signal.Signals) -> None:
        if self._process and self.is_running:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.send(signal.SIGKILL)
        await self.wait()

    async def stop(self) -> int | None:
        """SIGTERM, then SIGKILL if it takes too long. The exit status."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                return await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await self.wait()

    async def wait(self) -> int | None:
        return await self._process.wait() if self._process else None


def server(
    config_file: Path,
    admin_url: str,
    log: Path,
    environ: Mapping[str, str] | None = None,
    *,
    log_level: str = "INFO",
    log_format: str = "human",
) -> Child:
    """The real server. `admin_url` is what the file's `admin` section comes to under `environ`."""
    arguments = [command("arch-ext-proc"), "serve", str(config_file)]
    arguments += ["--log-level", log_level, "--log-format", log_format]
    return Child(arguments, f"{admin_url}/readyz", log, environ)


def envoy(
    bootstrap: Path,
    admin_url: str,
    log: Path,
    environ: Mapping[str, str] | None = None,
    *,
    concurrency: int = 1,
) -> Child:
    """The real Envoy. `concurrency` is its number of worker threads. Its access log is in `log` too."""
    arguments = [command("envoy"), "-c", str(bootstrap), "--concurrency", str(concurrency)]
    arguments += ["--disable-hot-restart", "--log-level", "warning"]
    return Child(arguments, f"{admin_url}/ready", log, environ)


async def validate(bootstrap: Path) -> None:
    """Let Envoy check a configuration without running it. Errors: Refused."""
    process = await asyncio.create_subprocess_exec(
        *(command("envoy"), "--mode", "validate", "--log-level", "warning", "-c", str(bootstrap)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(START_LIMIT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Refused(f"{bootstrap}: {output.decode(errors='replace')}")
