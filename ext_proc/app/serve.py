"""A server's life: begin, answer, drain, end."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack
from dataclasses import replace

from ext_proc.admin.app import AdminServer, Sources
from ext_proc.app.collecting import keep_what_is_there
from ext_proc.app.reloading import Reloader
from ext_proc.app.serving import Serving
from ext_proc.config.load import Loaded
from ext_proc.config.source import Source
from ext_proc.server.breaks import BreakLog
from ext_proc.server.grpc_server import GrpcServer
from ext_proc.telemetry import log
from ext_proc.telemetry.joining import families_of
from ext_proc.telemetry.reloads import ReloadTelemetry
from ext_proc.telemetry.tasks import spawn
from ext_proc.workers.siblings import Siblings


async def serve(source: Source, loaded: Loaded, siblings: Siblings | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain: the order is that of a load balancer's trust.

    First not ready, so that nobody sends more; then the streams in flight; then the rest. Meanwhile SIGHUP,
    or a change of `source`'s files, puts another configuration in force. With `siblings` as one of several
    workers, at its own port, while the admin port is their parent's.
    """
    configuration = loaded.configuration
    server = configuration.server
    if siblings is not None:
        server = replace(server, listen=server.of_worker(siblings.seat.index))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    serving = Serving(configuration, siblings)
    told = ReloadTelemetry(serving.telemetry.registry, serving.routers_held)
    for warning in loaded.warnings:
        told.warned(str(warning))
    reloader = Reloader(serving, source, loaded, told)
    loop.add_signal_handler(signal.SIGHUP, reloader.ask)
    # Closed in the opposite order, also where what comes next cannot be opened.
    async with AsyncExitStack() as opened:
        if siblings is not None:
            opened.push_async_callback(siblings.close)
        opened.push_async_callback(serving.close)
        await serving.begin()
        grpc_server = GrpcServer(
            serving.servicer(),
            BreakLog(serving.observing),
            server,
            configuration.envoy.body_limit_bytes,
            serving.telemetry,
        )
        admin = AdminServer(
            configuration.admin,
            serving.telemetry,
            is_ready=lambda: not stopping.is_set(),
            token=serving.admin_token,
            sources=Sources(
                current=lambda: serving.live.snapshot,
                config=reloader.shown,
                shadows=serving.recent.shown,
                rollouts=lambda: serving.rollouts.controller,
                explainer=serving.explain,
            ),
        )
        opened.push_async_callback(admin.stop)
        opened.push_async_callback(grpc_server.stop)
        grpc_port = await grpc_server.start()
        admin_port = await admin.start(siblings.seat.admin if siblings is not None else None)
        if siblings is not None:
            await siblings.start(lambda: families_of(serving.telemetry.registry), stopping.set)
            siblings.ready(grpc_port)
            spawn(_tell_known(grpc_server, siblings), "known")
        log.event(
            logging.INFO,
            "serving",
            grpc=str(server.listen.at(grpc_port)),
            admin=f"{configuration.admin.host}:{admin_port}",
            revision=configuration.snapshot.revision,
        )
        reloader.start()
        opened.push_async_callback(reloader.stop)
        keep_what_is_there()
        await stopping.wait()
        log.event(logging.INFO, "draining", seconds=server.drain_s)
        if siblings is not None and siblings.is_retiring:
            await grpc_server.leave()
    log.event(logging.INFO, "stopped")


async def _tell_known(grpc_server: GrpcServer, siblings: Siblings) -> None:
    await grpc_server.asked()
    siblings.known()
