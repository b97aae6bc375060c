"""Health for the orchestrator, metrics for Prometheus, a page for people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from ext_proc import __version__
from ext_proc.admin import page
from ext_proc.admin.events import EventRoutes
from ext_proc.admin.guard import Guard
from ext_proc.admin.live import LiveRoutes
from ext_proc.admin.rollouts import RolloutRoutes
from ext_proc.admin.trying import MAX_BODY_BYTES, TryRoutes
from ext_proc.core.ports import Explainer, RolloutControl
from ext_proc.core.settings import Address
from ext_proc.core.types import Secret, Snapshot
from ext_proc.telemetry import Telemetry
from ext_proc.telemetry.entries import Entries
from ext_proc.transport.admin_port import AdminPort, probes


@dataclass(frozen=True, slots=True)
class Sources:
    """What is shown, each asked whenever somebody looks. Without `current` there is no page."""

    current: Callable[[], Snapshot] | None = None
    config: Callable[[], Mapping[str, object]] = dict
    shadows: Callable[[], Mapping[str, object]] = dict
    rollouts: Callable[[], RolloutControl | None] = lambda: None
    explainer: Explainer | None = None


_NOTHING = Sources()

FRONT_BODY_BYTES = 1 << 20
"""More than any process behind a front takes."""


def front_application(
    address: Address, entries: Entries, fetch: Callable[[], Awaitable[None]]
) -> web.Application:
    """What stands before several processes' admin servers: who may look, and everybody's `entries`.

    Whoever takes it adds the rest. Who may change something is said where the change is made.
    """
    guard = Guard(address, lambda: None)
    application = web.Application(middlewares=[guard.check_host], client_max_size=FRONT_BODY_BYTES)
    application.on_response_prepare.append(page.add_headers)
    events = EventRoutes(entries, fetch)
    application.add_routes(events.routes())
    application.on_shutdown.append(events.close)
    return application


class AdminServer:
    """What `probes` tell, and more.

    `/config` shows what is in force, `/shadows` what comparisons found, `/` all of it to people.
    """

    def __init__(
        self,
        address: Address,
        telemetry: Telemetry,
        *,
        is_ready: Callable[[], bool],
        token: Callable[[], Secret | None] = lambda: None,
        sources: Sources = _NOTHING,
    ) -> None:
        self._telemetry = telemetry
        self._sources = sources
        guard = Guard(address, token)
        application = web.Application(middlewares=[guard.check_host], client_max_size=MAX_BODY_BYTES)
        application.on_response_prepare.append(page.add_headers)
        application.add_routes(
            [
                *probes(is_ready, self._metrics),
                web.get("/shadows", self._shown_shadows),
                web.get("/config", self._shown_config),
                *RolloutRoutes(sources.rollouts, guard).routes(),
                *TryRoutes(sources.explainer, guard, telemetry).routes(),
            ]
        )
        if sources.current is not None:
            live = LiveRoutes(telemetry.activity, sources.current, guard, {"version": __version__})
            events = EventRoutes(telemetry.activity.entries)
            application.add_routes([*page.routes(), *live.routes(), *events.routes()])
            application.on_shutdown.append(events.close)
        self.application = application
        self._port = AdminPort(address, application)

    async def start(self, socket: str | None = None) -> int:
        """As `AdminPort.start`."""
        return await self._port.start(socket)

    async def stop(self) -> None:
        await self._port.stop()

    async def _shown_shadows(self, _: web.Request) -> web.Response:
        """Comparisons of late, in names and numbers."""
        return web.json_response(self._sources.shadows())

    async def _shown_config(self, _: web.Request) -> web.Response:
        """The configuration in force, its secrets masked, and how the last reload went."""
        return web.json_response(self._sources.config())

    async def _metrics(self) -> bytes:
        return self._telemetry.exposition()
