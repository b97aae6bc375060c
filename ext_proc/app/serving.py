"""What one server process is made of, and how another configuration comes into force in it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from ext_proc.app.restart import held, rendered_otherwise
from ext_proc.app.rollouts import Rollouts
from ext_proc.app.routers import Routers
from ext_proc.comparisons import Comparer, RecentComparisons
from ext_proc.config.store import Store
from ext_proc.core import envoy_side
from ext_proc.core.copying import CopyBounds
from ext_proc.core.ports import ComparisonSink, ObservationSink, Sessions
from ext_proc.core.settings import Configuration
from ext_proc.core.split import apply_weights
from ext_proc.core.types import Dialect, Secret, Snapshot, Target
from ext_proc.rollouts.controller import Weights
from ext_proc.router.embedded import EmbeddedSimilarity
from ext_proc.server.explaining import explain_live
from ext_proc.server.observing import Observing
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.server.sessions import MemorySessions
from ext_proc.telemetry import Telemetry
from ext_proc.telemetry.recording import Recording
from ext_proc.workers.siblings import Siblings

COPY_MARGIN_S = 10.0
"""How much longer than Envoy a copy's slot waits for the copy's end, before it is free again."""

MAX_GONE = 100
"""Targets that the file no longer has, and that a request in flight may still fail over to."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What of a configuration is not in force yet: the keys that need a restart, and what Envoy must have."""

    for_restart: tuple[str, ...]
    for_envoy: tuple[str, ...]


class Serving:
    """Made once per process by `begin`; `apply` puts another configuration in force.

    What is here outlives configurations: sessions, comparisons, the bounds of copies, rollouts, metrics.
    What a stream takes once and keeps is a `Live`, the one thing that is swapped. Of several workers each has
    one, and shares sessions, the bounds of copies and answers with its `siblings`.
    """

    def __init__(self, configuration: Configuration, siblings: Siblings | None = None) -> None:
        self.telemetry = telemetry = Telemetry()
        telemetry.begin(configuration.telemetry)
        self._began = self.configuration = configuration
        self.recent = RecentComparisons()
        self.rollouts = Rollouts(telemetry, self._put_weights)
        self._routers = Routers(telemetry)
        self._memory = MemorySessions(configuration.sessions)
        self._recording = Recording(telemetry.not_recorded)
        self._similarity = EmbeddedSimilarity()
        sinks: list[ComparisonSink] = [telemetry.answers, self.recent, self.rollouts]
        self._comparer = Comparer(configuration.comparison, telemetry, sinks, self._similarity)
        observed: list[ObservationSink] = [telemetry.answers, telemetry.activity, self.rollouts]
        copy_limit_s = configuration.envoy.request_timeout_s + COPY_MARGIN_S
        if siblings is None:
            self._sessions: Sessions = self._memory
            self._bounds = CopyBounds(copy_limit_s)
            self.observing = Observing(telemetry, observed, self._comparer)
            self._pair_prefix = ""
        else:
            self._sessions = siblings.sessions(self._memory)
            self._bounds = siblings.bounds(copy_limit_s)
            self.observing = Observing(telemetry, observed, siblings.answers(self._comparer))
            self._pair_prefix = siblings.pair_prefix
        telemetry.answers.follow_copies(lambda: self._bounds.on_their_way(monotonic()))
        self._store: Store[Live] | None = None

    async def begin(self) -> None:
        """Build the router and take over the rollouts, before the first request. Errors: RouterError."""
        self._comparer.start()
        await self._put_in_force(self.configuration)

    async def apply(self, new: Configuration) -> Waiting:
        """Put another configuration in force, but for what waits.

        Streams in flight keep what they have. Errors: RouterError; then everything is as it was.
        """
        new, for_restart = held(self.configuration, new, with_store=self.rollouts.controller is not None)
        await self._put_in_force(new)
        return Waiting(for_restart, rendered_otherwise(self._began, new))

    @property
    def live(self) -> Live:
        """What a stream would take now."""
        return self._in_force().current()

    def routers_held(self) -> int:
        """Replaced routers that streams still have."""
        return self._routers.held

    def servicer(self) -> Servicer:
        """What answers the streams."""
        return Servicer(self._in_force().current, self.telemetry, self.observing, self._bounds)

    async def explain(self, body: bytes, dialect: Dialect, session: str | None) -> Mapping[str, Any]:
        """Implements `core.ports.Explainer`."""
        live = self.live
        live.in_use.begin()
        try:
            return await explain_live(live, body, dialect, session)
        finally:
            live.in_use.end()

    def admin_token(self) -> Secret | None:
        """The one in force."""
        return self.configuration.admin_token

    async def close(self) -> None:
        """Stop everything, once no stream is left."""
        await self.rollouts.close()
        await self._comparer.close()
        await self._similarity.close()
        await self._routers.close()
        await asyncio.to_thread(self._recording.close)
        await asyncio.to_thread(self.telemetry.close)

    async def _put_in_force(self, new: Configuration) -> None:
        router = await self._routers.build(new)
        try:
            await self.rollouts.begin(new.rollouts)
        except BaseException:
            await self._routers.give_up(router)
            raise
        # From here on nothing waits, so no stream sees a part of the one and a part of the other.
        weights = self.rollouts.configure(new.rollouts)
        # The router knows its policies by identity.
        snapshot = apply_weights(replace(new.snapshot, policies=router.policies), weights)
        self._memory.configure(new.sessions)
        self._comparer.configure(new.comparison)
        self._bounds.configure(new.envoy.request_timeout_s + COPY_MARGIN_S, _copied(snapshot))
        live = Live(
            snapshot,
            router.asker,
            new.envoy.body_limit_bytes,
            new.comparison,
            self._sessions if new.sessions.size else None,
            self._recording.under(new.record, snapshot) if new.record is not None else None,
            router.in_use,
            self._pair_prefix,
            self._gone(snapshot),
            self._store.current().key_headers if self._store is not None else frozenset(),
            window_bytes=new.envoy.decision_window_bytes,
        )
        if self._store is None:
            self._store = Store(live)
        else:
            self._store.swap(live)
        self._routers.put_in_force(router)
        self.configuration = new
        self.telemetry.log_content(new.telemetry.log_content)
        self.telemetry.configured(snapshot.revision)

    def _gone(self, new: Snapshot) -> Mapping[str, Target]:
        """Targets that leave the file, or whose hosts change, for the requests on their way to them and for
        Envoys that still have those hosts. The newest last."""
        if self._store is None:
            return {}
        old = self._store.current()
        left = {**old.gone, **old.snapshot.targets}
        names = [
            name
            for name, target in left.items()
            if name not in new.targets or not envoy_side.is_same_place(target, new.targets[name])
        ]
        return {name: left[name] for name in names[-MAX_GONE:]}

    def _in_force(self) -> Store[Live]:
        if self._store is None:
            raise RuntimeError("nothing is in force before begin()")
        return self._store

    def _put_weights(self, weights: Weights) -> None:
        if self._store is not None:
            live = self._store.current()
            self._store.swap(replace(live, snapshot=apply_weights(live.snapshot, weights)))


def _copied(snapshot: Snapshot) -> frozenset[tuple[str, str]]:
    """The policies that have copies, with the target of these."""
    return frozenset(
        (name, shadow.target.name) for name, route in snapshot.routes.items() for shadow in route.shadows
    )
