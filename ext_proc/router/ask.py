"""What the request path calls: any router, made safe.

A decision cache and single flight belong here too: in front of `_answer`, behind the bound.
"""

from __future__ import annotations

import asyncio
import logging

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.ports import Router
from ext_proc.core.settings import RouterSettings
from ext_proc.core.types import Message, Policy, Verdict
from ext_proc.core.verdict import verdict_of
from ext_proc.telemetry import log


class RouterAsker:
    """Asks a router within a deadline, with a bound on how many requests wait for it.

    Implements `core.ports.Asker`. It owns the router: `close` closes both.
    """

    def __init__(self, router: Router, settings: RouterSettings) -> None:
        self._router = router
        self._deadline_s = settings.deadline_s
        self._max_waiting = settings.max_waiting
        self._waiting = 0

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        """Let the router do its work per configuration. Errors: RouterError."""
        await self._router.prepare(policies)

    async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        """Ask for a verdict.

        Errors: none, a failure is a verdict too. Only the caller's own cancellation passes through.
        """
        if not policies:
            return Verdict(failure=Reason.NO_POLICIES)
        if not messages:
            return Verdict(failure=Reason.NO_CONVERSATION)
        if self._waiting >= self._max_waiting:
            return Verdict(failure=Reason.ROUTER_BUSY)
        self._waiting += 1
        try:
            return await self._answer(messages, policies)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Free what the router holds. No call follows."""
        await self._router.close()

    async def _answer(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        try:
            async with asyncio.timeout(self._deadline_s) as deadline:
                scores = await self._router.score(messages, policies)
            return verdict_of(scores, policies)
        except asyncio.CancelledError as error:
            # A router may be cancelled where its caller is not: a pool that shuts down does that.
            if task and task.cancelling() > cancellations:
                raise
            return _failed(Reason.ROUTER_ERROR, error)
        except RouterError as error:
            return _failed(error.reason, error)
        except Exception as error:  # noqa: BLE001 - no router may cost a request
            if deadline.expired():
                return Verdict(failure=Reason.ROUTER_TIMEOUT)
            return _failed(Reason.ROUTER_ERROR, error)


def _failed(reason: Reason, error: BaseException) -> Verdict:
    # The type alone: a text could quote the conversation.
    log.event(logging.WARNING, "router_failed", reason=reason.value, error=type(error).__name__)
    return Verdict(failure=reason)
