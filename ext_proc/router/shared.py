"""A router that configurations hand on: loading a model anew for another policy's text would take minutes."""

from __future__ import annotations

from ext_proc.core.ports import Router
from ext_proc.core.types import Message, Policy, Scores


class SharedRouter:
    """One user's hold on a router; implements `core.ports.Router`.

    What it has prepared the router forgets when it is closed, and the last one to close closes the router.
    """

    def __init__(self, router: Router, users: set[SharedRouter] | None = None) -> None:
        self._router = router
        self._users = set() if users is None else users
        self._users.add(self)
        self._prepared: tuple[Policy, ...] | None = None

    def shared(self) -> SharedRouter:
        """The same router for one more user."""
        return SharedRouter(self._router, self._users)

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        self._prepared = policies
        await self._router.prepare(policies)

    async def forget(self, policies: tuple[Policy, ...]) -> None:
        await self._router.forget(policies)

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        return await self._router.score(messages, policies)

    async def close(self) -> None:
        self._users.discard(self)
        if not self._users:
            await self._router.close()
        elif self._prepared is not None:
            await self._router.forget(self._prepared)
