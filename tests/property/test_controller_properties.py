"""Whatever fails and dies in whatever order: no replica gives a canary more than the store was told of."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ext_proc.core.errors import StoreError, StoreFailure
from ext_proc.core.rollout_types import Command, Phase, Verb
from ext_proc.rollouts.sqlite_store import SqliteStore
from tests.support.replicas import POLICY, Replica, a_plan, a_replica

REPLICAS = st.sampled_from("ab")
TURNS = st.tuples(st.just("turn"), REPLICAS)
"""Most of what happens, or nothing would come of the rest."""

OPERATIONS = st.one_of(
    TURNS,
    TURNS,
    st.tuples(st.sampled_from(["good", "bad", "die"]), REPLICAS),
    st.tuples(st.sampled_from(list(Verb)), REPLICAS),
    st.tuples(st.sampled_from(["before", "after"]), st.sampled_from(["save", "acquire", "send"])),
    st.tuples(st.just("mend"), st.just("")),
)


class Failing:
    """A store whose methods fail as `faults` says: before they did anything, or after they did it."""

    def __init__(self, path: Path, faults: dict[str, str]) -> None:
        self._store = SqliteStore(str(path))
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            if self._faults.get(name) == "before":
                raise StoreError(StoreFailure.UNREACHABLE, name)
            result = await method(*arguments, **options)
            if self._faults.get(name) == "after":
                raise StoreError(StoreFailure.TIMEOUT, name)
            return result

        return call


class World:
    """Two replicas on one store, which may fail, and they may die."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "rollouts.sqlite"
        self._looking = SqliteStore(str(self._file))
        self._now = [1_000.0]
        self._starts = 0
        self.faults: dict[str, str] = {}
        self.replicas: dict[str, Replica] = {}
        self.ever_stored = {0}
        for name in "ab":
            self._start(name)

    def _start(self, name: str) -> None:
        self._starts += 1
        # A lease so short that whoever dies is replaced at the other's next turn.
        self.replicas[name] = a_replica(
            Failing(self._file, self.faults),
            a_plan(),
            name=f"{name}{self._starts}",
            lease_s=0.001,
            now=self._now,
        )

    async def stored_weight(self) -> int:
        stored = (await self._looking.load()).get(POLICY)
        return 0 if stored is None else int(json.loads(stored.document)["state"]["weight_per_10k"])

    async def do(self, what: str, who: str) -> None:
        match what:
            case "turn":
                await self.replicas[who].turns()
            case "good":
                self.replicas[who].answers(3)
            case "bad":
                self.replicas[who].answers(3, status=500)
            case "die":
                await self.replicas[who].controller.stop()
                self._start(who)
            case "before" | "after":
                self.faults[who] = what
            case "mend":
                self.faults.clear()
            case Verb():
                command = Command(what, full=what is Verb.PROMOTE)
                self.replicas[who].controller.rollouts[POLICY].pending.commands.append(command)
        self.ever_stored.add(await self.stored_weight())

    async def end(self) -> None:
        for one in self.replicas.values():
            await one.controller.stop()
        await self._looking.close()


async def live(operations: list[tuple[str, str]], folder: Path) -> None:
    world = World(folder)
    try:
        for what, who in operations:
            await world.do(what, who)
            for one in world.replicas.values():
                assert one.weight in world.ever_stored
                if one.controller.rollouts[POLICY].pending.breach is not None:
                    assert one.weight == 0
        await world.do("mend", "")
        for _ in range(4):
            for name in "ab":
                await world.do("turn", name)
        one, other = world.replicas.values()
        assert one.weight == other.weight == await world.stored_weight()
        assert one.state.phase is other.state.phase
        assert one.weight == 0 or one.state.phase is not Phase.ABORTED
    finally:
        await world.end()


@settings(max_examples=40, deadline=None)
@given(st.lists(OPERATIONS, min_size=10, max_size=30))
def test_no_canary_gets_more_than_the_store_was_told_of(operations: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(operations, Path(folder)))
