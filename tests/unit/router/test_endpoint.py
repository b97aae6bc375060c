"""A routing model behind a real HTTP server that misbehaves on request."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.settings import EndpointSettings
from ext_proc.core.types import Credential, Message, Policy, Scores, Secret
from ext_proc.router.endpoint import EndpointRouter
from tests.unit.router.test_completions import MESSAGES, POLICIES, SETTINGS, an_answer

GOOD = an_answer('{"route": "code review"}')
DEADLINE_S = 30.0
Behave = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def good(_: web.Request) -> web.StreamResponse:
    return web.Response(body=GOOD)


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def half_a_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-length": str(len(GOOD))})
    await response.prepare(request)
    await response.write(GOOD[: len(GOOD) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def reset_hard(request: web.Request) -> web.StreamResponse:
    """An RST in place of a FIN, which is another error to whoever reads."""
    assert request.transport is not None
    lingers = struct.pack("ii", 1, 0)
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingers)
    request.transport.abort()
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(64):
        await response.write(b" " * 65_536)
    return response


def status(code: int) -> Behave:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, text="no")

    return answer


def text(content: str) -> Behave:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=an_answer(content))

    return answer


class Server:
    """Behaves as told; `seen` has every request's authorization and parsed body."""

    def __init__(self) -> None:
        self.behave: Behave = good
        self.seen: list[tuple[str | None, dict[str, object]]] = []
        self.settings = SETTINGS

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.headers.get("authorization"), json.loads(await request.read())))
        return await self.behave(request)


@asynccontextmanager
async def a_server() -> AsyncIterator[Server]:
    server = Server()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", server.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.settings = replace(SETTINGS, url=f"http://127.0.0.1:{runner.addresses[0][1]}/v1/chat/completions")
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def a_router(
    settings: EndpointSettings,
    deadline_s: float = DEADLINE_S,
    fallback: Fallback | None = None,
    fell_back: Callable[[Reason], None] = lambda reason: None,
) -> AsyncIterator[EndpointRouter]:
    router = EndpointRouter(settings, deadline_s, fallback, fell_back)
    try:
        yield router
    finally:
        await router.close()


class Fallback:
    def __init__(self) -> None:
        self.asked = 0
        self.prepared: tuple[Policy, ...] = ()
        self.is_closed = False

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        self.prepared = policies

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        self.asked += 1
        return Scores((0.0, 1.0), 0.0)

    async def close(self) -> None:
        self.is_closed = True


async def reason_of(router: EndpointRouter) -> Reason:
    with pytest.raises(RouterError) as caught:
        await router.score(MESSAGES, POLICIES)
    assert "look at my code" not in str(caught.value)
    return caught.value.reason


async def test_the_answer_is_a_route_and_the_key_goes_along() -> None:
    async with a_server() as server:
        settings = replace(server.settings, credential=Credential("authorization", Secret("Bearer k3y")))
        async with a_router(settings) as router:
            assert (await router.score(MESSAGES, POLICIES)).chosen == 0
        ((authorization, fields),) = server.seen
        assert (authorization, fields["model"]) == ("Bearer k3y", "Arch-Router")


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (status(429), Reason.ROUTER_BUSY),
        (status(500), Reason.ROUTER_ERROR),
        (status(302), Reason.ROUTER_ERROR),
        (half_a_body, Reason.ROUTER_UNREACHABLE),
        (reset, Reason.ROUTER_UNREACHABLE),
        (text("I would rather not say"), Reason.ROUTER_GARBLED),
        (endless, Reason.ROUTER_GARBLED),
    ],
)
async def test_each_failure_has_its_name(behave: Behave, reason: Reason) -> None:
    async with a_server() as server, a_router(server.settings) as router:
        server.behave = behave
        assert await reason_of(router) is reason


async def test_a_hanging_server_is_late_and_not_waited_for() -> None:
    async with a_server() as server, a_router(server.settings, deadline_s=0.2) as router:
        server.behave = hang
        assert await reason_of(router) is Reason.ROUTER_TIMEOUT


async def test_an_unknown_route_is_none_of_them() -> None:
    async with a_server() as server, a_router(server.settings) as router:
        server.behave = text('{"route": "a policy of yesterday"}')
        assert (await router.score(MESSAGES, POLICIES)).chosen == len(POLICIES)


async def test_nobody_there_is_unreachable() -> None:
    async with a_router(SETTINGS) as router:
        assert await reason_of(router) is Reason.ROUTER_UNREACHABLE


async def test_after_failures_in_a_row_nothing_is_sent_until_the_pause_is_over() -> None:
    async with a_server() as server:
        settings = replace(server.settings, breaker_failures=3, breaker_pause_s=0.2)
        async with a_router(settings) as router:
            server.behave = status(500)
            reasons = [await reason_of(router) for _ in range(6)]
            assert reasons == [Reason.ROUTER_ERROR] * 3 + [Reason.ROUTER_UNREACHABLE] * 3
            assert len(server.seen) == 3
            server.behave = good
            await asyncio.sleep(0.25)
            assert (await router.score(MESSAGES, POLICIES)).chosen == 0
            assert len(server.seen) == 4


@pytest.mark.parametrize("lose", [reset, reset_hard])
async def test_a_lost_connection_is_tried_once_more_while_the_budget_lasts(lose: Behave) -> None:
    async with a_server() as server, a_router(replace(server.settings, breaker_failures=1000)) as router:
        server.behave = lose
        for _ in range(20):
            assert await reason_of(router) is Reason.ROUTER_UNREACHABLE
        # Twenty requests, and ten retries in a burst plus one for every ten requests.
        assert len(server.seen) in range(30, 33)


async def test_what_the_server_does_not_answer_the_fallback_does() -> None:
    fallback, reasons = Fallback(), list[Reason]()
    async with a_server() as server, a_router(server.settings, 0.4, fallback, reasons.append) as router:
        await router.prepare(POLICIES)
        assert fallback.prepared is POLICIES
        for behave in (status(500), hang, text("no")):
            server.behave = behave
            assert (await router.score(MESSAGES, POLICIES)).per_policy == (0.0, 1.0)
        server.behave = good
    assert (fallback.asked, fallback.is_closed) == (3, True)
    assert reasons == [Reason.ROUTER_ERROR, Reason.ROUTER_TIMEOUT, Reason.ROUTER_GARBLED]


async def test_no_more_than_the_bound_are_under_way() -> None:
    under_way, most = 0, 0
    gate = asyncio.Event()

    async def count(_: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await gate.wait()
        under_way -= 1
        return web.Response(body=GOOD)

    async with a_server() as server, a_router(replace(server.settings, max_concurrent=2)) as router:
        server.behave = count
        asked = [asyncio.ensure_future(router.score(MESSAGES, POLICIES)) for _ in range(8)]
        async with asyncio.timeout(30):
            while len(server.seen) < 2:
                await asyncio.sleep(0.005)
        gate.set()
        assert [scores.chosen for scores in await asyncio.gather(*asked)] == [0] * 8
        assert most == 2


async def test_whoever_finds_no_place_is_turned_away_as_busy_and_says_nothing_about_the_server() -> None:
    async with a_server() as server:
        settings = replace(server.settings, max_concurrent=1, breaker_failures=2)
        async with a_router(settings, deadline_s=0.4) as router:
            server.behave = hang
            reasons = await asyncio.gather(*(reason_of(router) for _ in range(5)))
            assert reasons == [Reason.ROUTER_TIMEOUT, *[Reason.ROUTER_BUSY] * 4]
            server.behave = good
            assert (await router.score(MESSAGES, POLICIES)).chosen == 0


async def test_the_breaker_says_why_it_opened(caplog: pytest.LogCaptureFixture) -> None:
    async with a_server() as server, a_router(replace(server.settings, breaker_failures=1)) as router:
        server.behave = status(401)
        assert await reason_of(router) is Reason.ROUTER_ERROR
        assert await reason_of(router) is Reason.ROUTER_UNREACHABLE
    (opened,) = [record for record in caplog.records if record.msg == "router_breaker_opened"]
    assert "answers 401" in vars(opened)["fields"]["problem"]


async def test_what_a_server_wants_kept_is_not(caplog: pytest.LogCaptureFixture) -> None:
    cookies: list[str | None] = []

    async def sets_a_cookie(request: web.Request) -> web.StreamResponse:
        cookies.append(request.headers.get("cookie"))
        return web.Response(body=GOOD, headers={"set-cookie": "session=1; Domain=localhost"})

    async with a_server() as server:
        url = server.settings.url.replace("127.0.0.1", "localhost")
        async with a_router(replace(server.settings, url=url)) as router:
            server.behave = sets_a_cookie
            for _ in range(2):
                await router.score(MESSAGES, POLICIES)
    assert cookies == [None, None]


async def test_a_caller_that_leaves_is_no_failure_of_the_server() -> None:
    async with a_server() as server, a_router(replace(server.settings, breaker_failures=1)) as router:
        server.behave = hang
        asked = asyncio.ensure_future(router.score(MESSAGES, POLICIES))
        async with asyncio.timeout(30):
            while not server.seen:
                await asyncio.sleep(0.005)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        server.behave = good
        assert (await router.score(MESSAGES, POLICIES)).chosen == 0


async def test_no_user_text_asks_nobody() -> None:
    async with a_router(SETTINGS) as router:
        assert (await router.score((Message("system", "be kind"),), POLICIES)).none == 1.0
