"""A rollout in a running mesh: its traffic, and what the admin API says of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import quote

from tests.support.mesh import LIMIT_S, Mesh

CLIENTS = 12
OVER = ("promoted", "aborted")

_sessions = count()


@dataclass
class Rollout:
    """One policy's rollout, over a mesh's admin API and with its traffic, which says `text`."""

    mesh: Mesh
    policy: str
    text: str
    answered: list[tuple[float, str | None, int]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.mesh.stack.admin_url}/rollouts/{quote(self.policy)}"

    async def show(self) -> dict[str, Any]:
        async with self.mesh.http.get(self.url) as answer:
            assert answer.status == 200, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found

    async def tell(self, verb: str, **fields: Any) -> dict[str, Any]:
        async with self.mesh.http.post(f"{self.url}/{verb}", json={"by": "a test", **fields}) as answer:
            assert answer.status == 200, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found

    async def events(self) -> list[dict[str, Any]]:
        async with self.mesh.http.get(f"{self.url}/history") as answer:
            found: list[dict[str, Any]] = (await answer.json())["events"]
            return found

    async def becomes(self, *phases: str, weight: float | None = None) -> dict[str, Any]:
        """Wait until it is in one of these phases, and at this weight if one is given."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                found = await self.show()
                current = found["current"]
                if current["phase"] in phases and weight in (None, current["weight"]):
                    return found
                await asyncio.sleep(0.05)

    async def ask(self, **fields: Any) -> None:
        """One request of a session of its own."""
        reply = await self.mesh.ask(self.text, session=f"session-{next(_sessions)}", **fields)
        assert (reply.policy, reply.reason) == (self.policy, "policy")
        self.answered.append((time.time(), reply.model, reply.status))

    @asynccontextmanager
    async def traffic(self, clients: int = CLIENTS) -> AsyncIterator[None]:
        """Clients that ask one request after the other."""

        async def work() -> None:
            while True:
                await self.ask()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for _ in range(clients)]
            yield
            for task in tasks:
                task.cancel()

    def to_canary(self) -> int:
        return sum(model == "vllm/next" for _, model, _ in self.answered)
