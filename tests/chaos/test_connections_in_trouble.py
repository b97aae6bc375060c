"""Clients that go away and upstreams that break off, at each phase of a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from demo.stand_in import Behaviour
from tests.support.mesh import CODING, LIMIT_S, Mesh, chat, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLIENTS = 10
STREAMED = json.dumps(chat(CODING, stream=True)).encode()
HOUR_S = 3600.0


async def until(number: Callable[[], Awaitable[float]], expected: float, what: str) -> None:
    """Wait for a figure that another process keeps. Errors: AssertionError."""
    found = None
    try:
        async with asyncio.timeout(LIMIT_S):
            while (found := await number()) != expected:
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what}: {found}, not {expected}") from None


async def streams_in_flight_are(mesh: Mesh, expected: int) -> None:
    await until(lambda: mesh.counted("arch_ext_proc_streams_in_flight"), expected, "streams in flight")


async def requests_in_envoy_are(mesh: Mesh, expected: int) -> None:
    name = "http.llm.downstream_rq_active"

    async def active() -> float:
        return (await mesh.envoy_stats(name))[name]

    await until(active, expected, name)


async def no_stream_is_left(mesh: Mesh) -> None:
    """Neither here nor in Envoy, and the next request is routed by policy."""
    await requests_in_envoy_are(mesh, 0)
    await streams_in_flight_are(mesh, 0)
    reply = await mesh.ask()
    assert (reply.status, reply.reason) == (200, "policy")
    await streams_in_flight_are(mesh, 0)
    assert await mesh.counted("arch_ext_proc_stream_errors_total") == 0


def address_of(mesh: Mesh) -> tuple[str, int]:
    """Where Envoy listens."""
    host, _, port = mesh.stack.url.removeprefix("http://").partition(":")
    return host, int(port)


@asynccontextmanager
async def clients_that_sent(mesh: Mesh, data: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections on which so much of a request was sent. They break off at the end of the block."""
    connections = [await asyncio.open_connection(*address_of(mesh)) for _ in range(CLIENTS)]
    try:
        for _, writer in connections:
            writer.write(data)
            await writer.drain()
        yield [reader for reader, _ in connections]
    finally:
        for _, writer in connections:
            writer.transport.abort()


def request(body: bytes, sent: int | None = None) -> bytes:
    """A chat completion of which only so many bytes of the body are on their way."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: chaos\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body[:sent]


@pytest.mark.parametrize("sent", [0, 20], ids=["before the body", "in the middle of the body"])
async def test_clients_that_leave_while_the_server_waits_for_the_body_leave_no_stream(
    mesh: Mesh, sent: int
) -> None:
    async with clients_that_sent(mesh, request(STREAMED, sent)):
        await streams_in_flight_are(mesh, CLIENTS)
    await no_stream_is_left(mesh)
    assert mesh.counts() == {"coder": 1}


async def test_clients_that_leave_while_the_server_decides_leave_no_stream(mesh: Mesh) -> None:
    for provider in mesh.providers.values():
        provider.behave.delay_s = HOUR_S  # should Envoy go on without the server before they leave
    mesh.stack.freeze_server()
    async with clients_that_sent(mesh, request(STREAMED)):
        await requests_in_envoy_are(mesh, CLIENTS)
    await requests_in_envoy_are(mesh, 0)
    mesh.forget()
    mesh.stack.thaw_server()
    await mesh.decided_again()
    await no_stream_is_left(mesh)


async def test_clients_that_leave_while_the_model_thinks_leave_no_stream(mesh: Mesh) -> None:
    coder = mesh.providers["coder"]
    coder.behave.delay_s = HOUR_S
    async with clients_that_sent(mesh, request(STREAMED)):
        await eventually(lambda: len(coder.seen) == CLIENTS, "all requests at the provider")
    coder.behave = Behaviour()
    await no_stream_is_left(mesh)


async def test_clients_that_leave_in_the_middle_of_a_streamed_answer_leave_no_stream(mesh: Mesh) -> None:
    coder = mesh.providers["coder"]
    coder.behave.chunk_delay_s = 0.2
    async with clients_that_sent(mesh, request(STREAMED)) as readers, asyncio.timeout(LIMIT_S):
        for reader in readers:
            await reader.readuntil(b"data: ")
    coder.behave = Behaviour()
    await no_stream_is_left(mesh)


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(reset=True), Behaviour(reset_after=0), Behaviour(reset_after=2)],
    ids=["before it answers", "before the first event", "in the middle of the stream"],
)
async def test_a_provider_that_breaks_off_leaves_the_server_healthy_and_no_stream(
    mesh: Mesh, behaviour: Behaviour
) -> None:
    mesh.providers["coder"].behave = behaviour
    outcomes = await asyncio.gather(*(mesh.ask(stream=True) for _ in range(CLIENTS)), return_exceptions=True)
    # The client learns it as it would without us: no whole answer, whatever came before.
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, aiohttp.ClientPayloadError)
        else:
            assert outcome.status == 503
    assert len(mesh.providers["coder"].seen) == CLIENTS
    mesh.providers["coder"].behave = Behaviour()
    await no_stream_is_left(mesh)
