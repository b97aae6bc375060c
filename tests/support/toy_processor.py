"""An ext_proc server of few lines, whose every answer a test dictates: for what the real one never does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf import json_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ext_proc.core import headers
from ext_proc.core.settings import Address

_OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """What Envoy sent about one request. `role` and `target` are the stream's initial metadata."""

    role: str | None
    target: str | None
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """What to do with it."""

    set: Mapping[str, str] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    body: bytes | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    clear_route_cache: bool = True


Think = Callable[[Asked], Awaitable[Told]]


class ToyProcessor:
    """Answers the body message with what `think` says; `asked` holds every request that got that far."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.think: Think = self.pass_untouched
        self.health: Any = health.aio.HealthServicer()
        self.address = Address("127.0.0.1", 0)
        self.open_streams = 0
        self.streams = 0
        self.first_messages: list[Any] = []

    async def pass_untouched(self, _: Asked) -> Told:
        return Told(clear_route_cache=False)

    def decide(self, cluster: str, model: str = "toy/model", **more: Any) -> None:
        """From now on, send everything there."""
        extra = more.pop("set", {})

        async def think(_: Asked) -> Told:
            chosen = {headers.CLUSTER: cluster, headers.MODEL: model, headers.REASON: "policy", **extra}
            return Told(set=chosen, **more)

        self.think = think

    def hang(self) -> None:
        """From now on, never answer a body."""

        async def think(_: Asked) -> Told:
            await asyncio.Event().wait()
            raise AssertionError

        self.think = think

    async def process(self, _: Any, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        seen: dict[str, str] = {}
        self.open_streams += 1
        self.streams += 1
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                if message.HasField("request_headers"):
                    self.first_messages.append(message)
                    found = message.request_headers.headers.headers
                    seen = {header.key: header.raw_value.decode() for header in found}
                    await context.write(pb.ProcessingResponse(request_headers=pb.HeadersResponse()))
                elif message.HasField("request_body"):
                    body = message.request_body.body
                    asked = Asked(metadata.get(headers.ROLE), metadata.get(headers.TARGET), seen, body)
                    self.asked.append(asked)
                    await context.write(_answer(await self.think(asked)))
                else:
                    raise AssertionError(f"asked about {message.WhichOneof('request')}")
        finally:
            self.open_streams -= 1

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[ToyProcessor]:
        """Serve on loopback, health included."""
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", _LIMIT_BYTES),
                ("grpc.max_send_message_length", _LIMIT_BYTES),
                ("grpc.so_reuseport", 0),
            ]
        )
        handler = grpc.stream_stream_rpc_method_handler(
            self.process,
            request_deserializer=pb.ProcessingRequest.FromString,
            response_serializer=pb.ProcessingResponse.SerializeToString,
        )
        service = "envoy.service.ext_proc.v3.ExternalProcessor"
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Process": handler}),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        await self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        self.address = Address("127.0.0.1", server.add_insecure_port(f"127.0.0.1:{port}"))
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)


def _answer(told: Told) -> Any:
    answer = pb.ProcessingResponse()
    common = answer.request_body.response
    common.clear_route_cache = told.clear_route_cache
    for name, value in told.set.items():
        option = common.header_mutation.set_headers.add(append_action=_OVERWRITE)
        option.header.key, option.header.raw_value = name, value.encode()
    common.header_mutation.remove_headers.extend(told.remove)
    if told.body is not None:
        common.body_mutation.body = told.body
    if told.metadata:
        json_format.ParseDict({headers.METADATA_NAMESPACE: dict(told.metadata)}, answer.dynamic_metadata)
    return answer
