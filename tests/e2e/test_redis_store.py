"""The Redis store against a real Redis: its promises, and what a Redis that is gone, hung or full means."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from demo.processes import free_port
from ext_proc.core.errors import StoreError, StoreFailure
from ext_proc.core.ports import Stored
from ext_proc.core.types import Secret
from ext_proc.rollouts import redis_store
from ext_proc.rollouts.redis_store import RedisStore
from tests.support.redis_server import RedisServer, running_redis
from tests.support.store_promises import StorePromises


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with running_redis(tmp_path) as server:
        yield server


@pytest_asyncio.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(Secret(server.url), "mesh")
    yield store
    await store.close()


@pytest_asyncio.fixture
async def other(server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(Secret(server.url), "mesh")
    yield store
    await store.close()


class TestPromises(StorePromises):
    pass


async def failure_of(store: RedisStore) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await store.save("coding", "{}", (), expected=0, token=1)
    return caught.value


async def test_meshes_that_share_a_redis_do_not_meet(server: RedisServer, store: RedisStore) -> None:
    token = await store.acquire("a", 60) or 0
    await store.save("coding", "{}", (), expected=0, token=token)
    elsewhere = RedisStore(Secret(server.url), "another mesh")
    assert await elsewhere.load() == {}
    assert await elsewhere.acquire("b", 60) is not None
    await elsewhere.close()


async def test_no_redis_is_a_failure_that_names_no_password() -> None:
    store = RedisStore(Secret(f"redis://user:the-password@127.0.0.1:{free_port()}/0"), "mesh")
    error = await failure_of(store)
    assert error.failure is StoreFailure.UNREACHABLE
    assert "the-password" not in f"{error} {error.__cause__!r}"
    await store.close()


async def test_a_redis_that_comes_back_is_used_again(tmp_path: Path) -> None:
    port = free_port()
    store = RedisStore(Secret(f"redis://127.0.0.1:{port}/0"), "mesh")
    async with running_redis(tmp_path, port):
        token = await store.acquire("a", 60) or 0
        assert await store.save("coding", "{}", (), expected=0, token=token) == 1
    assert (await failure_of(store)).failure is StoreFailure.UNREACHABLE
    async with running_redis(tmp_path, port):
        assert await store.load() == {}
    await store.close()


async def test_a_redis_that_hangs_costs_its_caller_a_bounded_time(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "CALL_S", 0.1)
    store = RedisStore(Secret(server.url), "mesh")
    assert await store.load() == {}
    server.process.send_signal(signal.SIGSTOP)
    assert (await failure_of(store)).failure is StoreFailure.TIMEOUT
    server.process.send_signal(signal.SIGCONT)
    monkeypatch.setattr(redis_store, "CALL_S", 30.0)
    async with asyncio.timeout(30):
        # What was asked while it hung may still be done: a save is one of two things, done or not.
        assert await store.load() in ({}, {"coding": Stored("{}", 1)})
    await store.close()


async def test_a_full_redis_is_a_failure(server: RedisServer, store: RedisStore) -> None:
    await store._redis.config_set("maxmemory", "1")
    assert (await failure_of(store)).failure is StoreFailure.FULL
    assert await store.load() == {}


async def test_a_replica_of_redis_that_takes_no_writes_is_a_failure(store: RedisStore) -> None:
    await store._redis.replicaof("127.0.0.1", free_port())
    assert (await failure_of(store)).failure is StoreFailure.READ_ONLY


async def test_the_events_and_messages_kept_are_bounded(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "MAX_EVENTS", 3)
    monkeypatch.setattr(redis_store, "MAX_MESSAGES", 2)
    token = await store.acquire("a", 60) or 0
    for version in range(5):
        await store.save("coding", "{}", (f"e{version}",), expected=version, token=token)
    assert await store.history("coding", 100) == ("e2", "e3", "e4")
    for number in range(5):
        await store.send(f"m{number}")
    assert await store.receive() == ("m3", "m4")
