"""A stream whose body comes in pieces (FULL_DUPLEX_STREAMED): hold, decide, send on.

Envoy keeps no copy of what it sent here. So this stream never ends before Envoy ends it, and whatever goes
wrong, every byte of the body goes back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from ext_proc.core.exchange import Acknowledge, Decide, Part, Pass
from ext_proc.core.rewrite import Mutation
from ext_proc.core.splicing import ModelSplice
from ext_proc.core.streaming import Forward, StreamedAction, StreamedExchange
from ext_proc.server import wire
from ext_proc.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Ruling:
    """What became of a request: the answer to Envoy, and what changes; None for one that is refused."""

    answer: bytes
    mutation: Mutation | None = None


Rule = Callable[[Decide], Awaitable[Ruling]]


async def serve_streamed(
    context: Any, message: Any, exchange: StreamedExchange, telemetry: Telemetry, rule: Rule
) -> None:
    """Serve one stream from its first message on, until Envoy ends it."""
    stream = _Stream(context, exchange, telemetry, rule)
    while message is not grpc.aio.EOF:
        event = wire.read(message)
        del message
        if event is None:
            telemetry.unknown_message()
        else:
            await stream.carry_out(exchange.receive(event))
        message = await context.read()


class _Stream:
    """Carries out the actions of one stream. `_splice` edits what passes, once there is a decision."""

    def __init__(self, context: Any, exchange: StreamedExchange, telemetry: Telemetry, rule: Rule) -> None:
        self._context = context
        self._exchange = exchange
        self._telemetry = telemetry
        self._rule = rule
        self._splice: ModelSplice | None = None
        self._request_id = ""

    async def carry_out(self, action: StreamedAction) -> None:
        match action:
            case Pass():
                self._telemetry.passed()
                await self._context.write(wire.ACKNOWLEDGE[Part.REQUEST_HEADERS])
            case Decide():
                await self._decide(action)
            case Forward():
                await self._forward(action)
            case Acknowledge(part):
                await self._context.write(wire.ACKNOWLEDGE[part])
            case _:
                pass

    async def _decide(self, request: Decide) -> None:
        ruling = await self._rule(request)
        await self._context.write(ruling.answer)
        mutation = ruling.mutation
        if mutation is None:
            self._exchange.end()
            return
        self._request_id = request.headers.request_id
        if mutation.streamed_model is not None:
            self._splice = ModelSplice(mutation.streamed_model)
        body = request.body if mutation.body is None else mutation.body
        for action in self._exchange.after_decision(body):
            await self.carry_out(action)

    async def _forward(self, piece: Forward) -> None:
        for part in piece.pieces():
            body = self._edited(part.body)
            if body or part.ends:
                await self._context.write(wire.write_piece(body, part.ends))

    def _edited(self, body: bytes) -> bytes:
        if self._splice is None:
            return body
        try:
            return self._splice.feed(body)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not cost the client its body
            self._telemetry.bug(error, self._request_id)
            self._splice = None
            return body
