"""What gets through Envoy and what does not: clients' cookies, providers' headers, a server gone bad."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from demo.stand_in import Behaviour
from ext_proc.server import wire
from tests.support.mesh import CLIENT_HEADERS, CODING, CONFIGS, LIMIT_S, Mesh, chat, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")

OF_CLIENTS = [
    ("cookie", "session=pl4nted-cookie"),
    ("proxy-authorization", "Basic pl4nted-proxy"),
    ("authorization", "Bearer pl4nted-key"),
    ("x-of-the-application", "kept"),
]
OF_PROVIDERS = {
    "set-cookie": "__cf_bm=pl4nted",
    "alt-svc": 'h3=":443"',
    "openai-organization": "pl4nted-org",
    "openai-project": "pl4nted-project",
    "x-arch-policy": "pl4nted-policy",
    "x-arch-arm": "pl4nted-arm",
    "x-arch-attempts": "pl4nted-attempts",
    "x-request-cost": "kept",
}


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1/files"], ids=lambda path: path[4:]
)
async def test_no_provider_sees_a_clients_cookies(mesh: Mesh, path: str) -> None:
    await mesh.send(chat(CODING), path, headers=OF_CLIENTS)
    (at,) = mesh.seen()
    seen = mesh.only(at).headers
    assert "cookie" not in seen
    assert "proxy-authorization" not in seen
    assert seen["x-of-the-application"] == "kept"


async def test_a_request_that_is_decided_holds_no_stream_while_its_provider_answers(mesh: Mesh) -> None:
    hold = asyncio.Event()
    mesh.providers["openai"].behave = Behaviour(hold=hold)
    body = chat("anything", model="openai/gpt-4o-mini", stream=True)
    url = f"{mesh.stack.url}/v1/chat/completions"
    async with mesh.http.post(url, json=body, headers=CLIENT_HEADERS) as answer:
        assert await answer.content.readuntil(b"\n\n")
        async with asyncio.timeout(LIMIT_S):
            while await mesh.counted("arch_ext_proc_streams_in_flight"):
                await asyncio.sleep(0.02)
        hold.set()
        assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"], ids=lambda path: path[4:])
async def test_no_client_sees_what_a_provider_says_to_the_gateway(mesh: Mesh, path: str) -> None:
    for provider in mesh.providers.values():
        provider.behave = Behaviour(headers=OF_PROVIDERS)
    reply = await mesh.send(chat(CODING), path)
    mesh.forget()
    assert reply.status == 200
    assert "pl4nted" not in str(dict(reply.headers))
    assert "alt-svc" not in reply.headers
    assert reply.headers["x-request-cost"] == "kept"
    assert reply.policy == ("code generation" if path.endswith("completions") else None)


BAD = {
    ":method": "DELETE",
    ":scheme": "https",
    "host": "evil.example",
    "cookie": "pl4nted",
    "x-forwarded-for": "1.2.3.4",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-of-the-application": "pl4nted",
    "te": "trailers",
}
GOOD = {
    "x-arch-cluster": "coder",
    "x-arch-model": "vllm/coder",
    ":path": "/served/here",
    "authorization": "Bearer mine",
}


@asynccontextmanager
async def in_the_servers_place(
    mesh: Mesh, process: Callable[[Any, Any], Awaitable[None]]
) -> AsyncIterator[None]:
    """Another server that Envoy takes for ours."""
    handler = grpc.stream_stream_rpc_method_handler(process)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD: handler}),)
    )
    alive: Any = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(alive, server)
    await alive.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(f"127.0.0.1:{mesh.stack.environ['ARCH_PORT']}")
    await server.start()
    try:
        async with asyncio.timeout(LIMIT_S):
            yield
    finally:
        await server.stop(0)


def answering(reply: Any) -> Callable[[Any, Any], Awaitable[None]]:
    """Answers every body with this."""

    async def process(_: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            is_body = wire.deserialize(message).WhichOneof("request") == "request_body"
            await context.write(reply.SerializeToString() if is_body else wire.AWAIT_BODY)

    return process


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def without_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("gone-bad")
    names = ("openai", "coder", "anthropic", "local")
    async with running_mesh(CONFIGS / "main.yaml", folder, *names) as mesh:
        await mesh.stack.server.kill()
        yield mesh


async def test_a_server_gone_bad_changes_what_it_must_and_nothing_else(without_server: Mesh) -> None:
    mesh, answer = without_server, pb.ProcessingResponse()
    common = answer.request_body.response
    common.clear_route_cache = True
    for name, value in {**GOOD, **BAD}.items():
        option = common.header_mutation.set_headers.add(append_action=2)
        option.header.key, option.header.raw_value = name, value.encode()
    common.header_mutation.remove_headers.extend(["x-request-id", "user-agent", "x-api-key"])
    answer.dynamic_metadata.fields["envoy.lb"].struct_value.fields["canary"].bool_value = True
    answer.mode_override.response_body_mode = 2
    async with in_the_servers_place(mesh, answering(answer)):
        while True:
            mesh.forget()
            reply = await mesh.send(chat(CODING), headers=OF_CLIENTS)
            assert reply.status == 200
            if reply.reason != "server_unavailable":
                break
    assert reply.model == "vllm/coder"
    seen = mesh.only("coder")
    assert (seen.method, seen.path) == ("POST", "/served/here")
    assert seen.headers["authorization"] == "Bearer mine"
    assert seen.headers["x-of-the-application"] == "kept"
    assert "pl4nted" not in str(dict(seen.headers))
    assert "evil.example" not in str(dict(seen.headers))
    assert {"x-forwarded-for", "te"}.isdisjoint(seen.headers)
    assert {"x-request-id", "user-agent"} <= {name.lower() for name in seen.headers}


async def test_nothing_answers_in_a_providers_place(without_server: Mesh) -> None:
    mesh, answer = without_server, pb.ProcessingResponse()
    answer.immediate_response.status.code = 200
    answer.immediate_response.body = b"pl4nted"
    async with in_the_servers_place(mesh, answering(answer)):
        before = await mesh.envoy_stats("ext_proc.streams_started")
        while (await mesh.envoy_stats("ext_proc.streams_started")) == before:
            reply = await mesh.send(chat(CODING))
            assert reply.status == 200
            assert b"pl4nted" not in reply.body


async def test_a_server_is_sent_only_what_it_reads(without_server: Mesh) -> None:
    mesh, seen = without_server, set[str]()

    async def process(_: Any, context: Any) -> None:
        message = wire.deserialize(await context.read())
        seen.update(header.key for header in message.request_headers.headers.headers)
        assert not message.attributes
        assert not message.metadata_context.filter_metadata

    async with in_the_servers_place(mesh, process):
        while not seen:
            await mesh.send(chat(CODING), headers=[*OF_CLIENTS, ("x-arch-session", "s")])
    assert seen <= {
        *(":method", ":path", "content-type", "content-encoding", "content-length"),
        *("x-request-id", "x-arch-session", "x-model-affinity"),
    }
    assert {":path", "x-arch-session"} <= seen
