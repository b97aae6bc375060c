"""The gRPC server itself, on a real socket: who gets in, how large a message may be, what a path may be."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ext_proc.core.settings import Address, Pipe, ServerSettings, ServerTls
from ext_proc.core.types import Message, Policy, Secret, Verdict
from ext_proc.server import wire
from ext_proc.server.breaks import BreakLog
from ext_proc.server.grpc_server import GrpcServer
from ext_proc.server.observing import Observing
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry
from ext_proc.transport.certificates import BadCertificate
from tests.support.builders import a_credential, a_snapshot, a_target

LIMIT_S = 60.0
TOKEN = "the-token-that-envoy-shows"
BODY_LIMIT = 64 << 10
SNAPSHOT = a_snapshot(a_target(credential=a_credential("Bearer pl4nted")))
PROCESS = f"/{wire.SERVICE}/{wire.METHOD}"
LOGS = f"/{wire.LOG_SERVICE}/{wire.LOG_METHOD}"


class Nobody:
    """The router of a configuration without policies."""

    async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        raise AssertionError(f"asked of {policies}")


def a_server(listen: Address | Pipe, telemetry: Telemetry, **settings: Any) -> GrpcServer:
    live = Live(SNAPSHOT, Nobody(), body_limit_bytes=BODY_LIMIT)
    observing = Observing(telemetry)
    servicer = Servicer(lambda: live, telemetry, observing)
    found = ServerSettings(listen, drain_s=0.0, **settings)
    return GrpcServer(servicer, BreakLog(observing), found, BODY_LIMIT, telemetry)


@asynccontextmanager
async def serving(telemetry: Telemetry | None = None, **settings: Any) -> AsyncIterator[grpc.aio.Channel]:
    server = a_server(Address("127.0.0.1", 0), telemetry or Telemetry(), **settings)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop()


def call(channel: grpc.aio.Channel, path: str, *metadata: tuple[str, str]) -> Any:
    method = channel.stream_stream(path, request_serializer=None, response_deserializer=None)
    return method(metadata=metadata, timeout=LIMIT_S)


def headers_and(body: bytes) -> list[bytes]:
    """A whole request, as Envoy sends it."""
    asked, sent = pb.ProcessingRequest(), pb.ProcessingRequest()
    pairs = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}
    for key, value in pairs.items():
        asked.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    sent.request_body.body, sent.request_body.end_of_stream = body, True
    return [asked.SerializeToString(), sent.SerializeToString()]


@pytest.mark.parametrize("path", [PROCESS, LOGS])
@pytest.mark.parametrize("given", [[], [("x-arch-token", "wrong")], [("authorization", f"Bearer {TOKEN}")]])
async def test_without_the_token_nothing_is_answered(path: str, given: list[tuple[str, str]]) -> None:
    telemetry = Telemetry()
    async with serving(telemetry, token=Secret(TOKEN)) as channel:
        stream = call(channel, path, *given)
        assert await stream.code() == grpc.StatusCode.UNAUTHENTICATED
        assert TOKEN not in await stream.details()
    assert b'arch_ext_proc_refused_callers_total{reason="token"} 1.0' in telemetry.exposition()


async def test_with_it_the_answer_holds_the_providers_key() -> None:
    async with serving(token=Secret(TOKEN)) as channel:
        stream = call(channel, PROCESS, ("x-arch-token", TOKEN))
        for message in headers_and(b'{"model": "m", "messages": []}'):
            await stream.write(message)
            answer = await stream.read()
        assert b"Bearer pl4nted" in answer


async def test_health_is_told_to_anybody() -> None:
    async with serving(token=Secret(TOKEN)) as channel:
        found = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert found.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_larger_message_than_any_body_ends_its_stream() -> None:
    async with serving() as channel:
        stream = call(channel, PROCESS)
        _, body = headers_and(b"x" * (BODY_LIMIT + (1 << 20)))
        await stream.write(body)
        assert await stream.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_two_servers_share_no_socket_and_no_port(tmp_path: Path) -> None:
    pipe = Pipe(str(tmp_path / "s"), 0o600)
    one, other = a_server(pipe, Telemetry()), a_server(pipe, Telemetry())
    await one.start()
    try:
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
        with pytest.raises(OSError, match="in use"):
            await other.start()
        async with grpc.aio.insecure_channel(str(pipe)) as channel:
            await channel.channel_ready()
    finally:
        await one.stop()
        await other.stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        third = a_server(Address("127.0.0.1", taken.getsockname()[1]), Telemetry())
        with pytest.raises(OSError, match="in use"):
            await third.start()
        await third.stop()


async def test_a_server_does_not_start_with_files_that_cannot_serve(tmp_path: Path) -> None:
    tls = ServerTls(str(tmp_path / "gone.crt"), str(tmp_path / "gone.key"))
    server = a_server(Address("127.0.0.1", 0), Telemetry(), tls=tls)
    with pytest.raises(BadCertificate, match="no such file"):
        await server.start()
    await server.stop()
