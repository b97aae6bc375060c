"""What the request path calls: any router, made safe."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.ports import Router
from ext_proc.core.settings import RouterSettings
from ext_proc.core.types import Message, Policy, Verdict
from ext_proc.core.verdict import verdict_of
from ext_proc.router.cache import VerdictCache, policies_digest, question_digest
from ext_proc.telemetry import log

ROUTER, FLIGHT, CACHE = "router", "flight", "cache"
"""Where an answer came from: asked for, asked for by another request at the same time, or kept."""


@dataclass(slots=True)
class _Flight:
    """A question under way, and how many requests wait for its answer."""

    task: asyncio.Task[Verdict]
    waiting: int = 0


class RouterAsker:
    """Asks a router within a deadline, with a bound on how many questions wait for it.

    Requests that ask the same at the same time share one question. It goes on while one of them waits, so
    that none is harmed when another ends, and ends with the last. What was answered under the policies that
    were prepared is kept for a while; under those that a request brought along it is not, so that no client
    drives out what is kept and none of its names stay.

    Implements `core.ports.Asker`. It owns the router: `close` closes both. `count` is told where each
    answer comes from, and `failed` why a request got none.
    """

    def __init__(
        self,
        router: Router,
        settings: RouterSettings,
        count: Callable[[str], None] = lambda source: None,
        failed: Callable[[Reason], None] = lambda reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._deadline_s = settings.deadline_s
        self._max_waiting = settings.max_waiting
        self._count = count
        self._failed = failed
        self._cache = VerdictCache(settings.cache, clock)
        self._flights: dict[object, _Flight] = {}
        self._prepared: tuple[tuple[Policy, ...], bytes] = (), policies_digest(())

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        """Let the router do its work per configuration. Errors: RouterError."""
        self._prepared = policies, policies_digest(policies)
        await self._router.prepare(policies)

    async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        """Ask for a verdict.

        Errors: none, a failure is a verdict too. Only the caller's own cancellation passes through.
        """
        if not policies:
            return Verdict(failure=Reason.NO_POLICIES)
        if not messages:
            return Verdict(failure=Reason.NO_CONVERSATION)
        key = self._key(messages, policies)
        if isinstance(key, bytes) and (kept := self._cache.get(key)):
            self._count(CACHE)
            return kept
        verdict = await self._asked(key, messages, policies)
        if verdict.failure is not None:
            self._failed(verdict.failure)
        return verdict

    async def close(self) -> None:
        """Free what the router holds. No call follows."""
        for flight in self._flights.values():
            flight.task.cancel()
        await self._router.close()

    async def _asked(
        self, key: object, messages: tuple[Message, ...], policies: tuple[Policy, ...]
    ) -> Verdict:
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= self._max_waiting:
                return Verdict(failure=Reason.ROUTER_BUSY)
            flight = self._start(key, messages, policies)
            self._count(ROUTER)
        else:
            self._count(FLIGHT)
        return await self._wait(key, flight)

    def _key(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> object:
        # By identity: comparing a thousand policies would cost more than the look-up.
        known, digest = self._prepared
        if policies is not known:
            digest = policies_digest(policies)
        return question_digest(messages, digest) or object()

    def _start(self, key: object, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> _Flight:
        # `_flights` holds the reference that the loop does not.
        task = asyncio.get_running_loop().create_task(
            self._answer(messages, policies), name="router question"
        )
        flight = self._flights[key] = _Flight(task)

        def done(task: asyncio.Task[Verdict]) -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]
            is_ours = policies is self._prepared[0]
            if not task.cancelled() and isinstance(key, bytes) and is_ours:
                self._cache.put(key, task.result())

        task.add_done_callback(done)
        return flight

    async def _wait(self, key: object, flight: _Flight) -> Verdict:
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        flight.waiting += 1
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.shield(flight.task)
        except TimeoutError:
            return Verdict(failure=Reason.ROUTER_TIMEOUT)
        except asyncio.CancelledError as error:
            if task and task.cancelling() > cancellations:
                raise
            # The question was ended, by `close`, and its caller was not.
            return _failed(Reason.ROUTER_ERROR, error)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                # Whoever asks the same from now on asks anew.
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.task.cancel()

    async def _answer(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        task = asyncio.current_task()
        try:
            return verdict_of(await self._router.score(messages, policies), policies)
        except asyncio.CancelledError as error:
            # A router may be cancelled where its caller is not: a pool that shuts down does that.
            if task and task.cancelling():
                raise
            return _failed(Reason.ROUTER_ERROR, error)
        except RouterError as error:
            return _failed(error.reason, error)
        except Exception as error:  # noqa: BLE001 - no router may cost a request
            return _failed(Reason.ROUTER_ERROR, error)


def _failed(reason: Reason, error: BaseException) -> Verdict:
    # Of what others raise the type alone: its text could quote the conversation.
    problem = str(error) if isinstance(error, RouterError) else type(error).__name__
    log.event(logging.WARNING, "router_failed", reason=reason.value, problem=problem)
    return Verdict(failure=reason)
