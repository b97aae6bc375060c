"""The admin port of several workers: what is one of all of them here, the rest passed on to one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Middleware
from multidict import CIMultiDict

from ext_proc.core.settings import Address
from ext_proc.workers.shadows import joined_shadows
from ext_proc.workers.worker import Worker

MAX_BODY_BYTES = 1 << 20
LIMIT_S = 15.0
"""How long a worker may take to begin an answer."""

_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade")
"""Headers that are one connection's own. Source: RFC 9110, 7.6.1."""


class Workers(Protocol):
    """What the front needs of whoever keeps the workers."""

    @property
    def is_ready(self) -> bool: ...

    def serving(self) -> Sequence[Worker]: ...

    async def metrics(self) -> bytes: ...

    def report(self) -> list[dict[str, Any]]: ...


class Front:
    """`/healthz`, `/readyz`, `/metrics`, `/workers` and `/shadows` of all workers; any other path of one.

    Requests reach that one as they came, `Host` and `Authorization` too: it says who may change something.
    """

    def __init__(self, address: Address, workers: Workers, guard: Middleware) -> None:
        self._address = address
        self._workers = workers
        application = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
        application.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/workers", self._report),
                web.get("/shadows", self._shadows),
                web.route("*", "/{path:.*}", self._pass_on),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> int:
        """Bind and serve; the port that was bound. Errors: OSError when the address is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self._address.host, self._address.port).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._workers.is_ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=await self._workers.metrics(),
            headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _report(self, _: web.Request) -> web.Response:
        return web.json_response({"workers": self._workers.report()})

    async def _shadows(self, _: web.Request) -> web.Response:
        answers = await asyncio.gather(*map(_shadows_of, self._workers.serving()))
        return web.json_response(joined_shadows([answer for answer in answers if answer is not None]))

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        for worker in self._workers.serving():
            session = _session(worker)
            async with session:
                try:
                    given = await session.request(
                        request.method,
                        f"http://localhost{request.rel_url}",
                        data=body or None,
                        headers=_own(request.headers),
                        allow_redirects=False,
                    )
                except (aiohttp.ClientConnectorError, FileNotFoundError):
                    continue  # It has just ended. Nothing was sent, so the next one may be asked.
                return await _relay(request, given)
        text = json.dumps({"error": "no worker answers"})
        return web.Response(status=503, text=text, content_type="application/json")


async def _relay(request: web.Request, given: aiohttp.ClientResponse) -> web.StreamResponse:
    """The answer as it comes, a piece at a time: it may have no end."""
    answer = web.StreamResponse(status=given.status, headers=_own(given.headers))
    await answer.prepare(request)
    try:
        async for piece in given.content.iter_any():
            await answer.write(piece)
    except (aiohttp.ClientError, ConnectionError):
        return answer
    await answer.write_eof()
    return answer


async def _shadows_of(worker: Worker) -> Any:
    try:
        async with _session(worker) as session, session.get("http://localhost/shadows") as answer:
            return await answer.json()
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None


def _session(worker: Worker) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(worker.seat.admin),
        timeout=aiohttp.ClientTimeout(sock_connect=LIMIT_S, sock_read=None, total=None),
        auto_decompress=False,
    )


def _own(headers: Any) -> CIMultiDict[str]:
    """Headers that go from end to end."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP)
