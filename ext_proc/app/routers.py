"""The routers of one configuration after the other: what stays the same is handed on, the rest let go."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.settings import Configuration, RouterSettings, ShadowRouterSettings
from ext_proc.core.types import Policy
from ext_proc.router.ask import RouterAsker
from ext_proc.router.build import build_router, is_made_alike
from ext_proc.router.shadow import ShadowedAsker
from ext_proc.router.shared import SharedRouter
from ext_proc.server.in_use import InUse
from ext_proc.server.routing import Live
from ext_proc.server.sessions import MemorySessions
from ext_proc.telemetry import Telemetry, log
from ext_proc.telemetry.tasks import spawn

Asker = RouterAsker | ShadowedAsker

PATIENCE_S = 60.0
"""How long a command waits for the router: a language model on a busy CPU takes seconds."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A router that has seen its policies, and what it was made from. `policies` are those it knows it by."""

    settings: RouterSettings
    shadow: ShadowRouterSettings | None
    policies: tuple[Policy, ...]
    asker: Asker
    router: SharedRouter
    shadow_router: SharedRouter | None
    in_use: InUse = field(default_factory=InUse)


class Routers:
    """Makes a configuration's router, from the one in force where it can.

    With equal policies and settings everything stays, the verdicts it keeps too. With other policies a
    router that is made alike stays, with its weights, connections and breaker. Whatever is replaced is closed
    when the last stream that began with it has ended.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._current: Ready | None = None
        self._held: set[InUse] = set()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def held(self) -> int:
        """Routers that were replaced and that a stream still has."""
        return len(self._held)

    async def build(self, configuration: Configuration) -> Ready:
        """A router that is ready for the first request; nothing is in force yet.

        Errors: RouterError, but not for a router elsewhere that is down now: it may come back.
        """
        old = self._current
        settings, policies = configuration.router, configuration.snapshot.policies
        shadow = configuration.shadow_router
        if old is not None and (old.settings, old.shadow, old.policies) == (settings, shadow, policies):
            return old
        ready = await self._made(settings, shadow, policies)
        try:
            if policies:
                await _prepare(ready.asker, policies)
        except BaseException:
            await ready.asker.close()
            raise
        return ready

    async def give_up(self, ready: Ready) -> None:
        """It does not come into force after all."""
        if ready is not self._current:
            await ready.asker.close()

    def put_in_force(self, ready: Ready) -> None:
        """No stream takes the one before any more."""
        old, self._current = self._current, ready
        if old is None or old is ready:
            return
        self._held.add(old.in_use)
        old.in_use.replaced(lambda: self._let_go(old))

    async def close(self) -> None:
        """Free them all. No stream is left."""
        if self._current is not None:
            await self._current.asker.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _let_go(self, old: Ready) -> None:
        self._held.discard(old.in_use)
        task = spawn(old.asker.close(), "replaced router's end")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _made(
        self, settings: RouterSettings, shadow: ShadowRouterSettings | None, policies: tuple[Policy, ...]
    ) -> Ready:
        telemetry, old = self._telemetry, self._current
        if old is not None and is_made_alike(old.settings, settings):
            router = old.router.shared()
        else:
            router = SharedRouter(build_router(settings, telemetry.router_fell_back))
        asker = RouterAsker(router, settings, telemetry.question, telemetry.router_failed)
        if shadow is None:
            return Ready(settings, None, policies, asker, router, None)
        try:
            other = self._made_shadow(shadow)
        except RouterError:
            await asker.close()
            raise
        both = ShadowedAsker(
            asker, RouterAsker(other, shadow.router), shadow.percent_per_10k, telemetry.shadow_router_said
        )
        return Ready(settings, shadow, policies, both, router, other)

    def _made_shadow(self, shadow: ShadowRouterSettings) -> SharedRouter:
        old = self._current
        if (
            old is not None
            and old.shadow_router
            and old.shadow
            and is_made_alike(old.shadow.router, shadow.router)
        ):
            return old.shadow_router.shared()
        return SharedRouter(build_router(shadow.router))


async def build_live(configuration: Configuration) -> tuple[Live, Asker]:
    """A configuration with its router, for a command that asks once. Whoever calls closes the router.

    Nobody's request waits, so the router may take `PATIENCE_S`. An endpoint with a fallback is left as in
    service, after the same time. Errors: as of `Routers.build`.
    """
    settings = configuration.router
    patient = replace(settings, deadline_s=max(settings.deadline_s, PATIENCE_S))
    falls_back = settings.endpoint is not None and settings.endpoint.fallback is not None
    asker = RouterAsker(build_router(settings if falls_back else patient), patient)
    policies = configuration.snapshot.policies
    try:
        if policies:
            await _prepare(asker, policies)
    except BaseException:
        await asker.close()
        raise
    sessions = MemorySessions(configuration.sessions) if configuration.sessions.size else None
    limit = configuration.envoy.body_limit_bytes
    window = configuration.envoy.decision_window_bytes
    live = Live(configuration.snapshot, asker, limit, configuration.comparison, sessions, window_bytes=window)
    return live, asker


async def _prepare(asker: Asker, policies: tuple[Policy, ...]) -> None:
    """Errors: RouterError, but not for a router elsewhere that is down now: it may come back."""
    try:
        await asker.prepare(policies)
    except RouterError as error:
        if error.reason is not Reason.ROUTER_UNREACHABLE:
            raise
        log.event(logging.WARNING, "router_unreachable", problem=str(error))
