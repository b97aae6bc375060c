"""What every rollout store promises, as tests that a store's own test file collects by inheriting them."""

from __future__ import annotations

import asyncio

import pytest

from ext_proc.core.errors import StoreError, StoreFailure
from ext_proc.core.ports import RolloutStore, Stored


class StorePromises:
    """Needs a fixture `store`, and a fixture `other` that is a second client of the same store."""

    async def test_a_new_store_is_empty(self, store: RolloutStore) -> None:
        assert await store.load() == {}
        assert await store.history("coding", 10) == ()
        assert await store.receive() == ()
        assert await store.revision() == 0

    async def test_what_one_saves_the_other_reads(self, store: RolloutStore, other: RolloutStore) -> None:
        token = await store.acquire("a", 60) or 0
        assert await store.save("coding", '{"step": 1}', ("e1", "e2"), expected=0, token=token) == 1
        assert await store.save("coding", '{"step": 2}', ("e3",), expected=1, token=token) == 2
        assert await store.save("legal", "{}", (), expected=0, token=token) == 1
        assert await other.load() == {"coding": Stored('{"step": 2}', 2), "legal": Stored("{}", 1)}
        assert await other.history("coding", 10) == ("e1", "e2", "e3")
        assert await other.history("coding", 2) == ("e2", "e3")
        assert await other.history("legal", 10) == ()

    async def test_the_revision_changes_with_every_save(
        self, store: RolloutStore, other: RolloutStore
    ) -> None:
        token = await store.acquire("a", 60) or 0
        seen = [await other.revision()]
        for version in range(3):
            await store.save("coding", "{}", (), expected=version, token=token)
            seen.append(await other.revision())
        assert len(set(seen)) == 4

    async def test_a_save_over_another_version_changes_nothing(self, store: RolloutStore) -> None:
        token = await store.acquire("a", 60) or 0
        await store.save("coding", "first", ("e1",), expected=0, token=token)
        for expected in (0, 2):
            with pytest.raises(StoreError) as caught:
                await store.save("coding", "second", ("e2",), expected=expected, token=token)
            assert caught.value.failure is StoreFailure.CONFLICT
        assert await store.load() == {"coding": Stored("first", 1)}
        assert await store.history("coding", 10) == ("e1",)

    async def test_one_holds_the_lease_until_it_gives_it_back(
        self, store: RolloutStore, other: RolloutStore
    ) -> None:
        token = await store.acquire("a", 60)
        assert token is not None
        assert await other.acquire("b", 60) is None
        assert await store.acquire("a", 60) == token
        await other.release("b")
        assert await other.acquire("b", 60) is None
        await store.release("a")
        later = await other.acquire("b", 60)
        assert later is not None
        assert later > token

    async def test_a_lease_that_is_not_renewed_goes_to_another(
        self, store: RolloutStore, other: RolloutStore
    ) -> None:
        token = await store.acquire("a", 0.05)
        assert token is not None
        async with asyncio.timeout(30):
            while (later := await other.acquire("b", 60)) is None:
                await asyncio.sleep(0.01)
        assert later > token
        assert await store.acquire("a", 60) is None

    async def test_who_lost_the_lease_writes_nothing(self, store: RolloutStore, other: RolloutStore) -> None:
        token = await store.acquire("a", 60) or 0
        await store.release("a")
        await other.acquire("b", 60)
        with pytest.raises(StoreError) as caught:
            await store.save("coding", "late", ("late",), expected=0, token=token)
        assert caught.value.failure is StoreFailure.FENCED
        assert await other.load() == {}

    async def test_messages_arrive_once_and_in_order(self, store: RolloutStore, other: RolloutStore) -> None:
        await other.send("one")
        await store.send("two")
        assert await store.receive() == ("one", "two")
        assert await other.receive() == ()
        await other.send("three")
        assert await store.receive() == ("three",)

    async def test_a_name_may_hold_anything(self, store: RolloutStore) -> None:
        token = await store.acquire("a", 60) or 0
        policy = 'it\'s {a} "policy": 100 % -- ; *'
        await store.save(policy, "ünïcode\n", (policy,), expected=0, token=token)
        assert await store.load() == {policy: Stored("ünïcode\n", 1)}
        assert await store.history(policy, 1) == (policy,)
