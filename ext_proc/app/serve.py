"""A server's life: begin, answer, drain, end."""

from __future__ import annotations

import asyncio
import logging
import signal

from ext_proc.admin.app import AdminServer, Sources
from ext_proc.app.reloading import Reloader
from ext_proc.app.serving import Serving
from ext_proc.config.load import Loaded
from ext_proc.config.source import Source
from ext_proc.server.breaks import BreakLog
from ext_proc.server.grpc_server import GrpcServer
from ext_proc.telemetry import log
from ext_proc.telemetry.reloads import ReloadTelemetry


async def serve(source: Source, loaded: Loaded) -> None:
    """Serve until SIGTERM or SIGINT, then drain: the order is that of a load balancer's trust.

    First not ready, so that nobody sends more; then the streams in flight; then the rest. Meanwhile SIGHUP,
    or a change of `source`'s files, puts another configuration in force.
    """
    configuration = loaded.configuration
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    serving = Serving(configuration)
    told = ReloadTelemetry(serving.telemetry.registry, serving.routers_held)
    for warning in loaded.warnings:
        told.warned(str(warning))
    reloader = Reloader(serving, source, loaded, told)
    loop.add_signal_handler(signal.SIGHUP, reloader.ask)
    await serving.begin()
    grpc_server = GrpcServer(
        serving.servicer(),
        BreakLog(serving.observing),
        configuration.server,
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
    grpc_port = await grpc_server.start()
    admin_port = await admin.start()
    log.event(
        logging.INFO,
        "serving",
        grpc=str(configuration.server.listen.at(grpc_port)),
        admin=f"{configuration.admin.host}:{admin_port}",
        revision=configuration.snapshot.revision,
    )
    reloader.start()
    try:
        await stopping.wait()
        log.event(logging.INFO, "draining", seconds=configuration.server.drain_s)
    finally:
        await reloader.stop()
        await grpc_server.stop()
        await admin.stop()
        await serving.close()
    log.event(logging.INFO, "stopped")
