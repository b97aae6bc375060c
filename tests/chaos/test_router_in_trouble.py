"""A router that hangs, fails or talks nonsense: every request is answered, and told why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from math import nan

import pytest
import pytest_asyncio

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.settings import Address, Configuration
from ext_proc.core.types import Message, Policy, Scores
from ext_proc.router.ask import RouterAsker
from ext_proc.server.breaks import BreakLog
from ext_proc.server.grpc_server import GrpcServer
from ext_proc.server.observing import Observing
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry
from tests.support.mesh import Mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")

Answer = Callable[[], Awaitable[Scores]]


async def well() -> Scores:
    return Scores((0.9,), 0.1)


async def hangs() -> Scores:
    await asyncio.Event().wait()
    raise AssertionError


async def fails() -> Scores:
    raise ZeroDivisionError


async def is_unreachable() -> Scores:
    raise RouterError(Reason.ROUTER_UNREACHABLE, "nobody answers")


async def talks_nonsense() -> Scores:
    return Scores((nan,), 7.0)


class FakeRouter:
    """Does what `answer` does."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        pass

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        return await self._answer()

    async def close(self) -> None:
        pass


@dataclass
class Served:
    """A server in this process, and the router that it asks from now on."""

    configuration: Configuration
    live: Live

    def take(self, answer: Answer, max_waiting: int = 64) -> None:
        settings = replace(self.configuration.router, deadline_s=0.2, max_waiting=max_waiting)
        asker = RouterAsker(FakeRouter(answer), settings)
        self.live = Live(self.configuration.snapshot, asker, self.configuration.envoy.body_limit_bytes)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(broken_mesh: Mesh) -> AsyncIterator[Served]:
    """A server in this process takes the place of the one that Envoy knows."""
    await broken_mesh.stack.server.kill()
    configuration = broken_mesh.stack.configuration
    listen = Address("127.0.0.1", int(broken_mesh.stack.environ["ARCH_PORT"]))
    settings = replace(configuration.server, listen=listen, drain_s=0.0)
    asker = RouterAsker(FakeRouter(well), configuration.router)
    serving = Served(configuration, Live(configuration.snapshot, asker, body_limit_bytes=0))
    telemetry = Telemetry()
    servicer, breaks = Servicer(lambda: serving.live, telemetry), BreakLog(Observing(telemetry))
    server = GrpcServer(servicer, breaks, settings, configuration.envoy.body_limit_bytes, telemetry)
    await server.start()
    yield serving
    await server.stop()
    await broken_mesh.stack.restart_server()


@pytest.mark.parametrize(
    ("trouble", "max_waiting", "reason"),
    [
        (hangs, 64, "router_timeout"),
        (fails, 64, "router_error"),
        (is_unreachable, 64, "router_unreachable"),
        (talks_nonsense, 64, "router_garbled"),
        (well, 0, "router_busy"),
    ],
    ids=["hangs", "fails", "is unreachable", "talks nonsense", "has too many waiting"],
)
async def test_a_router_in_trouble_costs_no_request(
    served: Served, broken_mesh: Mesh, trouble: Answer, max_waiting: int, reason: str
) -> None:
    served.take(well)
    await broken_mesh.decided_again()
    broken_mesh.forget()
    served.take(trouble, max_waiting)
    replies = [await broken_mesh.ask(stream=is_streamed) for is_streamed in (False, True)]
    assert [(reply.status, reply.reason, reply.model) for reply in replies] == [
        (200, reason, "openai/gpt-4o-mini")
    ] * 2
    assert broken_mesh.counts() == {"openai": 2}
