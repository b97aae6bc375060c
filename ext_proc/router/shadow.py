"""A second router beside the one in charge: asked, compared, never obeyed."""

from __future__ import annotations

import asyncio
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


PATIENCE_S = 5.0
"""What a configuration waits for its shadow router: the embedded one is ready by then."""


class ShadowedAsker:
    """Answers as `asker` does, and asks `shadow` about a share of the conversations afterwards.

    Which ones depends on the newest message, so that a conversation that comes again is asked about again
    or not again. Policies that a request brought along are its own affair, and failures say nothing: both
    are left out. The shadow's bound on waiting questions is the bound on how many are asked at once.
    What its preparation takes beyond `patience_s`, it takes beside the requests, and is not asked meanwhile.

    Implements `core.ports.Asker`.
    """

    def __init__(
        self,
        asker: RouterAsker,
        shadow: RouterAsker,
        percent_per_10k: int,
        report: Report,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._asker = asker
        self._shadow = shadow
        self._percent_per_10k = percent_per_10k
        self._report = report
        self._patience_s = patience_s
        self._policies: tuple[Policy, ...] = ()
        self._preparing: asyncio.Task[None] | None = None
        self._comparing: set[asyncio.Task[None]] = set()

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        """Prepare both. Errors: RouterError of the router in charge; the other's are logged."""
        await self._asker.prepare(policies)
        self._preparing = spawn(self._prepare_shadow(policies), "shadow router's preparation")
        await asyncio.wait([self._preparing], timeout=self._patience_s)

    async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        """Ask the router in charge. Never raises, and never waits for the other."""
        verdict = await self._asker.ask(messages, policies)
        if policies is self._policies and verdict.failure is None and self._is_sampled(messages):
            task = spawn(self._compare(messages, policies, verdict), "shadow router")
            self._comparing.add(task)
            task.add_done_callback(self._comparing.discard)
        return verdict

    async def close(self) -> None:
        """Close both. No call follows."""
        for task in [*self._comparing, *([self._preparing] if self._preparing else [])]:
            task.cancel()
        await self._shadow.close()
        await self._asker.close()

    async def _prepare_shadow(self, policies: tuple[Policy, ...]) -> None:
        try:
            await self._shadow.prepare(policies)
        except RouterError as error:
            # It may come back: its failures are counted.
            log.event(logging.WARNING, "shadow_router_unprepared", problem=str(error))
        self._policies = policies

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
