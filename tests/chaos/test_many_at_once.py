"""Ten thousand requests open at once, and clients that send their bodies byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.conftest import CONFIG
from tests.chaos.test_connections_in_trouble import (
    address_of,
    no_stream_is_left,
    request,
    streams_in_flight_are,
)
from tests.support.http2 import Http2Connection
from tests.support.load import under_load
from tests.support.mesh import LIMIT_S, Mesh, chat, eventually, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONNECTIONS, PER_CONNECTION = 40, 250
SLOW = 100
PINNED = json.dumps(chat("write code", model="vllm/coder")).encode()
HEADERS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "chaos"),
    (":path", "/v1/chat/completions"),
    ("content-type", "application/json"),
)


async def test_of_ten_thousand_streams_each_is_served_and_let_go(mesh: Mesh) -> None:
    connections = [Http2Connection(*address_of(mesh), "x-arch-reason") for _ in range(CONNECTIONS)]
    opened: list[list[int]] = []
    try:
        for connection in connections:
            await connection.open()
            opened.append([await connection.begin(HEADERS) for _ in range(PER_CONNECTION)])
            # Wave by wave: nobody is to wait for the server longer than `message_timeout`.
            await streams_in_flight_are(mesh, sum(map(len, opened)))
        assert sum(map(len, opened)) == 10_000
        assert (await mesh.ask()).reason == "policy"

        # Every second connection dies, and the requests on the others are answered.
        for connection in connections[::2]:
            await connection.close()
        for connection, streams in zip(connections[1::2], opened[1::2], strict=True):
            for stream in streams:
                await connection.end(stream, PINNED)
            await eventually(lambda c=connection: c.answered.total() == PER_CONNECTION, "all answers")
        assert sum((each.answered for each in connections), Counter()) == {"200 pinned": 5_000}
        assert not any(each.reset for each in connections)
    finally:
        for connection in connections:
            await connection.close()
    await no_stream_is_left(mesh)


async def sent_slowly(mesh: Mesh, go_on: asyncio.Event) -> bytes:
    """The beginning of the answer to a request whose body came byte by byte, the last one at a word."""
    reader, writer = await asyncio.open_connection(*address_of(mesh))
    try:
        writer.write(request(PINNED, 0))
        for byte in PINNED[:-1]:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.02)
        await go_on.wait()
        writer.write(PINNED[-1:])
        async with asyncio.timeout(LIMIT_S):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()


async def test_bodies_that_come_byte_by_byte_hold_nobody_up_and_are_routed(mesh: Mesh) -> None:
    async with under_load(mesh) as load, asyncio.TaskGroup() as group:
        last_byte = asyncio.Event()
        slow = [group.create_task(sent_slowly(mesh, last_byte)) for _ in range(SLOW)]
        await load.decides(100)
        last_byte.set()
    assert (load.failures, load.undecided) == ([], 0)
    answers = [task.result() for task in slow]
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert all(b"x-arch-reason: pinned\r\n" in answer for answer in answers)
    await no_stream_is_left(mesh)


async def test_bodies_that_never_end_are_cut_off_by_envoy_and_leave_no_stream(tmp_path: Path) -> None:
    """Those that trickle in and those that stop coming."""

    async def never_ends(mesh: Mesh, pause_s: float) -> bytes:
        reader, writer = await asyncio.open_connection(*address_of(mesh))

        async def send() -> None:
            writer.write(request(bytes(1 << 20), 0))
            while True:
                writer.write(b" ")
                await asyncio.sleep(pause_s)

        sending = asyncio.get_running_loop().create_task(send())
        try:
            async with asyncio.timeout(LIMIT_S):
                return await reader.readuntil(b"\r\n")
        finally:
            sending.cancel()
            writer.transport.abort()

    config = tmp_path / "arch_config.yaml"
    config.write_text(CONFIG.read_text().replace("request_timeout: 60s", "request_timeout: 1s"))
    async with running_mesh(config, tmp_path, "openai", "coder") as mesh:
        pauses = [0.05, 3600.0] * 10
        answers = await asyncio.gather(*(never_ends(mesh, pause_s) for pause_s in pauses))
        assert set(answers) == {b"HTTP/1.1 408 Request Timeout\r\n"}
        await streams_in_flight_are(mesh, 0)
        assert mesh.seen() == {}
