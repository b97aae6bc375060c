"""Streams on a real channel, cancelled or half-closed after any message: nothing stays, nothing fails."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from ext_proc.core.ports import Asker
from ext_proc.core.settings import Address, ServerSettings
from ext_proc.core.types import Message, Policy, Verdict
from ext_proc.server.breaks import BreakLog
from ext_proc.server.grpc_server import GrpcServer
from ext_proc.server.observing import Observing
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry
from tests.contract.test_grpc_server import LIMIT_S, PROCESS, call
from tests.contract.test_process import BODY, SNAPSHOT, FakeAsker, body, headers

ROLES: dict[str, tuple[tuple[str, str], ...]] = {
    "route": (("x-arch-role", "route"),),
    "attempt": (("x-arch-role", "attempt"),),
    "shadow": (("x-arch-role", "shadow"), ("x-arch-target", "openai/large")),
    "observe": (("x-arch-role", "observe"),),
}


class HangingAsker:
    """A router that thinks until its caller has left."""

    def __init__(self) -> None:
        self.thinking = asyncio.Event()

    async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        self.thinking.set()
        await asyncio.Event().wait()
        raise AssertionError


class Served:
    """A server on a real socket, and what it counted."""

    def __init__(self, channel: grpc.aio.Channel, telemetry: Telemetry) -> None:
        self.channel = channel
        self._telemetry = telemetry

    def counted(self, name: str) -> float:
        """The sum over a metric's series."""
        lines = re.findall(
            rf"^arch_ext_proc_{name}(?:{{.*}})? (.+)$", self._telemetry.exposition().decode(), re.M
        )
        return sum(map(float, lines))

    async def until(self, name: str, wanted: float) -> None:
        async with asyncio.timeout(LIMIT_S):
            while self.counted(name) != wanted:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(asker: Asker) -> AsyncIterator[Served]:
    telemetry, live = Telemetry(), Live(SNAPSHOT, asker, 1 << 20)
    observing = Observing(telemetry)
    servicer = Servicer(lambda: live, telemetry, observing)
    settings = ServerSettings(Address("127.0.0.1", 0), drain_s=0.0)
    server = GrpcServer(servicer, BreakLog(observing), settings, 1 << 20, telemetry)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Served(channel, telemetry)
    finally:
        await server.stop()


def dialogue(role: str) -> list[bytes]:
    """What Envoy sends in a role, from the request's headers to the end of the answer."""
    begun, said = pb.ProcessingRequest(), pb.ProcessingRequest()
    begun.response_headers.headers.headers.add(key=":status", raw_value=b"200")
    said.response_body.body = b"{}"
    messages = {
        "route": [headers(), body(BODY)],
        "attempt": [headers(x_arch_attempt="openai/small"), body(BODY)],
        "shadow": [headers(), body(BODY), begun, said],
        "observe": [headers(), begun, said],
    }
    return [message.SerializeToString() for message in messages[role]]


STEPS = [(role, sent) for role in ROLES for sent in range(len(dialogue(role)) + 1)]


@pytest.fixture(autouse=True)
def _nothing_is_logged_by_grpc(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    assert not [record for record in caplog.records if record.name.startswith("grpc")]


async def is_well(served: Served) -> None:
    """Every stream is gone without an error, and the next one is decided."""
    await served.until("streams_in_flight", 0)
    assert served.counted("stream_errors_total") == 0
    stream = call(served.channel, PROCESS)
    for message in dialogue("route"):
        await stream.write(message)
        answer = pb.ProcessingResponse.FromString(await stream.read())
    assert answer.request_body.response.clear_route_cache
    await stream.done_writing()
    assert await stream.code() == grpc.StatusCode.OK
    await served.until("streams_in_flight", 0)


@pytest.mark.parametrize(("role", "sent"), STEPS)
async def test_half_closed_after_any_message(role: str, sent: int) -> None:
    async with serving(FakeAsker()) as served:
        stream = call(served.channel, PROCESS, *ROLES[role])
        for message in dialogue(role)[:sent]:
            await stream.write(message)
        await stream.done_writing()
        answers = [answer async for answer in stream]
        assert await stream.code() == grpc.StatusCode.OK
        assert len(answers) == (0 if role == "observe" else sent)
        await is_well(served)


@pytest.mark.parametrize("is_read", [True, False], ids=["answered", "before the answer"])
@pytest.mark.parametrize(("role", "sent"), STEPS)
async def test_cancelled_after_any_message(role: str, sent: int, is_read: bool) -> None:
    async with serving(FakeAsker()) as served:
        stream = call(served.channel, PROCESS, *ROLES[role])
        for message in dialogue(role)[:sent]:
            await stream.write(message)
            if is_read and role != "observe":
                await stream.read()
        stream.cancel()
        assert await stream.code() == grpc.StatusCode.CANCELLED
        await is_well(served)


async def test_cancelled_while_the_router_thinks() -> None:
    asker = HangingAsker()
    async with serving(asker) as served:
        stream = call(served.channel, PROCESS)
        for message in dialogue("route"):
            await stream.write(message)
        async with asyncio.timeout(LIMIT_S):
            await asker.thinking.wait()
        assert served.counted("streams_in_flight") == 1
        stream.cancel()
        await served.until("streams_in_flight", 0)
        await served.until("streams_abandoned_total", 1)
        assert served.counted("stream_errors_total") == 0


@pytest.mark.parametrize("role", ROLES)
async def test_a_message_of_an_unknown_kind_ends_the_stream_as_if_all_were_said(role: str) -> None:
    """So that Envoy goes on without the server. The role `observe`, for which nothing waits, goes on."""
    unknown = b"\xfa\x07\x02hi"  # field 127, whatever a later protocol means by it
    async with serving(FakeAsker()) as served:
        stream = call(served.channel, PROCESS, *ROLES[role])
        await stream.write(unknown)
        if role == "observe":
            await stream.done_writing()
        assert [answer async for answer in stream] == []
        assert await stream.code() == grpc.StatusCode.OK
        assert served.counted("stream_errors_total") == (role != "observe")


async def test_bytes_that_are_no_message_end_their_stream_and_no_other() -> None:
    async with serving(FakeAsker()) as served:
        stream = call(served.channel, PROCESS)
        await stream.write(b"\xff\xff\xff")
        assert await stream.code() not in (None, grpc.StatusCode.OK)
        await is_well(served)
