"""The admin port of several workers, before real admin servers on Unix sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ext_proc.admin.app import AdminServer, Sources, front_application
from ext_proc.admin.page import HEADERS
from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Decide, Part, RequestHeaders
from ext_proc.core.settings import Address
from ext_proc.core.types import Decision, Dialect, Outcome
from ext_proc.telemetry import Telemetry
from ext_proc.telemetry.entries import KEPT
from ext_proc.workers.front import LIMIT_S, Front
from ext_proc.workers.siblings import Seat
from ext_proc.workers.worker import State, Worker
from tests.support.builders import a_route, a_snapshot, a_target

SNAPSHOT = a_snapshot(routes=(a_route(a_target("vllm/present"), policy="coding"),))
LOCAL = Address("127.0.0.1", 0)


@dataclass
class One:
    """A worker's admin server."""

    worker: Worker
    telemetry: Telemetry
    server: AdminServer

    def decide(self, request_id: str, times: int = 1) -> None:
        decision = Decision(a_target("vllm/present"), Reason.POLICY, policy="coding", arm="baseline")
        request = Decide(
            Part.REQUEST_BODY, Dialect.CHAT_COMPLETIONS, RequestHeaders(request_id=request_id), b""
        )
        for _ in range(times):
            self.telemetry.decided(request, Outcome(decision, 0.004, None, 0.003))


@dataclass
class Crew:
    """Implements `workers.front.Workers`."""

    folder: Path
    url: str = ""
    ones: dict[int, One] = field(default_factory=dict)
    is_ready: bool = True
    http: aiohttp.ClientSession = field(init=False)

    def serving(self) -> Sequence[Worker]:
        return [one.worker for one in self.ones.values()]

    async def metrics(self) -> bytes:
        return b""

    def report(self) -> list[dict[str, Any]]:
        return []

    async def come(self, index: int) -> One:
        seat = Seat(index, 2, str(self.folder / f"{index}.sock"), b"salt")
        worker = Worker(seat, lambda *_: None, lambda _: None, lambda *_: None)
        worker.state = State.SERVING
        telemetry = Telemetry()
        telemetry.follow(lambda: SNAPSHOT)
        server = AdminServer(
            LOCAL, telemetry, is_ready=lambda: True, sources=Sources(current=lambda: SNAPSHOT)
        )
        await server.start(seat.admin)
        self.ones[index] = One(worker, telemetry, server)
        return self.ones[index]

    async def go(self, index: int) -> None:
        await self.ones.pop(index).server.stop()

    async def get(self, path: str) -> Any:
        async with self.http.get(self.url + path) as answer:
            assert answer.status == 200
            return await answer.json()

    async def until_seen(self, events: AsyncIterator[dict[str, Any]], *request_ids: str) -> list[str]:
        """Read events until all of these have come; everything that came."""
        seen: list[str] = []
        while not set(request_ids) <= set(seen):
            seen += [entry["request_id"] for entry in (await anext(events))["entries"]]
        return seen


@asynccontextmanager
async def a_crew(folder: Path, limit_s: float = LIMIT_S) -> AsyncIterator[Crew]:
    crew = Crew(folder)
    await crew.come(0)
    await crew.come(1)
    front = Front(LOCAL, crew, front_application, limit_s)
    crew.url = f"http://127.0.0.1:{await front.start()}"
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as crew.http:
            yield crew
    finally:
        await front.stop()
        for index in list(crew.ones):
            await crew.go(index)


@asynccontextmanager
async def events_of(crew: Crew, **headers: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    async def batches(content: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
        async for line in content:
            name, _, value = line.decode().strip().partition(": ")
            if name == "data":
                yield json.loads(value)

    async with crew.http.get(f"{crew.url}/events", headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        yield batches(answer.content)


class TestEvents:
    async def test_all_workers_decisions_come_over_one_stream(self, tmp_path: Path) -> None:
        async with a_crew(tmp_path) as crew:
            crew.ones[0].decide("before")
            async with events_of(crew) as events:
                await crew.until_seen(events, "before")
                crew.ones[0].decide("a")
                crew.ones[1].decide("b")
                assert sorted(await crew.until_seen(events, "a", "b")) == ["a", "b"]

    async def test_a_worker_that_goes_and_comes_back_is_followed(self, tmp_path: Path) -> None:
        async with a_crew(tmp_path) as crew, events_of(crew) as events:
            crew.ones[0].decide("a")
            crew.ones[1].decide("b")
            await crew.until_seen(events, "a", "b")
            await crew.go(1)
            crew.ones[0].decide("c")
            assert await crew.until_seen(events, "c") == ["c"]
            (await crew.come(1)).decide("d")
            assert await crew.until_seen(events, "d") == ["d"]

    async def test_a_reader_goes_on_where_it_was_though_another_worker_is_there(self, tmp_path: Path) -> None:
        async with a_crew(tmp_path) as crew:
            crew.ones[0].decide("a")
            async with events_of(crew) as events:
                batch = await anext(events)
                while not batch["entries"]:
                    batch = await anext(events)
            await crew.go(0)
            (await crew.come(0)).decide("b")
            async with events_of(crew, **{"last-event-id": batch["cursor"]}) as events:
                assert await crew.until_seen(events, "b") == ["b"]

    async def test_what_is_too_much_is_counted(self, tmp_path: Path) -> None:
        async with a_crew(tmp_path) as crew:
            crew.ones[0].decide("first")
            while not (cursor := await crew.get("/decisions"))["entries"]:
                await asyncio.sleep(0.05)
            crew.ones[0].decide("many", 2 * KEPT)
            seen = skipped = 0
            while seen + skipped < 2 * KEPT:
                cursor = await crew.get(f"/decisions?after={cursor['cursor']}&limit=100")
                seen, skipped = seen + len(cursor["entries"]), skipped + cursor["skipped"]
            assert (seen + skipped, seen) == (2 * KEPT, 100)


class TestSums:
    async def test_all_workers_decisions_are_added_up(self, tmp_path: Path) -> None:
        async with a_crew(tmp_path) as crew:
            crew.ones[0].decide("a", 3)
            crew.ones[1].decide("b", 4)
            found = await crew.get("/overview")
        (target,) = found["policies"][0]["targets"]
        assert (target["decided"], sum(found["decided"]), found["decision"]["count"]) == (7, 7, 7)

    async def test_a_worker_that_hangs_is_left_out(self, tmp_path: Path) -> None:
        async with a_crew(tmp_path) as crew:
            crew.ones[0].decide("a", 3)
            await crew.ones[1].server.stop()
            Path(crew.ones[1].worker.seat.admin).unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX) as silent:
                silent.bind(crew.ones[1].worker.seat.admin)
                silent.listen()
                found = await crew.get("/overview")
        assert sum(found["decided"]) == 3


async def test_without_a_worker_nobody_answers(tmp_path: Path) -> None:
    async with a_crew(tmp_path) as crew:
        await crew.go(0)
        await crew.go(1)
        for path in ("/overview", "/config", "/shadows", "/rollouts"):
            async with crew.http.get(crew.url + path) as answer:
                assert (answer.status, await answer.json()) == (503, {"error": "no worker answers"})


async def test_a_worker_that_ends_or_hangs_before_its_answer_is_told_of(tmp_path: Path) -> None:
    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for behaviour in (ends, hangs):
        async with a_crew(tmp_path, limit_s=0.5) as crew:
            await crew.go(1)
            path = crew.ones[0].worker.seat.admin
            await crew.ones[0].server.stop()
            async with (
                await asyncio.start_unix_server(behaviour, path),
                crew.http.get(f"{crew.url}/rollouts") as answer,
            ):
                text = "worker 0 gave no answer, and may have done what it was asked"
                assert (answer.status, await answer.json()) == (502, {"error": text})


async def test_a_workers_answer_passes_as_it_comes(tmp_path: Path) -> None:
    """It may have no end: each piece is there before the next is made. A worker that dies ends it."""
    more, over = asyncio.Event(), asyncio.Event()

    async def streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"5\r\nfirst\r\n")
        await more.wait()
        writer.write(b"6\r\nsecond\r\n")
        await over.wait()
        writer.close()

    async with a_crew(tmp_path) as crew:
        await crew.go(1)
        path = crew.ones[0].worker.seat.admin
        await crew.ones[0].server.stop()
        async with (
            await asyncio.start_unix_server(streams, path),
            crew.http.get(f"{crew.url}/rollouts") as answer,
        ):
            assert (answer.status, answer.content_type) == (200, "text/plain")
            assert await answer.content.readexactly(5) == b"first"
            more.set()
            assert await answer.content.readexactly(6) == b"second"
            over.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.read()


async def test_a_browser_may_do_with_it_what_it_may_with_one_process(tmp_path: Path) -> None:
    async with a_crew(tmp_path) as crew, crew.http.get(f"{crew.url}/overview") as answer:
        assert all(answer.headers[name] == value for name, value in HEADERS.items())
