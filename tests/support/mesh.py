"""A running mesh in a test's words: who got which request, what the client was told, what was counted."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from demo.processes import command
from demo.stack import Stack, running_stack
from demo.stand_in import Behaviour, Seen, StandIn
from ext_proc.core import headers
from ext_proc.envoy_config.clusters import SYSTEM_CA_FILE
from tests.support.plants import CLIENT_KEY, CODING, COOKIE, PROVIDER_KEYS, TRAVELLING
from tests.support.secret_grep import plants_in

__all__ = ["CLIENT_KEY", "CODING", "PROVIDER_KEYS", "TRAVELLING"]  # and everything below

CONFIGS = Path(__file__).parents[1] / "e2e" / "configs"

CLIENT_HEADERS = {
    "authorization": f"Bearer {CLIENT_KEY}",
    "cookie": f"session={COOKIE}",
    "content-type": "application/json",
}

LIMIT_S = 60.0
"""How long anything may take here. Nothing is timed: this only ends a test that hangs."""


async def eventually(holds: Callable[[], object], what: str, within_s: float = LIMIT_S) -> None:
    """Wait for what happens on its own time. Errors: AssertionError, naming `what`."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {within_s} s"
        await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Reply:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def policy(self) -> str | None:
        return self.headers.get(headers.POLICY)

    @property
    def model(self) -> str | None:
        return self.headers.get(headers.MODEL)

    @property
    def reason(self) -> str | None:
        return self.headers.get(headers.REASON)


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """A chat completion's body."""
    return {"model": "whatever", "messages": [{"role": "user", "content": text}], **fields}


@dataclass
class Mesh:
    """A stack, a client, and the stand-ins by short name (`openai` for `OPENAI_UPSTREAM`)."""

    stack: Stack
    http: aiohttp.ClientSession
    providers: Mapping[str, StandIn]

    async def send(
        self,
        body: Any = None,
        path: str = "/v1/chat/completions",
        *,
        method: str = "POST",
        headers: Iterable[tuple[str, str]] = (),
        **options: Any,
    ) -> Reply:
        """One request, with the client's key in it unless `headers` has another.

        A list or mapping is sent as JSON, anything else as it is.
        """
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
        if isinstance(body, bytes):
            body = io.BytesIO(body)  # aiohttp warns of large bytes
        given = CIMultiDict(headers)
        sent = CIMultiDict(pair for pair in CLIENT_HEADERS.items() if pair[0] not in given)
        sent.extend(given)
        url = URL(self.stack.url + path, encoded=True)
        async with self.http.request(method, url, data=body, headers=sent, **options) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    async def ask(self, text: str = CODING, *, session: str | None = None, **fields: Any) -> Reply:
        """One chat completion."""
        pin = [("x-arch-session", session)] if session is not None else []
        return await self.send(chat(text, **fields), headers=pin)

    def forget(self) -> None:
        """Let the stand-ins be as new."""
        for provider in self.providers.values():
            provider.seen.clear()
            provider.behave = Behaviour()

    def seen(self) -> dict[str, list[Seen]]:
        """What arrived since, by stand-in, as far as something did."""
        return {name: list(provider.seen) for name, provider in self.providers.items() if provider.seen}

    def counts(self) -> dict[str, int]:
        return {at: len(requests) for at, requests in self.seen().items()}

    def only(self, name: str) -> Seen:
        """The one request that arrived anywhere, which must have been at `name`."""
        assert self.counts() == {name: 1}
        return self.providers[name].seen[0]

    async def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        async with self.http.get(f"{self.stack.admin_url}/metrics") as answer:
            text = await answer.text()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def counted(self, name: str, **labels: str) -> float:
        """The sum of a counter's series that have these labels."""
        wanted = set(labels.items())
        found = await self.metrics()
        return sum(value for (at, has), value in found.items() if at == name and wanted <= has)

    async def decisions(self, **labels: str) -> float:
        return await self.counted("arch_ext_proc_decisions_total", **labels)

    async def envoy_stats(self, contains: str) -> dict[str, int]:
        async with self.http.get(
            f"{self.stack.envoy_admin_url}/stats", params={"filter": contains}
        ) as answer:
            lines = (await answer.text()).splitlines()
        pairs = (line.rpartition(": ") for line in lines)
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    async def decided_again(self, text: str = CODING) -> None:
        """Wait until Envoy has found the server back.

        Answers are observed beside the traffic, so a test that counts them needs a `text` whose
        policy is not observed: else the last answer of this may be counted after the test's first look.
        """
        async with asyncio.timeout(LIMIT_S):
            while (await self.ask(text)).reason != "policy":
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running_mesh(
    config: Path,
    folder: Path,
    *names: str,
    environ: Mapping[str, str] | None = None,
    envoy_environ: Mapping[str, str] | None = None,
    log_level: str = "INFO",
    connections: int = 64,
    ca_file: str = SYSTEM_CA_FILE,
) -> AsyncIterator[Mesh]:
    """Run a configuration with a stand-in for each name. `envoy_environ`: else the providers' keys.

    `connections` must be more than a load keeps in use, or a look at the metrics waits in vain for one.
    """
    providers = {name: StandIn(name) for name in names}
    stack = running_stack(
        config,
        folder,
        {f"{name.upper()}_UPSTREAM": provider for name, provider in providers.items()},
        environ={**PROVIDER_KEYS, **(environ or {})},
        envoy_environ=PROVIDER_KEYS if envoy_environ is None else envoy_environ,
        log_level=log_level,
        ca_file=ca_file,
    )
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with (
        stack as running,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections), timeout=timeout) as http,
    ):
        mesh = Mesh(running, http, providers)
        yield mesh
        await _keep_what_is_told(mesh, folder)


TOLD = ("/metrics", "/config", "/shadows", "/rollouts", "/overview", "/decisions")


async def _keep_what_is_told(mesh: Mesh, folder: Path) -> None:
    """Write down what the admin port says, for the search of `tests.support.secret_grep`."""
    if not mesh.stack.server.is_running:
        return
    with (folder / "admin.log").open("ab") as file:
        for path in TOLD:
            async with mesh.http.get(mesh.stack.admin_url + path) as answer:
                file.write(await answer.read() + b"\n")


def lines_of(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()


def access_log(log: Path) -> list[dict[str, Any]]:
    """Envoy's JSON lines. It writes the last ones when it ends."""
    return [json.loads(line) for line in lines_of(log) if line.startswith("{")]


def no_secret_in(seen: Seen, *keys: str) -> bool:
    """Whether none of these texts is anywhere in a request."""
    texts = (seen.path, *seen.headers.values(), seen.body.decode("utf-8", "replace"))
    return not any(key in text for text in texts for key in keys)


async def run(*arguments: str, environ: Mapping[str, str], given: str = "") -> tuple[int, str, str]:
    """Run a command of this environment: its exit status, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        command(arguments[0]),
        *arguments[1:],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environ),
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(given.encode()), LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    assert not plants_in(output + errors), f"{arguments[0]} tells what it may not"
    return process.returncode, output.decode(), errors.decode()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Logs print only on failure. The conftests of e2e and chaos take this hook over."""
    report: Any = yield
    if report.when == "call" and report.failed:
        meshes = {id(given): given for given in getattr(item, "funcargs", {}).values()}
        for mesh in meshes.values():
            if isinstance(mesh, Mesh):
                for child in (mesh.stack.server, mesh.stack.envoy):
                    report.sections.append((f"the end of {child.log.name}", child.tail(15)))
    return report
