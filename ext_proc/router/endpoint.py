"""`EndpointRouter`: Arch-Router behind an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from time import monotonic

import aiohttp

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.ports import Router
from ext_proc.core.settings import EndpointSettings
from ext_proc.core.types import Message, Policy, Scores
from ext_proc.router.breaker import Breaker
from ext_proc.router.completions import read_answer, request_body
from ext_proc.telemetry import log

_MAX_ANSWER_BYTES = 1 << 20

RESERVED_FOR_FALLBACK = 0.25
"""Of the deadline: what is left to the fallback router when the server takes all of the rest."""

_SHARE_OF_DEADLINE = 0.95
"""Without a fallback. A little less than all, so that it is the server that was late, not the caller."""

_RETRIES_PER_REQUEST, _MOST_RETRIES = 0.1, 10.0
"""The retry budget: one request in ten may be sent again, ten in a burst. More would be a second load."""


class EndpointRouter:
    """Implements `core.ports.Router`.

    A request that the server did not answer (the connection was lost before a status came) is sent
    once more while the budget lasts. After failures in a row nothing is sent for a while. What the
    server does not answer, the `fallback` does, if there is one; it is owned by this router.
    """

    def __init__(self, settings: EndpointSettings, deadline_s: float, fallback: Router | None = None) -> None:
        self._settings = settings
        self._fallback = fallback
        self._timeout_s = deadline_s * (1 - RESERVED_FOR_FALLBACK if fallback else _SHARE_OF_DEADLINE)
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_pause_s)
        self._places = asyncio.Semaphore(settings.max_concurrent)
        self._retries = _MOST_RETRIES
        self._session: aiohttp.ClientSession | None = None

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        """The server needs no preparation; the fallback may."""
        if self._fallback is not None:
            await self._fallback.prepare(policies)

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
            log.event(logging.WARNING, "router_fell_back", reason=error.reason.value)
        return await self._fallback.score(messages, policies)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._fallback is not None:
            await self._fallback.close()

    async def _guarded(self, body: bytes, policies: tuple[Policy, ...]) -> Scores:
        """One question behind the breaker, within the time that is the server's."""
        if not self._breaker.allows(monotonic()):
            raise RouterError(Reason.ROUTER_UNREACHABLE, "the routing model's server failed too often")
        try:
            async with asyncio.timeout(self._timeout_s):
                scores = read_answer(await self._answer(body), policies)
        except TimeoutError as error:
            self._breaker.failed(monotonic())
            raise RouterError(Reason.ROUTER_TIMEOUT, "the routing model's server is late") from error
        except RouterError:
            self._breaker.failed(monotonic())
            raise
        except asyncio.CancelledError:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return scores

    async def _answer(self, body: bytes) -> bytes:
        async with self._places:
            self._retries = min(self._retries + _RETRIES_PER_REQUEST, _MOST_RETRIES)
            try:
                return await self._post(body)
            except aiohttp.ServerDisconnectedError as error:
                # A kept connection that the server closed: it has not answered, and asking changes nothing.
                if self._retries < 1:
                    raise _unreachable(error) from error
                self._retries -= 1
            except (aiohttp.ClientError, OSError) as error:
                raise _unreachable(error) from error
            try:
                return await self._post(body)
            except (aiohttp.ClientError, OSError) as error:
                raise _unreachable(error) from error

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


def _unreachable(error: Exception) -> RouterError:
    return RouterError(
        Reason.ROUTER_UNREACHABLE, f"the routing model's server did not answer: {type(error).__name__}"
    )
