"""A routing model's server that can be dead, slow, hung or talk nonsense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _http(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _said(text: str) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return _http("200 OK", json.dumps({"object": "chat.completion", "choices": [choice]}).encode())


WELL = _said('{"route": "code"}')


async def well(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(WELL)


async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.1)
    writer.write(WELL)


async def hangs(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()  # until whoever asked leaves


async def never_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(WELL[:-10])
    await reader.read()  # until whoever asked leaves


async def fails(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_http("500 Internal Server Error", b"out of memory"))


async def breaks_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(WELL[:-10])
    writer.transport.abort()


async def talks_nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_said("As a large language model, I cannot choose a route."))


async def is_no_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01\x00\xff" * 20)
    writer.transport.close()


class RouterEndpoint:
    """Answers every question by `answer`, on one port, while it is up."""

    def __init__(self) -> None:
        self.answer: Answer = well
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def up(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=1024)
            self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse and break connections, as a process that is killed does."""
        if self._server is not None:
            self._server.close()
            self._server = None
            # Connections that were accepted a moment ago come to be served in a moment.
            while self._open:
                for writer in self._open:
                    writer.transport.abort()
                await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
                await self.answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()
