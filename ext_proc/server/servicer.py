"""`ExternalProcessor.Process`: receive, act, send, once per HTTP request and role."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic, perf_counter
from typing import Any

import grpc

from ext_proc.core import headers
from ext_proc.core.copying import CopyBounds
from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Acknowledge, AwaitBody, Classify, Decide, Event, Exchange, Pass
from ext_proc.core.parse import dialect_of
from ext_proc.core.streaming import StreamedExchange
from ext_proc.core.traceparent import Parent, parse_traceparent
from ext_proc.core.types import Target
from ext_proc.server import wire
from ext_proc.server.attempts import rewrite_attempt
from ext_proc.server.copies import classify_copy, rewrite_copy
from ext_proc.server.observing import CopyAnswer, Observing
from ext_proc.server.routing import Live, fall_back, route_request
from ext_proc.server.streaming import Rule, Ruling, serve_streamed
from ext_proc.telemetry import Telemetry


class Servicer:
    """All roles of the service. `current` gives the configuration in force; each stream asks it once.

    `last_opened` is when the newest stream was opened, by the monotonic clock.
    """

    def __init__(
        self,
        current: Callable[[], Live],
        telemetry: Telemetry,
        observing: Observing | None = None,
        bounds: CopyBounds | None = None,
    ) -> None:
        self._current = current
        self._telemetry = telemetry
        self._observing = observing or Observing(telemetry)
        self._bounds = bounds or CopyBounds()
        telemetry.follow(lambda: current().snapshot)
        self.last_opened = float("-inf")

    async def process(self, _: Any, context: Any) -> None:
        """Serve one stream, in the role that its initial metadata names; `route` if it names none."""
        live = self._current()
        self.last_opened = monotonic()
        metadata = dict(context.invocation_metadata())
        self._telemetry.stream_opened()
        live.in_use.begin()
        ends = metadata.get(headers.SENDS) == headers.SENDS_REQUEST
        has = metadata.get(headers.ENVOY_HAS)
        try:
            role = metadata.get(headers.ROLE)
            if role == headers.ROLE_SHADOW:
                await self._copy(live, metadata.get(headers.TARGET, ""), has, context)
            elif role == headers.ROLE_OBSERVE:
                await self._observing.observe(live, context)
            elif role == headers.ROLE_ATTEMPT:
                rule = lambda request: self._rewrite_attempt(live, has, request)  # noqa: E731
                await self._serve(live, context, classify_copy, rule, ends=ends)
            else:
                parent = parse_traceparent(metadata.get("traceparent", ""))
                seen = live.as_seen_by(has)
                if seen.lacks:
                    self._telemetry.envoy_lacked()
                if not seen.can_decide:
                    # A stream that ends without an error makes Envoy go on, to its own default.
                    return
                rule = lambda request: self._decide(seen, request, parent)  # noqa: E731
                await self._serve(live, context, dialect_of, rule, ends=ends)
        finally:
            live.in_use.end()
            self._telemetry.stream_closed()

    async def _serve(
        self,
        live: Live,
        context: Any,
        classify: Classify,
        rule: Rule,
        see: Callable[[Event], Awaitable[None]] | None = None,
        *,
        ends: bool = False,
    ) -> None:
        """Serve one stream until Envoy ends it, in the mode that its first message tells.

        `see` is shown each event. `ends`: nothing comes after the request, so that there is nothing to wait
        for once that is decided, while its answer may take minutes. In pieces the body itself comes then.
        """
        message = await context.read()
        if message is not grpc.aio.EOF and wire.is_streamed(message):
            limit = live.body_limit_bytes
            window = limit if live.window_bytes is None else live.window_bytes
            exchange = StreamedExchange(window, classify)
            await serve_streamed(context, message, exchange, self._telemetry, rule)
        else:
            await self._serve_buffered(context, message, Exchange(classify), rule, see, ends=ends)

    async def _serve_buffered(
        self,
        context: Any,
        message: Any,
        exchange: Exchange,
        rule: Rule,
        see: Callable[[Event], Awaitable[None]] | None,
        *,
        ends: bool,
    ) -> None:
        """One answer per message, in order."""
        while message is not grpc.aio.EOF:
            event = wire.read(message)
            # It holds a second copy of the body, for which nobody has a use while the router thinks.
            del message
            if event is None:
                # No answer fits a message that has no name here. Ending the stream without an error
                # makes Envoy go on without us.
                self._telemetry.unknown_message()
                return
            if see is not None:
                await see(event)
            match exchange.receive(event):
                case AwaitBody():
                    answer = wire.AWAIT_BODY
                case Pass():
                    self._telemetry.passed()
                    answer = wire.PASS
                case Acknowledge(part):
                    answer = wire.ACKNOWLEDGE[part]
                case Decide() as request:
                    answer = (await rule(request)).answer
            await context.write(answer)
            if ends and exchange.is_done:
                return
            message = await context.read()

    async def _decide(self, live: Live, request: Decide, parent: Parent | None) -> Ruling:
        started = perf_counter()
        try:
            mutation, outcome = await route_request(live, request, self._bounds)
            answer = wire.write(request, mutation, outcome.decision)
        except asyncio.CancelledError:
            self._telemetry.abandoned(request.headers.request_id)
            raise
        except Exception as error:  # noqa: BLE001 - a bug of ours must not cost the client its request
            self._telemetry.bug(error, request.headers.request_id)
            mutation, outcome = fall_back(live, request, Reason.INTERNAL_ERROR, started)
            answer = wire.write(request, mutation, outcome.decision)
        try:
            self._telemetry.decided(request, outcome, parent)
        except Exception as error:  # noqa: BLE001 - what cannot be counted is decided all the same
            self._telemetry.bug(error, request.headers.request_id)
        return Ruling(answer, mutation)

    async def _rewrite_attempt(self, live: Live, has: str | None, request: Decide) -> Ruling:
        try:
            target = live.target(request.headers.attempt, has)
            mutation = await rewrite_attempt(request, target, live.key_headers, live.body_limit_bytes)
        except Exception as error:  # noqa: BLE001 - an attempt that cannot be rewritten is refused
            self._telemetry.bug(error, request.headers.request_id)
            mutation = None
        self._telemetry.attempted(request, is_refused=mutation is None)
        if mutation is None:
            return Ruling(wire.REFUSE)
        return Ruling(wire.write(request, mutation, None), mutation)

    async def _copy(self, live: Live, name: str, has: str | None, context: Any) -> None:
        answer = CopyAnswer(self._observing, live, name, self._bounds)
        rule = lambda request: self._rewrite_copy(live, live.target(name, has), name, request, answer)  # noqa: E731
        try:
            await self._serve(live, context, classify_copy, rule, answer.see)
        finally:
            answer.finish()

    async def _rewrite_copy(
        self, live: Live, target: Target | None, name: str, request: Decide, answer: CopyAnswer
    ) -> Ruling:
        try:
            mutation = await rewrite_copy(request, target, live.body_limit_bytes) if target else None
        except Exception as error:  # noqa: BLE001 - a copy that cannot be rewritten is dropped
            self._telemetry.bug(error, request.headers.request_id)
            mutation = None
        if mutation is None:
            self._telemetry.copy_dropped(name if target else "")
            answer.dropped(request)
            return Ruling(wire.DROP)
        answer.sent(request, mutation.body or b"")
        return Ruling(wire.write(request, mutation, None), mutation)
