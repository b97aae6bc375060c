"""The admin port of several workers: what is one of all of them here, the rest passed on to one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from ext_proc.core.settings import Address
from ext_proc.telemetry.entries import Entries
from ext_proc.transport.admin_port import AdminPort, probes
from ext_proc.workers.asking import ask, session_of
from ext_proc.workers.configs import joined_configs
from ext_proc.workers.followed import Followed
from ext_proc.workers.overviews import joined_overviews
from ext_proc.workers.shadows import joined_shadows
from ext_proc.workers.worker import Worker

LIMIT_S = 15.0
"""How long a worker may take to begin an answer."""

_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade")
"""Headers that are one connection's own. Source: RFC 9110, 7.6.1."""


Application = Callable[[Address, Entries, Callable[[], Awaitable[None]]], web.Application]
"""`admin.app.front_application`."""


class Workers(Protocol):
    """What the front needs of whoever keeps the workers."""

    @property
    def is_ready(self) -> bool: ...

    def serving(self) -> Sequence[Worker]: ...

    async def metrics(self) -> bytes: ...

    def report(self) -> list[dict[str, Any]]: ...


class Front:
    """What is one of all workers, made from what each says; any other path of one of them.

    Requests reach that one as they came, `Host` and `Authorization` too: it says who may change something.
    """

    def __init__(
        self, address: Address, workers: Workers, application: Application, limit_s: float = LIMIT_S
    ) -> None:
        self._limit_s = limit_s
        self._workers = workers
        followed = Followed(workers.serving)
        made = application(address, followed.entries, followed.fetch)
        made.add_routes(
            [
                *probes(lambda: workers.is_ready, workers.metrics),
                web.get("/workers", self._report),
                web.get("/overview", self._overview),
                web.get("/shadows", self._shadows),
                web.get("/config", self._config),
                web.route("*", "/{path:.*}", self._pass_on),
            ]
        )
        self._port = AdminPort(address, made)

    async def start(self) -> int:
        """Bind and serve; the port that was bound. Errors: OSError when the address is taken."""
        return await self._port.start()

    async def stop(self) -> None:
        await self._port.stop()

    async def _report(self, _: web.Request) -> web.Response:
        return web.json_response({"workers": self._workers.report()})

    async def _overview(self, _: web.Request) -> web.Response:
        return _joined(joined_overviews, await self._all("/overview"))

    async def _shadows(self, _: web.Request) -> web.Response:
        return _joined(joined_shadows, await self._all("/shadows"))

    async def _config(self, _: web.Request) -> web.Response:
        return _joined(joined_configs, await self._all("/config"))

    async def _all(self, path: str) -> list[tuple[int, Any]]:
        """What each worker that answers says, beside its number."""
        workers = sorted(self._workers.serving(), key=lambda worker: worker.seat.index)
        answers = await asyncio.gather(*(ask(worker, path) for worker in workers))
        return [
            (worker.seat.index, answer)
            for worker, answer in zip(workers, answers, strict=True)
            if answer is not None
        ]

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        for worker in self._workers.serving():
            session = session_of(worker, self._limit_s)
            async with session:
                try:
                    async with asyncio.timeout(self._limit_s):
                        given = await session.request(
                            request.method,
                            f"http://localhost{request.rel_url}",
                            data=body or None,
                            headers=_own(request.headers),
                            allow_redirects=False,
                        )
                except (aiohttp.ClientConnectorError, FileNotFoundError):
                    continue  # It has just ended. Nothing was sent, so the next one may be asked.
                except (aiohttp.ClientError, OSError, TimeoutError):
                    # It may have done what it was asked, so nobody else is.
                    text = f"worker {worker.seat.index} gave no answer, and may have done what it was asked"
                    return web.json_response({"error": text}, status=HTTPStatus.BAD_GATEWAY)
                return await _relay(request, given)
        return _nobody()


def _joined(
    join: Callable[[list[tuple[int, Any]]], dict[str, Any]], answers: list[tuple[int, Any]]
) -> web.Response:
    return web.json_response(join(answers)) if answers else _nobody()


def _nobody() -> web.Response:
    return web.json_response({"error": "no worker answers"}, status=503)


async def _relay(request: web.Request, given: aiohttp.ClientResponse) -> web.StreamResponse:
    """The answer as it comes, a piece at a time: it may have no end."""
    answer = web.StreamResponse(status=given.status, headers=_own(given.headers))
    await answer.prepare(request)
    try:
        async for piece in given.content.iter_any():
            await answer.write(piece)
    except (aiohttp.ClientError, ConnectionError):
        # Nobody shall take what came for the whole answer.
        given.close()
        if request.transport is not None:
            request.transport.close()
        return answer
    await answer.write_eof()
    return answer


def _own(headers: Any) -> CIMultiDict[str]:
    """Headers that go from end to end."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP)
