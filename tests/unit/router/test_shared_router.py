"""A router with several users."""

from __future__ import annotations

from ext_proc.core.types import Message, Policy, Scores
from ext_proc.router.shared import SharedRouter

ONE, OTHER = (Policy("a", "a"),), (Policy("b", "b"),)


class Kept:
    """A router that remembers what was done to it."""

    def __init__(self) -> None:
        self.done: list[object] = []

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        self.done.append(("prepared", policies))

    async def forget(self, policies: tuple[Policy, ...]) -> None:
        self.done.append(("forgot", policies))

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        return Scores((1.0,) * len(policies), 0.0)

    async def close(self) -> None:
        self.done.append("closed")


async def test_each_user_takes_its_policies_along_and_the_last_the_router() -> None:
    router = Kept()
    first = SharedRouter(router)
    await first.prepare(ONE)
    second = first.shared()
    await second.prepare(OTHER)
    await first.close()
    assert router.done == [("prepared", ONE), ("prepared", OTHER), ("forgot", ONE)]
    assert await second.score((), OTHER) == Scores((1.0,), 0.0)
    await second.close()
    assert router.done[3:] == ["closed"]


async def test_one_that_prepared_nothing_is_forgotten_silently() -> None:
    router = Kept()
    first = SharedRouter(router)
    await first.shared().close()
    assert router.done == []
