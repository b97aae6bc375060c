"""The process that holds a routing model's weights for the servers of a machine."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from ext_proc.core.settings import CausalLmSettings, Configuration
from ext_proc.router.build import build_causal_lm
from ext_proc.router.engine_socket import EngineServer
from ext_proc.telemetry import log


async def serve_engine(configuration: Configuration, settings: CausalLmSettings, socket: Path) -> None:
    """Hold the weights until SIGTERM or SIGINT. Errors: RouterError; OSError when there can be no socket."""
    router = build_causal_lm(settings, configuration.router.max_waiting)
    engine = EngineServer(router, socket)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        if configuration.snapshot.policies:
            await engine.prepare(configuration.snapshot.policies)
        await engine.start()
        log.event(logging.INFO, "engine_serving", socket=str(socket), model=settings.model)
        await stopping.wait()
    finally:
        await engine.stop()
    log.event(logging.INFO, "stopped")
