"""The gRPC server that carries the servicer: limits, health, graceful end."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ext_proc.core.settings import ServerSettings
from ext_proc.server import wire
from ext_proc.server.breaks import BreakLog
from ext_proc.server.servicer import Servicer

_HEADROOM_BYTES = 1 << 20
"""What a message may hold besides the body: headers and framing."""


class GrpcServer:
    """`start()` binds and answers; `stop()` says NOT_SERVING, then lets streams in flight finish."""

    def __init__(
        self, servicer: Servicer, breaks: BreakLog, settings: ServerSettings, body_limit_bytes: int
    ) -> None:
        self._settings = settings
        self._breaks = breaks
        limit = body_limit_bytes + _HEADROOM_BYTES
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", limit),
                # Two servers must not share a port unknowingly: the second one fails at start.
                ("grpc.so_reuseport", 0),
            ]
        )
        handler = grpc.stream_stream_rpc_method_handler(
            servicer.process, request_deserializer=wire.deserialize, response_serializer=None
        )
        logs = grpc.stream_unary_rpc_method_handler(
            breaks.stream, request_deserializer=wire.deserialize_logs, response_serializer=None
        )
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD: handler}),
                grpc.method_handlers_generic_handler(wire.LOG_SERVICE, {wire.LOG_METHOD: logs}),
            )
        )
        self._health: Any = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self) -> int:
        """Bind and serve; the port that was bound. Errors: RuntimeError when the address is taken."""
        listen = self._settings.listen
        port: int = self._server.add_insecure_port(f"{listen.host}:{listen.port}")
        await self._server.start()
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in ("", wire.SERVICE):
            await self._health.set(service, serving)
        return port

    async def stop(self) -> None:
        """Refuse new streams, give those in flight `drain_s` to finish, then end them."""
        await self._health.enter_graceful_shutdown()
        self._breaks.close()
        await self._server.stop(self._settings.drain_s)
