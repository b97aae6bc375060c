"""A second router beside the one in charge: asked, compared, never obeyed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import blake2b

from ext_proc.core.errors import RouterError
from ext_proc.core.types import WHOLE_PER_10K, Message, Policy, Verdict
from ext_proc.router.ask import RouterAsker
from ext_proc.telemetry import log
from ext_proc.telemetry.tasks import spawn

Report = Callable[[Verdict, Verdict], None]
"""Told what the router in charge said, and then what the other did."""


class ShadowedAsker:
    """Answers as `asker` does, and asks `shadow` about a share of the conversations afterwards.

    Which ones depends on the newest message, so that a conversation that comes again is asked about again
    or not again. Policies that a request brought along are its own affair, and failures say nothing: both
    are left out. The shadow's bound on waiting questions is the bound on how many are asked at once.

    Implements `core.ports.Asker`.
    """

    def __init__(self, asker: RouterAsker, shadow: RouterAsker, percent_per_10k: int, report: Report) -> None:
        self._asker = asker
        self._shadow = shadow
        self._percent_per_10k = percent_per_10k
        self._report = report
        self._policies: tuple[Policy, ...] = ()

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        """Prepare both. Errors: RouterError of the router in charge; the other's are logged."""
        await self._asker.prepare(policies)
        self._policies = policies
        try:
            await self._shadow.prepare(policies)
        except RouterError as error:
            log.event(logging.WARNING, "shadow_router_unprepared", problem=str(error))

    async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        """Ask the router in charge. Never raises, and never waits for the other."""
        verdict = await self._asker.ask(messages, policies)
        if policies is self._policies and verdict.failure is None and self._is_sampled(messages):
            spawn(self._compare(messages, policies, verdict), "shadow router")
        return verdict

    async def close(self) -> None:
        """Close both. No call follows."""
        await self._shadow.close()
        await self._asker.close()

    async def _compare(
        self, messages: tuple[Message, ...], policies: tuple[Policy, ...], verdict: Verdict
    ) -> None:
        self._report(verdict, await self._shadow.ask(messages, policies))

    def _is_sampled(self, messages: tuple[Message, ...]) -> bool:
        if self._percent_per_10k >= WHOLE_PER_10K:
            return True
        text = next((message.text for message in reversed(messages) if message.role == "user"), "")
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") * WHOLE_PER_10K >> 64 < self._percent_per_10k
