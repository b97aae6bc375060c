"""Clients that ask one thing after the other without a pause, and what each of them got."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.mesh import CODING, LIMIT_S, Mesh, Reply, chat

CONNECTIONS = 50
LARGE_EVERY, STREAMED_EVERY, BY_POLICY_EVERY = 17, 3, 5
"""Of so many clients one sends bodies of 2 MB, one asks for a stream, one is routed by the router."""

LARGE = "x" * (2 << 20)
MODEL_DELAY_S = 0.2
"""How long a stand-in thinks: 50 clients then keep 50 requests in flight without taking both cores."""

UNAVAILABLE = "server_unavailable"

FINISHED: list[tuple[str, Load]] = []
"""Every load of this run that is over, with its test: where docs/reliability.md has its figures from."""


@dataclass
class Load:
    """What the clients got so far: answers by reason and by kind of request, and all that failed."""

    mesh: Mesh
    by_policy_every: int = BY_POLICY_EVERY
    reasons: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    broken: int = 0
    is_over: bool = False

    @property
    def decided(self) -> int:
        """Answers that the server had a say in."""
        return self.reasons.total() - self.undecided

    @property
    def requests(self) -> int:
        """Everything sent that came to an end."""
        return self.reasons.total() + self.broken

    @property
    def undecided(self) -> int:
        """Answers of requests that no server decided: they went to the default provider."""
        return self.reasons[UNAVAILABLE]

    async def reaches(self, more: int, count: Callable[[], int], what: str) -> None:
        """Wait for so many more answers. Errors: AssertionError when they do not come."""
        wanted = count() + more
        try:
            async with asyncio.timeout(LIMIT_S):
                while count() < wanted:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{count()} of {wanted} {what}; failures: {self.failures[:5]}") from None

    async def decides(self, more: int = CONNECTIONS) -> None:
        await self.reaches(more, lambda: self.decided, "answers decided by the server")

    async def fails_open(self, more: int = CONNECTIONS) -> None:
        await self.reaches(more, lambda: self.undecided, "answers that no server decided")

    async def gives(self, reason: str, more: int = CONNECTIONS) -> None:
        await self.reaches(more, lambda: self.reasons[reason], f"answers with the reason {reason}")

    async def run_client(self, number: int) -> None:
        """Ask until it is over."""
        is_streamed = number % STREAMED_EVERY == 0
        is_large = number % LARGE_EVERY == 1
        body = chat(
            f"{CODING}, {number}",
            model="whatever" if number % self.by_policy_every == 0 else "vllm/coder",
            stream=is_streamed,
            padding=LARGE if is_large else "",
        )
        sent = json.dumps(body).encode()
        kind = "large" if is_large else "streamed" if is_streamed else "small"
        while not self.is_over:
            try:
                reply = await self.mesh.send(sent)
            except Exception as error:  # noqa: BLE001 - whatever it is, a client has seen it
                self.failures.append(f"{kind}: {type(error).__name__}: {error}")
                self.broken += 1
                continue
            if fault := _fault(reply, is_streamed=is_streamed):
                self.failures.append(f"{kind}: {fault}")
            self.reasons[reply.reason or "none"] += 1
            self.kinds[kind] += 1


def _fault(reply: Reply, *, is_streamed: bool) -> str | None:
    """What is wrong with an answer; None for a whole and good one."""
    if reply.status != 200:
        return f"status {reply.status}, {reply.body[:100]!r}"
    if is_streamed:
        return None if reply.body.endswith(b"data: [DONE]\n\n") else f"cut off: {reply.body[-100:]!r}"
    return None if json.loads(reply.body)["choices"] else "no choices"


@asynccontextmanager
async def under_load(
    mesh: Mesh, connections: int = CONNECTIONS, by_policy_every: int = BY_POLICY_EVERY
) -> AsyncIterator[Load]:
    """Keep so many requests in flight; let the last ones finish at the end."""
    for provider in mesh.providers.values():
        provider.behave.delay_s = MODEL_DELAY_S
    load = Load(mesh, by_policy_every)
    async with asyncio.TaskGroup() as clients:
        for number in range(connections):
            clients.create_task(load.run_client(number))
        try:
            yield load
        finally:
            load.is_over = True
    FINISHED.append((os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0], load))
