"""`EndpointRouter`: Arch-Router behind an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic

import aiohttp

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.ports import Router
from ext_proc.core.settings import EndpointSettings
from ext_proc.core.types import Message, Policy, Scores
from ext_proc.router.breaker import Breaker, Pass
from ext_proc.router.completions import read_answer, request_body
from ext_proc.telemetry import log

_MAX_ANSWER_BYTES = 1 << 20

RESERVED_FOR_FALLBACK = 0.25
"""Of the deadline: what is left to the fallback router when the server takes all of the rest."""

_SHARE_OF_DEADLINE = 0.95
"""Without a fallback. A little less than all, so that it is the server that was late, not the caller."""

_LATEST_START = 0.5
"""Of the server's time: what waits longer than that for a place cannot blame the server for being late."""

_RETRIES_PER_REQUEST, _MOST_RETRIES = 0.1, 10.0
"""The retry budget: one request in ten may be sent again, ten in a burst. More would be a second load."""


class EndpointRouter:
    """Implements `core.ports.Router`.

    A request that the server did not answer (the connection was lost before a status came) is sent
    once more while the budget lasts. After failures in a row nothing is sent for a while. What the
    server does not answer, the `fallback` does, if there is one; it is owned by this router, and `fell_back`
    is told why it was asked.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        deadline_s: float,
        fallback: Router | None = None,
        fell_back: Callable[[Reason], None] = lambda reason: None,
    ) -> None:
        self._settings = settings
        self._fallback = fallback
        self._fell_back = fell_back
        self._timeout_s = deadline_s * (1 - RESERVED_FOR_FALLBACK if fallback else _SHARE_OF_DEADLINE)
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_pause_s)
        self._places = asyncio.Semaphore(settings.max_concurrent)
        self._retries = _MOST_RETRIES
        self._session: aiohttp.ClientSession | None = None

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        """The server needs no preparation; the fallback may."""
        if self._fallback is not None:
            await self._fallback.prepare(policies)

    async def forget(self, policies: tuple[Policy, ...]) -> None:
        if self._fallback is not None:
            await self._fallback.forget(policies)

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        """Ask the server, or else the fallback. Errors: RouterError, the server's without a fallback."""
        body = request_body(self._settings, messages, policies)
        if body is None:
            return Scores((0.0,) * len(policies), 1.0)
        try:
            return await self._guarded(body, policies)
        except RouterError as error:
            if self._fallback is None:
                raise
            log.event(logging.WARNING, "router_fell_back", reason=error.reason.value, problem=str(error))
            self._fell_back(error.reason)
        return await self._fallback.score(messages, policies)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._fallback is not None:
            await self._fallback.close()

    async def _guarded(self, body: bytes, policies: tuple[Policy, ...]) -> Scores:
        """One question behind the breaker, within the time that is the server's.

        What found its place too late says nothing about the server, and does not count for the breaker.
        """
        admitted: Pass | None = None
        started = begun = monotonic()
        try:
            async with asyncio.timeout(self._timeout_s), self._places:
                begun = monotonic()
                admitted = self._breaker.admit(begun)
                if admitted is None:
                    text = "the routing model's server failed too often"
                    raise RouterError(Reason.ROUTER_UNREACHABLE, text)
                scores = read_answer(await self._answer(body), policies)
        except asyncio.CancelledError:
            if admitted is not None:
                self._breaker.abandoned(admitted)
            raise
        except Exception as error:
            failure = _failure(error)
            if failure.reason is Reason.ROUTER_TIMEOUT and (
                admitted is None or begun - started > self._timeout_s * _LATEST_START
            ):
                text = "too many questions to the routing model's server are under way"
                failure = RouterError(Reason.ROUTER_BUSY, text)
                if admitted is not None:
                    self._breaker.abandoned(admitted)
            elif admitted is not None and self._breaker.failed(admitted, monotonic()):
                log.event(logging.WARNING, "router_breaker_opened", problem=str(failure))
            raise failure from error
        self._breaker.succeeded()
        return scores

    async def _answer(self, body: bytes) -> bytes:
        self._retries = min(self._retries + _RETRIES_PER_REQUEST, _MOST_RETRIES)
        try:
            return await self._post(body)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # A kept connection that the server closed: it has not answered, and asking changes nothing.
            if self._retries < 1:
                raise
            self._retries -= 1
        return await self._post(body)

    async def _post(self, body: bytes) -> bytes:
        """Errors: RouterError by status; what aiohttp raises."""
        settings, headers = self._settings, {"content-type": "application/json"}
        if settings.credential is not None:
            headers[settings.credential.header] = settings.credential.value.reveal()
        if self._session is None:
            # Made where the loop runs.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=settings.max_concurrent),
                timeout=aiohttp.ClientTimeout(total=None),
                # What one question's answer sets is nothing to the next.
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        async with self._session.post(
            settings.url, data=body, headers=headers, allow_redirects=False
        ) as reply:
            if reply.status == HTTPStatus.TOO_MANY_REQUESTS:
                raise RouterError(Reason.ROUTER_BUSY, "the routing model's server is busy")
            if reply.status != HTTPStatus.OK:
                raise RouterError(Reason.ROUTER_ERROR, f"the routing model's server answers {reply.status}")
            answer = await reply.content.read(_MAX_ANSWER_BYTES + 1)
            while len(answer) <= _MAX_ANSWER_BYTES and (more := await reply.content.readany()):
                answer += more
        if len(answer) > _MAX_ANSWER_BYTES:
            raise RouterError(Reason.ROUTER_GARBLED, "the routing model's answer is too long")
        return answer


def _failure(error: Exception) -> RouterError:
    if isinstance(error, RouterError):
        # As it is, with what it came from.
        return RouterError(error.reason, str(error))
    name = type(error).__name__
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
        return RouterError(Reason.ROUTER_TIMEOUT, "the routing model's server is late")
    if isinstance(error, aiohttp.ClientError | OSError):
        return RouterError(Reason.ROUTER_UNREACHABLE, f"the routing model's server did not answer: {name}")
    # Whatever a library raises for what a server sends. Its text could quote ours.
    return RouterError(Reason.ROUTER_ERROR, f"asking the routing model's server failed: {name}")
