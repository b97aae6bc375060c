"""Bodies on their way to a mesh as few clients send them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tests.support.mesh import LIMIT_S, Mesh


async def in_pieces(body: bytes, size: int = 1 << 18) -> AsyncIterator[bytes]:
    """For a client that sends what it iterates over chunked."""
    for at in range(0, len(body), size):
        yield body[at : at + size]
        await asyncio.sleep(0)


async def answer_to_trailers(mesh: Mesh, body: bytes) -> bytes:
    """Send a chunked body with a trailer; the whole answer, its head included."""
    reader, writer = await _begin(mesh, "connection: close", "transfer-encoding: chunked", "trailer: x-note")
    writer.write(b"%x\r\n%b\r\n0\r\nx-note: done\r\n\r\n" % (len(body), body))
    async with asyncio.timeout(LIMIT_S):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def nothing_stays_of_whoever_leaves_in(mesh: Mesh, sent: bytes, length: int) -> None:
    """Some clients go away when so much is sent of a body of so many bytes: the next one is served."""
    for _ in range(5):
        _, writer = await _begin(mesh, f"content-length: {length}")
        writer.write(sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    reply = await mesh.ask()
    assert (reply.status, reply.reason) == (200, "policy")
    async with asyncio.timeout(LIMIT_S):
        while await mesh.counted("arch_ext_proc_streams_in_flight"):
            await asyncio.sleep(0.02)


async def _begin(mesh: Mesh, *headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host = mesh.stack.url.removeprefix("http://")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        f"host: {host}",
        "content-type: application/json",
        *headers,
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    return reader, writer
