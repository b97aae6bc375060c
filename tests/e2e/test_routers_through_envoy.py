"""The same conversations through the real Envoy with each type of router."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from demo.processes import command
from ext_proc.config.load import load_text
from ext_proc.core.types import Policy
from tests.support import tiny_lm
from tests.support.mesh import CODING, CONFIGS, LIMIT_S, TRAVELLING, Mesh, eventually, running_mesh

FILE = (CONFIGS / "routers.yaml").read_text()
NAMES = ("openai", "coder", "anthropic")
GREETING = "good morning, how are you today?"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""A small model computes faster so, most of all on a busy machine."""
LESSONS = ((CODING, "code generation"), (TRAVELLING, "travel planning"), (GREETING, None))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that learned the conversations of this file."""
    ports = ("ARCH_PORT", "ARCH_ADMIN_PORT", "ENVOY_PORT", "ENVOY_ADMIN_PORT")
    environ = {name: str(port) for port, name in enumerate(ports, 1)}
    environ |= {f"{name.upper()}_UPSTREAM": "http://127.0.0.1:9" for name in NAMES}
    policies: tuple[Policy, ...] = load_text(FILE, "f", environ, lambda: b"").configuration.snapshot.policies
    return tiny_lm.taught_folder(tmp_path_factory.mktemp("model"), policies, LESSONS)


@asynccontextmanager
async def a_mesh(folder: Path, router: str) -> AsyncIterator[Mesh]:
    config = folder / "arch_config.yaml"
    # Nothing is kept: each request is to meet the router.
    config.write_text(f"{FILE}\nrouting: {{deadline: 20s, router: {router}, cache: {{size: 0}}}}\n")
    async with running_mesh(config, folder, *NAMES, environ=ONE_THREAD) as mesh:
        yield mesh


async def ask_everything(mesh: Mesh) -> None:
    """Alone and all at once, every conversation goes where it belongs."""
    code, travel = await mesh.ask(CODING), await mesh.ask(TRAVELLING)
    assert (code.reason, code.policy, code.model) == ("policy", "code generation", "vllm/coder")
    assert (travel.reason, travel.policy, travel.model) == ("policy", "travel planning", "anthropic/claude")
    replies = await asyncio.gather(*(mesh.ask(text) for text in (CODING, TRAVELLING) * 8))
    assert [reply.policy for reply in replies] == ["code generation", "travel planning"] * 8
    assert mesh.counts() == {"coder": 9, "anthropic": 9}


async def test_the_embedded_router(tmp_path: Path) -> None:
    async with a_mesh(tmp_path, "{type: embedded, threshold: 0.05}") as mesh:
        await ask_everything(mesh)


async def test_a_language_model_in_the_server(tmp_path: Path, model: Path) -> None:
    async with a_mesh(tmp_path, f"{{type: transformers, model: '{model}', dtype: float32}}") as mesh:
        await ask_everything(mesh)
        greeted = await mesh.ask(GREETING)
        assert (greeted.reason, greeted.model) == ("no_policy_matched", "openai/gpt-4o-mini")


async def test_a_language_model_in_an_engine_that_comes_late_and_dies(tmp_path: Path, model: Path) -> None:
    """A lost engine costs no request: the default provider answers until it is there again."""
    socket = tmp_path / "engine.sock"
    router = f"{{type: transformers, model: '{model}', dtype: float32, engine: '{socket}'}}"
    async with a_mesh(tmp_path, router) as mesh:
        early = await mesh.ask(CODING)
        assert (early.status, early.reason) == (200, "router_unreachable")
        engine = await asyncio.create_subprocess_exec(
            *(command("arch-ext-proc"), "engine", str(tmp_path / "arch_config.yaml")),
            env={**mesh.stack.environ, **ONE_THREAD},
        )
        try:
            await engine_answers(socket)
            mesh.forget()
            await ask_everything(mesh)
        finally:
            engine.kill()
            await engine.wait()
        lost = await mesh.ask(CODING)
        assert (lost.status, lost.reason) == (200, "router_unreachable")


async def test_a_language_model_behind_an_endpoint_that_fails(tmp_path: Path) -> None:
    """A failing endpoint costs no request: the fallback router decides, or the default provider answers."""
    async with an_endpoint() as endpoint:
        router = f"type: openai, model: m, base_url: '{endpoint.url}', guided: json-schema"
        async with a_mesh(tmp_path, f"{{{router}, fallback: embedded}}") as mesh:
            await ask_everything(mesh)
            asked = endpoint.asked
            # Requests that ask the same at the same time share one question.
            assert asked > len((CODING, TRAVELLING))
            endpoint.is_broken = True
            mesh.forget()
            await ask_everything(mesh)
            assert endpoint.asked > asked
            failures = "arch_ext_proc_router_failures_total"
            assert await mesh.counted(failures, reason="router_error", then="fallback") > 0
        (tmp_path / "alone").mkdir()
        async with a_mesh(tmp_path / "alone", f"{{{router}}}") as mesh:
            lost = await mesh.ask(CODING)
            assert (lost.status, lost.reason, lost.model) == (200, "router_error", "openai/gpt-4o-mini")
            assert await mesh.counted(failures, reason="router_error", then="on_failure") == 1


class Endpoint:
    """An OpenAI-compatible server whose model knows the conversations of this file."""

    def __init__(self) -> None:
        self.is_broken = False
        self.asked = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.is_broken:
            return web.Response(status=500)
        prompt = (await request.json())["messages"][0]["content"]
        conversation = prompt.partition("<conversation>")[2]
        name = next((name for text, name in LESSONS if text in conversation), None) or "other"
        message = {"role": "assistant", "content": json.dumps({"route": name})}
        return web.json_response({"choices": [{"index": 0, "message": message}]})


@asynccontextmanager
async def an_endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", endpoint.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield endpoint
    finally:
        await runner.cleanup()


async def engine_answers(socket: Path) -> None:
    await eventually(socket.exists, "the engine's socket")
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                async with (
                    aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
                    session.get("http://engine/healthz"),
                ):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
