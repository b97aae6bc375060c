"""The admin port, of one process or of several workers: where it listens, what probes and scrapers ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from ext_proc.core.settings import Address
from ext_proc.transport import tcp

HEALTH, READY, METRICS = "/healthz", "/readyz", "/metrics"


def probes(is_ready: Callable[[], bool], metrics: Callable[[], Awaitable[bytes]]) -> list[web.RouteDef]:
    """`/healthz` says that the process lives, `/readyz` that it takes requests, `/metrics` the numbers."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if is_ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready\n")

    async def scraped(_: web.Request) -> web.Response:
        return web.Response(
            body=await metrics(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    return [web.get(HEALTH, healthz), web.get(READY, readyz), web.get(METRICS, scraped)]


class AdminPort:
    """Serves an application at an address."""

    def __init__(self, address: Address, application: web.Application) -> None:
        self._address = address
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self, socket: str | None = None) -> int:
        """Bind and serve; the port that was bound. Errors: OSError that names the address.

        With a Unix socket it listens there alone, for whoever listens at the address and passes requests on.
        """
        await self._runner.setup()
        if socket is not None:
            await web.UnixSite(self._runner, socket).start()
            return self._address.port
        try:
            await web.TCPSite(self._runner, self._address.host, self._address.port).start()
        except OSError as error:
            raise tcp.cannot_listen(self._address, error.errno) from error
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        await self._runner.cleanup()
