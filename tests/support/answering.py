"""An HTTP server that hooks and checks are asked at: it gives one answer and remembers the questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class Answering:
    """An HTTP server that gives one answer, and remembers what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.statuses: dict[str, int] = {}
        self.content: Any = {}
        self.delay_s = 0.0
        self.location = ""
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""

    def asked(self, path: str) -> list[bytes]:
        """The bodies that came to a path, in order."""
        return [body for at, _, body in self.seen if at == path]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path_qs, dict(request.headers), await request.read()))
        await asyncio.sleep(self.delay_s)
        status = self.statuses.get(request.path, self.status)
        headers = {"location": self.location} if self.location else {}
        if isinstance(self.content, bytes):
            return web.Response(status=status, body=self.content, headers=headers)
        return web.json_response(self.content, status=status, headers=headers)


@asynccontextmanager
async def answering() -> AsyncIterator[Answering]:
    """Serve on a free port of loopback."""
    server = Answering()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
