"""The gRPC server that carries the servicer: limits, who may call, health, graceful end."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ext_proc.core.settings import Pipe, ServerSettings, ServerTls
from ext_proc.server import wire
from ext_proc.server.breaks import BreakLog
from ext_proc.server.guard import Guard
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry
from ext_proc.transport import tcp, unix

_HEADROOM_BYTES = 1 << 20
"""What a message may hold besides the body: headers and framing."""

OPTIONS = (
    # Two servers must not share a port unknowingly: the second one fails at start.
    ("grpc.so_reuseport", 0),
    # Envoy may ping once a second, which gRPC takes for an attack unless it is told.
    ("grpc.http2.max_ping_strikes", 0),
)
"""Of any server, whatever its limits."""

LEAVE_S = 2.0
"""Twice the interval of the health checks that `render` writes: whoever checks has heard by then."""
QUIET_S = 0.5
MAX_LEAVE_S = 10.0
"""A server that leaves serves until nobody has opened a stream for a while, or until this limit."""


class _Health(health.aio.HealthServicer):  # type: ignore[misc]
    """`grpc.health.v1`, with `asked` set once somebody has asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def Check(self, request: Any, context: Any) -> Any:
        answer = await super().Check(request, context)
        self.asked.set()
        return answer


class GrpcServer:
    """`start()` binds and answers; `stop()` says NOT_SERVING, then lets streams in flight finish."""

    def __init__(
        self,
        servicer: Servicer,
        breaks: BreakLog,
        settings: ServerSettings,
        body_limit_bytes: int,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._servicer = servicer
        self._telemetry = telemetry
        guard = Guard(settings, telemetry)
        self._breaks = breaks
        limit = body_limit_bytes + _HEADROOM_BYTES
        limits = [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit)]
        self._server = grpc.aio.server(options=[*OPTIONS, *limits])
        handler = grpc.stream_stream_rpc_method_handler(
            guard.guarded(servicer.process), request_deserializer=wire.deserialize, response_serializer=None
        )
        logs = grpc.stream_unary_rpc_method_handler(
            guard.guarded(breaks.stream), request_deserializer=wire.deserialize_logs, response_serializer=None
        )
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD: handler}),
                grpc.method_handlers_generic_handler(wire.LOG_SERVICE, {wire.LOG_METHOD: logs}),
            )
        )
        self._health = _Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self) -> int:
        """Bind and serve; the port that was bound.

        Errors: OSError that names the address, BadCertificate.
        """
        listen = self._settings.listen
        if isinstance(listen, Pipe):
            unix.free(Path(listen.path))
        else:
            tcp.check_free(listen)
        # gRPC makes the socket itself, and it can be connected to as soon as it is there.
        with unix.mode_of_new_files(listen.mode) if isinstance(listen, Pipe) else nullcontext():
            port = self._bind(str(listen))
        await self._server.start()
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in ("", wire.SERVICE):
            await self._health.set(service, serving)
        return port

    def _bind(self, address: str) -> int:
        tls = self._settings.tls
        credentials = None if tls is None else _credentials(tls, self._telemetry)
        try:
            if credentials is None:
                port: int = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            # It has told standard error why, and nobody else.
            raise OSError(f"cannot listen at {address}") from error
        return port

    async def asked(self) -> None:
        """Wait until somebody has asked how this server is, and heard that it serves."""
        await self._health.asked.wait()

    async def leave(self) -> None:
        """Say NOT_SERVING, and serve on until Envoy has turned to the other servers."""
        await self._health.enter_graceful_shutdown()
        limit = monotonic() + MAX_LEAVE_S
        left_s = LEAVE_S
        while left_s > 0:
            await asyncio.sleep(left_s)
            left_s = min(limit, self._servicer.last_opened + QUIET_S) - monotonic()

    async def stop(self) -> None:
        """Refuse new streams, give those in flight `drain_s` to finish, then end them."""
        await self._health.enter_graceful_shutdown()
        self._breaks.close()
        await self._server.stop(self._settings.drain_s)


def _credentials(tls: ServerTls, telemetry: Telemetry) -> Any:
    """TLS by files that are looked at anew before each handshake. Connections that are there go on."""
    # Its library is large, and most servers have no TLS of their own.
    from ext_proc.transport import certificates  # noqa: PLC0415

    watched = certificates.Watched(tls, telemetry.certificate, lambda e: telemetry.certificate_failed(str(e)))

    def told(pair: certificates.KeyPair) -> Any:
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], pair.client_ca)

    def fetch() -> Any:
        fresh = watched.fresh()
        return None if fresh is None else told(fresh)

    wants_client = tls.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(told(watched.first()), fetch, wants_client)
