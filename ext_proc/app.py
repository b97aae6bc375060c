"""Constructs every object and starts and stops them in order."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import replace
from pathlib import Path

from ext_proc.admin.app import AdminServer
from ext_proc.comparisons import Comparer, RecentComparisons
from ext_proc.config.load import Loaded
from ext_proc.config.store import Store
from ext_proc.core.copying import CopyBounds
from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.settings import CausalLmSettings, Configuration
from ext_proc.core.split import apply_weights
from ext_proc.core.types import Policy
from ext_proc.rollouts import build as rollouts
from ext_proc.rollouts.controller import Controller, Weights
from ext_proc.rollouts.outside import Outside
from ext_proc.router.ask import RouterAsker
from ext_proc.router.build import build_causal_lm, build_router
from ext_proc.router.embedded import EmbeddedSimilarity
from ext_proc.router.engine_socket import EngineServer
from ext_proc.router.shadow import ShadowedAsker
from ext_proc.server.breaks import BreakLog
from ext_proc.server.explaining import explain_live
from ext_proc.server.grpc_server import GrpcServer
from ext_proc.server.observing import Observing
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.server.sessions import MemorySessions
from ext_proc.telemetry import Telemetry, log
from ext_proc.telemetry.recording import Recording
from ext_proc.telemetry.rollouts import RolloutTelemetry

COPY_MARGIN_S = 10.0
"""How much longer than Envoy a copy's slot waits for the copy's end, before it is free again."""

ReadyAsker = RouterAsker | ShadowedAsker


async def build_live(
    configuration: Configuration, telemetry: Telemetry | None = None
) -> tuple[Live, ReadyAsker]:
    """A configuration with a router that has seen its policies, ready for the first request.

    Without telemetry nobody is told of a shadow router, so there is none.
    """
    asker = _asker(configuration, telemetry)
    snapshot = configuration.snapshot
    if snapshot.policies:
        await _prepare(asker, snapshot.policies)
    sessions = MemorySessions(configuration.sessions) if configuration.sessions.size else None
    limit = configuration.envoy.body_limit_bytes
    return Live(snapshot, asker, limit, configuration.comparison, sessions), asker


def _asker(configuration: Configuration, telemetry: Telemetry | None) -> ReadyAsker:
    settings, shadow = configuration.router, configuration.shadow_router
    if telemetry is None:
        return RouterAsker(build_router(settings), settings)
    router = build_router(settings, telemetry.router_fell_back)
    asker = RouterAsker(router, settings, telemetry.question, telemetry.router_failed)
    if shadow is None:
        return asker
    other = RouterAsker(build_router(shadow.router), shadow.router)
    return ShadowedAsker(asker, other, shadow.percent_per_10k, telemetry.shadow_router_said)


async def _prepare(asker: ReadyAsker, policies: tuple[Policy, ...]) -> None:
    """Errors: RouterError, but not for a router elsewhere that is down now: it may come back."""
    try:
        await asker.prepare(policies)
    except RouterError as error:
        if error.reason is not Reason.ROUTER_UNREACHABLE:
            raise
        log.event(logging.WARNING, "router_unreachable", problem=str(error))


async def serve_engine(configuration: Configuration, settings: CausalLmSettings, socket: Path) -> None:
    """Hold a routing model's weights for the servers of this machine, until SIGTERM or SIGINT."""
    router = build_causal_lm(settings, configuration.router.max_waiting)
    engine = EngineServer(router, socket)
    if configuration.snapshot.policies:
        await engine.prepare(configuration.snapshot.policies)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await engine.start()
    log.event(logging.INFO, "engine_serving", socket=str(socket), model=settings.model)
    try:
        await stopping.wait()
    finally:
        await engine.stop()
    log.event(logging.INFO, "stopped")


def build_controller(
    configuration: Configuration, store: Store[Live], telemetry: Telemetry
) -> Controller | None:
    """What drives the file's rollouts, putting its weights in force in `store`. None: there are none."""
    settings = configuration.rollouts
    if not rollouts.has_something(settings):
        return None
    told = RolloutTelemetry(telemetry.registry)

    def apply(weights: Weights) -> None:
        live = store.current()
        store.swap(replace(live, snapshot=apply_weights(live.snapshot, weights)))

    return Controller(settings, rollouts.open_store(settings), Outside(told), told, apply, rollouts.holder())


async def standings(configuration: Configuration) -> tuple[str, ...]:
    """Where the rollouts of a file stand, for people."""
    return await rollouts.standings(configuration.rollouts)


async def serve(loaded: Loaded) -> None:
    """Serve until SIGTERM or SIGINT, then drain: the order is that of a load balancer's trust.

    First not ready, so that nobody sends more; then the streams in flight; then the rest.
    """
    configuration = loaded.configuration
    for warning in loaded.warnings:
        log.event(logging.WARNING, "config", problem=str(warning))
    telemetry = Telemetry()
    live, asker = await build_live(configuration, telemetry)
    recording = None
    if configuration.record is not None:
        recording = Recording(configuration.record, live.snapshot, telemetry.not_recorded)
        live = replace(live, recorder=recording)
    store = Store(live)
    controller = build_controller(configuration, store, telemetry)
    recent = RecentComparisons()
    rollout_sinks = [controller] if controller is not None else []
    similarity = EmbeddedSimilarity()
    comparer = Comparer(
        configuration.comparison, telemetry, [telemetry.answers, recent, *rollout_sinks], similarity
    )
    comparer.start()
    observing = Observing(telemetry, [telemetry.answers, telemetry.activity, *rollout_sinks], comparer)
    bounds = CopyBounds(configuration.envoy.request_timeout_s + COPY_MARGIN_S)
    telemetry.answers.follow_copies(lambda: bounds.on_their_way)
    servicer = Servicer(store.current, telemetry, observing, bounds)
    grpc_server = GrpcServer(
        servicer, BreakLog(observing), configuration.server, configuration.envoy.body_limit_bytes
    )
    stopping = asyncio.Event()
    admin = AdminServer(
        configuration.admin,
        telemetry,
        is_ready=lambda: not stopping.is_set(),
        shadows=recent.shown,
        rollouts=lambda: controller,
        token=lambda: configuration.admin_token,
        current=lambda: store.current().snapshot,
        explainer=lambda body, dialect, session: explain_live(store.current(), body, dialect, session),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    telemetry.configured(configuration.snapshot.revision)
    if controller is not None:
        # Before the first request: it is to meet the weights that the last one met.
        await controller.start()
    grpc_port = await grpc_server.start()
    admin_port = await admin.start()
    log.event(
        logging.INFO,
        "serving",
        grpc=f"{configuration.server.listen.host}:{grpc_port}",
        admin=f"{configuration.admin.host}:{admin_port}",
        revision=configuration.snapshot.revision,
    )
    try:
        await stopping.wait()
        log.event(logging.INFO, "draining", seconds=configuration.server.drain_s)
    finally:
        await grpc_server.stop()
        await admin.stop()
        if controller is not None:
            await controller.stop()
        await comparer.close()
        await similarity.close()
        await asker.close()
        if recording is not None:
            await asyncio.to_thread(recording.close)
    log.event(logging.INFO, "stopped")
