"""Envoy's log service, for one thing: which answers their providers broke off in the middle.

A filter cannot tell a provider that breaks off from a client that leaves: Envoy ends its stream alike. Its
access log can, so Envoy logs those answers, and those alone, to this server.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from ext_proc.server import wire
from ext_proc.server.observing import Observing


class BreakLog:
    """`AccessLogService.StreamAccessLogs`: one long stream per Envoy worker, until `close()`."""

    def __init__(self, observing: Observing) -> None:
        self._observing = observing
        self._streams: set[asyncio.Task[Any]] = set()

    async def stream(self, _: Any, context: Any) -> bytes:
        """Serve one stream."""
        task = asyncio.current_task()
        if task is not None:
            self._streams.add(task)
            task.add_done_callback(self._streams.discard)
        while (message := await context.read()) is not grpc.aio.EOF:
            for broken in wire.read_logs(message):
                self._observing.broke_off(broken)
        return wire.LOGGED

    def close(self) -> None:
        """End the streams, which would outlast every request."""
        for task in self._streams:
            task.cancel()
