"""One process's router asked from another over a Unix socket, as if it were here."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.types import Message, Policy, Scores
from ext_proc.router.engine_socket import EngineClient, EngineServer
from ext_proc.transport import unix

POLICIES = (
    Policy("code", "programming", "software", ("write a loop",), ("buy a loop",)),
    Policy("旅行", "trips"),
)
MESSAGES = (Message("user", "half a pair: \ud83d"), Message("assistant", "yes"), Message("user", "go on"))
SCORES = Scores((0.7, 0.1), 0.2, chosen=0)


class ARouter:
    """Notes what it is asked; answers, fails, or waits for ever."""

    def __init__(self) -> None:
        self.prepared: list[tuple[Policy, ...]] = []
        self.asked: list[tuple[tuple[Message, ...], tuple[Policy, ...]]] = []
        self.failure: RouterError | None = None
        self.hangs = False
        self.was_cancelled = asyncio.Event()
        self.is_closed = False

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        self.prepared.append(policies)

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        self.asked.append((messages, policies))
        if self.failure:
            raise self.failure
        if self.hangs:
            try:
                await asyncio.Event().wait()
            finally:
                self.was_cancelled.set()
        return SCORES

    async def close(self) -> None:
        self.is_closed = True


@asynccontextmanager
async def an_engine(folder: Path) -> AsyncIterator[tuple[ARouter, EngineClient]]:
    router = ARouter()
    server = EngineServer(router, folder / "engine.sock")
    await server.start()
    client = EngineClient(str(folder / "engine.sock"))
    try:
        yield router, client
    finally:
        await client.close()
        await server.stop()
    assert router.is_closed


async def test_what_is_asked_arrives_and_what_is_answered_comes_back(tmp_path: Path) -> None:
    async with an_engine(tmp_path) as (router, client):
        await client.prepare(POLICIES)
        assert await client.score(MESSAGES, POLICIES) == SCORES
        ((messages, policies),) = router.asked
        assert policies == POLICIES
        assert policies is router.prepared[0]
        assert [message.role for message in messages] == ["user", "assistant", "user"]
        assert messages[0].text.startswith("half a pair: ")


async def test_policies_that_requests_bring_along_drive_no_configuration_out(tmp_path: Path) -> None:
    async with an_engine(tmp_path) as (router, client):
        await client.prepare(POLICIES)
        for number in range(40):
            await client.score(MESSAGES, (Policy(f"brought {number} \ud83d", "x"),))
        await client.score(MESSAGES, POLICIES)
        assert router.asked[-1][1] is router.prepared[0]
        assert len(router.prepared) == 1


async def test_an_engine_that_was_restarted_prepares_what_its_servers_had_prepared(tmp_path: Path) -> None:
    client = EngineClient(str(tmp_path / "engine.sock"))
    async with an_engine(tmp_path):
        await client.prepare(POLICIES)
    async with an_engine(tmp_path) as (router, _):
        await asyncio.gather(*(client.score(MESSAGES, POLICIES) for _ in range(5)))
        assert len(router.prepared) == 1
        assert all(policies is router.prepared[0] for _, policies in router.asked)
    await client.close()


async def test_what_the_engine_prepared_at_its_start_is_what_servers_ask_about(tmp_path: Path) -> None:
    router = ARouter()
    server = EngineServer(router, tmp_path / "engine.sock")
    await server.prepare(POLICIES)
    await server.start()
    client = EngineClient(str(tmp_path / "engine.sock"))
    await client.prepare(POLICIES)
    await client.score(MESSAGES, POLICIES)
    assert [policies is router.prepared[0] for _, policies in router.asked] == [True]
    assert len(router.prepared) == 1
    await client.close()
    await server.stop()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"policies": 1, "messages": []}', b'{"policies": [], "messages": [["user"]]}'],
)
@pytest.mark.parametrize("path", ["score", "prepare"])
async def test_a_malformed_request_is_refused_and_the_engine_goes_on(
    tmp_path: Path, path: str, body: bytes
) -> None:
    async with an_engine(tmp_path) as (router, client):
        connector = aiohttp.UnixConnector(str(tmp_path / "engine.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://engine/{path}", data=body) as answer,
        ):
            refused = answer.status, await answer.json(content_type=None)
        assert refused == (400, {"reason": "router_error"})
        assert (router.prepared, router.asked) == ([], [])
        assert await client.score(MESSAGES, POLICIES) == SCORES


def test_nobody_can_connect_before_the_sockets_mode_is_set(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with unix.bound(tmp_path / "engine.sock", 0o660), socket.socket(socket.AF_UNIX) as client:
            assert (tmp_path / "engine.sock").stat().st_mode & 0o777 == 0o660
            with pytest.raises(ConnectionRefusedError):
                client.connect(str(tmp_path / "engine.sock"))
    finally:
        os.umask(before)


async def test_the_engines_failure_is_the_servers_too(tmp_path: Path) -> None:
    async with an_engine(tmp_path) as (router, client):
        router.failure = RouterError(Reason.ROUTER_BUSY, "full of pl4nted")
        with pytest.raises(RouterError) as caught:
            await client.score(MESSAGES, POLICIES)
    assert caught.value.reason is Reason.ROUTER_BUSY
    assert "pl4nted" not in str(caught.value)


async def test_without_an_engine_it_is_unreachable(tmp_path: Path) -> None:
    client = EngineClient(str(tmp_path / "nobody.sock"))
    with pytest.raises(RouterError) as caught:
        await client.prepare(POLICIES)
    assert caught.value.reason is Reason.ROUTER_UNREACHABLE
    await client.close()


async def test_a_caller_that_leaves_frees_its_place_in_the_engine(tmp_path: Path) -> None:
    async with an_engine(tmp_path) as (router, client):
        router.hangs = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.score(MESSAGES, POLICIES)
        await asyncio.wait_for(router.was_cancelled.wait(), 30)


async def test_an_engine_that_comes_back_is_found_again(tmp_path: Path) -> None:
    client = EngineClient(str(tmp_path / "engine.sock"))
    for _ in range(2):
        async with an_engine(tmp_path):
            assert await client.score(MESSAGES, POLICIES) == SCORES
        with pytest.raises(RouterError):
            await client.score(MESSAGES, POLICIES)
    await client.close()


async def test_a_socket_that_a_killed_engine_left_is_taken_over_and_a_file_is_not(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "engine.sock"))
    left.close()
    async with an_engine(tmp_path) as (_, client):
        assert await client.score(MESSAGES, POLICIES) == SCORES
    (tmp_path / "file").write_text("mine")
    server = EngineServer(ARouter(), tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        await server.start()
    await server.stop()
    assert (tmp_path / "file").read_text() == "mine"


async def test_an_answer_of_another_shape_is_garbled(tmp_path: Path) -> None:
    async with an_engine(tmp_path) as (router, client):
        router.score = lambda *_: asyncio.sleep(0)  # type: ignore[assignment]
        with pytest.raises(RouterError) as caught:
            await client.score(MESSAGES, POLICIES)
    assert caught.value.reason is Reason.ROUTER_GARBLED
