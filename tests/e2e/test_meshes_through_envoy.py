"""What is rendered for Istio and Envoy Gateway, as their control planes apply it, in the real Envoy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from demo import processes
from demo.processes import free_port
from demo.stack import PORTS, Stack
from demo.stand_in import Behaviour, StandIn
from ext_proc.config.load import load
from ext_proc.core import headers
from ext_proc.core.settings import Address
from ext_proc.envoy_config import Place, render_envoy_gateway, render_istio
from tests.support.control_planes import EnvoyGateway, Istiod
from tests.support.mesh import (
    CLIENT_KEY,
    CODING,
    CONFIGS,
    LIMIT_S,
    PROVIDER_KEYS,
    TRAVELLING,
    Mesh,
    chat,
    eventually,
    no_secret_in,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = CONFIGS / "meshes.yaml"
SERVER = "arch.test"
SPOOFED = [*((name, "next/two") for name in headers.DECISION), ("cookie", "session=secret")]


def istio(configuration: Any, port: int) -> Any:
    text = render_istio(configuration, (Address(SERVER, port),), Place("ingress", "edge"))
    return Istiod(list(yaml.safe_load_all(text)), "edge", {SERVER: port})


def envoy_gateway(configuration: Any, port: int) -> Any:
    text = render_envoy_gateway(configuration, (Address(SERVER, port),), Place("llm", "eg"))
    return EnvoyGateway(list(yaml.safe_load_all(text)), patched=True)


def envoy_gateway_without_patches(configuration: Any, port: int) -> Any:
    text = render_envoy_gateway(configuration, (Address(SERVER, port),), Place("llm", "eg"))
    return EnvoyGateway(list(yaml.safe_load_all(text)), patched=False)


@dataclass
class Kind:
    """A mesh with what it can do besides decisions: copies, and going on after a failure."""

    mesh: Mesh
    can_everything: bool


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[istio, envoy_gateway, envoy_gateway_without_patches]
)
async def kind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Kind]:
    plane: Callable[[Any, int], Any] = request.param
    folder = tmp_path_factory.mktemp("meshes")
    ports = {name: free_port() for name in PORTS}
    async with AsyncExitStack() as cleanup:
        stand_ins = {name: StandIn(name) for name in ("openai", "coder", "next")}
        for one in stand_ins.values():
            await cleanup.enter_async_context(one.running())
        environ = {
            **{
                f"{name.upper()}_UPSTREAM": f"http://{name}.test:{one.port}/v1"
                for name, one in stand_ins.items()
            },
            **{name: str(port) for name, port in ports.items()},
            **PROVIDER_KEYS,
        }
        configuration = load(CONFIG, environ, lambda: b"").configuration
        file = folder / "envoy.yaml"
        mesh_plane = plane(configuration, ports["ARCH_PORT"])
        file.write_text(yaml.safe_dump(mesh_plane.bootstrap(ports["ENVOY_ADMIN_PORT"])))
        admin_url, envoy_url = (
            f"http://127.0.0.1:{ports[name]}" for name in ("ARCH_ADMIN_PORT", "ENVOY_ADMIN_PORT")
        )
        server = processes.server(CONFIG, admin_url, folder / "server.log", environ, log_level="DEBUG")
        envoy = processes.envoy(file, envoy_url, folder / "envoy.log", PROVIDER_KEYS)
        for child in (server, envoy):
            cleanup.push_async_callback(child.stop)
            await child.start()
        url = f"http://127.0.0.1:{mesh_plane.port}"
        stack = Stack(CONFIG, configuration, {}, server, envoy, environ, url, admin_url, envoy_url)
        session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT_S))
        mesh = Mesh(stack, await cleanup.enter_async_context(session), stand_ins)
        # Envoy asks no server that its health check has not found yet.
        await mesh.decided_again(TRAVELLING)
        yield Kind(mesh, plane is not envoy_gateway_without_patches)


@pytest.fixture
def mesh(kind: Kind) -> Mesh:
    kind.mesh.forget()
    return kind.mesh


async def test_a_decided_request_is_the_providers_own_and_is_copied_and_observed_where_it_can_be(
    kind: Kind, mesh: Mesh
) -> None:
    """The one test that asks for this policy: its copies come late, and none may come into another test."""
    reply = await mesh.ask(CODING)
    assert (reply.status, reply.policy, reply.model, reply.reason) == (
        200,
        "code generation",
        "coder/one",
        "policy",
    )
    if kind.can_everything:
        await eventually(lambda: mesh.providers["next"].seen, "a copy")
        (copy,) = mesh.providers["next"].seen
        assert (copy.path, copy.model) == ("/v1/own/path/chat/completions", "two")
        assert copy.headers["authorization"] == f"Bearer {PROVIDER_KEYS['NEXT_KEY']}"
        assert no_secret_in(copy, PROVIDER_KEYS["CODER_KEY"])
        async with asyncio.timeout(LIMIT_S):
            for role in ("primary", "shadow"):
                while await mesh.counted("arch_ext_proc_answers_total", role=role) == 0:
                    await asyncio.sleep(0.02)
    (seen,) = mesh.providers["coder"].seen
    assert (seen.path, seen.model, seen.headers["api-key"]) == (
        "/v1/chat/completions",
        "one",
        PROVIDER_KEYS["CODER_KEY"],
    )
    assert seen.headers["host"].startswith("coder.test")
    assert not {name for name in (*headers.UNTIL_ROUTED, headers.TRY_KEY) if name in seen.headers}
    assert set(mesh.counts()) == ({"coder", "next"} if kind.can_everything else {"coder"})


async def test_after_a_failure_the_next_model_answers_where_that_can_be_said(kind: Kind, mesh: Mesh) -> None:
    mesh.providers["next"].behave = Behaviour(status=503)
    reply = await mesh.ask(TRAVELLING)
    (first,) = mesh.providers["next"].seen
    assert (first.path, first.model) == ("/v1/own/path/chat/completions", "two")
    if kind.can_everything:
        assert (reply.status, reply.model, reply.headers["x-arch-attempts"]) == (200, "coder/one", "2")
        (second,) = mesh.providers["coder"].seen
        assert (second.path, second.model, second.headers["api-key"]) == (
            "/v1/chat/completions",
            "one",
            PROVIDER_KEYS["CODER_KEY"],
        )
        assert no_secret_in(second, PROVIDER_KEYS["NEXT_KEY"])
    else:
        assert (reply.status, reply.model) == (503, "next/two")


async def test_the_first_of_a_ranked_list_gets_the_request(mesh: Mesh) -> None:
    reply = await mesh.ask(TRAVELLING)
    assert (reply.status, reply.policy, reply.model) == (200, "travel planning", "next/two")
    assert mesh.counts() == {"next": 1}


async def test_decision_headers_of_clients_are_powerless(mesh: Mesh) -> None:
    reply = await mesh.send(chat("hello", model="openai/gpt-4o-mini"), headers=SPOOFED)
    assert (reply.status, reply.reason, reply.model) == (200, "pinned", "openai/gpt-4o-mini")
    assert no_secret_in(mesh.only("openai"), "session=secret", CLIENT_KEY)
    mesh.forget()
    reply = await mesh.send(None, "/v1/models", method="GET", headers=SPOOFED)
    assert (reply.status, reply.reason) == (200, None)
    assert no_secret_in(mesh.only("openai"), "session=secret")


async def test_a_large_body_passes(mesh: Mesh) -> None:
    reply = await mesh.send(chat("x" * (3 << 20), model="coder/one"))
    assert (reply.status, reply.reason) == (200, "pinned")
    assert mesh.only("coder").model == "one"


async def test_without_a_server_the_default_provider_answers(mesh: Mesh) -> None:
    await mesh.stack.server.kill()
    try:
        for sent in ([], SPOOFED):
            mesh.forget()
            reply = await mesh.send(chat("hello"), "/some/prefix/v1/chat/completions", headers=sent)
            assert (reply.status, reply.reason, reply.model) == (200, "server_unavailable", None)
            seen = mesh.only("openai")
            assert seen.headers["authorization"] == f"Bearer {PROVIDER_KEYS['OPENAI_KEY']}"
            assert seen.path == "/v1/chat/completions"
    finally:
        await mesh.stack.restart_server()
        await mesh.decided_again(TRAVELLING)
