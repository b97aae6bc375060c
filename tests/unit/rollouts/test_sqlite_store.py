"""The SQLite store: its promises, and what a damaged, locked, full or missing file means."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ext_proc.core.errors import StoreError, StoreFailure
from ext_proc.core.ports import Stored
from ext_proc.rollouts import sqlite_store
from ext_proc.rollouts.sqlite_store import MEMORY, SqliteStore
from tests.support.store_promises import StorePromises


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "rollouts.sqlite"


@pytest_asyncio.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(file))
    yield store
    await store.close()


@pytest_asyncio.fixture
async def other(file: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(file))
    yield store
    await store.close()


class TestPromises(StorePromises):
    pass


async def saved(store: SqliteStore, document: str = "{}", expected: int = 0) -> int:
    token = await store.acquire("a", 60)
    return await store.save("coding", document, ("event",), expected=expected, token=token or 0)


async def failure_of(store: SqliteStore, expected: int = 0) -> StoreFailure:
    with pytest.raises(StoreError) as caught:
        await saved(store, expected=expected)
    return caught.value.failure


async def test_it_is_there_after_a_restart(file: Path) -> None:
    first = SqliteStore(str(file))
    await saved(first, "kept")
    await first.close()
    second = SqliteStore(str(file))
    assert await second.load() == {"coding": Stored("kept", 1)}
    await second.close()


async def test_memory_needs_no_file() -> None:
    store = SqliteStore(MEMORY)
    await saved(store, "kept")
    assert await store.load() == {"coding": Stored("kept", 1)}
    await store.close()


async def test_a_file_that_is_no_database_is_left_alone_and_used_when_repaired(
    store: SqliteStore, file: Path
) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database" * 100)
    assert await failure_of(store) is StoreFailure.CORRUPT
    assert file.read_bytes() == b"not a database" * 100
    file.unlink()
    assert await saved(store) == 1


async def test_a_damaged_page_is_a_failure(file: Path) -> None:
    store = SqliteStore(str(file))
    for version in range(50):
        await saved(store, "x" * 1_000, expected=version)
    await store.close()
    damaged = bytearray(file.read_bytes())
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)
    file.write_bytes(damaged)
    again = SqliteStore(str(file))
    assert await failure_of(again, expected=50) is StoreFailure.CORRUPT
    await again.close()


async def test_a_lock_that_stays_is_a_failure_and_passes(
    store: SqliteStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "BUSY_S", 0.05)
    await saved(store)
    store._disconnect()
    with sqlite3.connect(file, isolation_level=None) as holding:
        holding.execute("BEGIN IMMEDIATE")
        assert await failure_of(store, expected=1) is StoreFailure.LOCKED
        assert await store.load() == {"coding": Stored("{}", 1)}
        holding.execute("ROLLBACK")
    holding.close()
    assert await saved(store, expected=1) == 2


async def test_a_full_disk_is_a_failure_and_nothing_is_half_written(store: SqliteStore) -> None:
    await saved(store)
    assert store._connection is not None
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    token = await store.acquire("a", 60) or 0
    with pytest.raises(StoreError) as caught:
        await store.save("coding", "x" * 100_000, ("late",), expected=1, token=token)
    assert caught.value.failure is StoreFailure.FULL
    assert await store.history("coding", 10) == ("event",)
    assert await saved(store, "x" * 100_000, expected=1) == 2


async def test_a_file_that_was_removed_is_made_anew(store: SqliteStore, file: Path) -> None:
    await saved(store)
    for path in file.parent.iterdir():
        path.unlink()
    assert await store.load() == {}
    assert await saved(store) == 1


async def test_no_folder_can_be_made_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = SqliteStore(str(tmp_path / "file" / "state.sqlite"))
    assert await failure_of(store) is StoreFailure.UNREACHABLE
    await store.close()


async def test_a_file_of_a_later_version_is_not_touched(file: Path) -> None:
    store = SqliteStore(str(file))
    await saved(store)
    await store.close()
    with sqlite3.connect(file) as later:
        later.execute("PRAGMA user_version = 99")
    later.close()
    again = SqliteStore(str(file))
    assert await failure_of(again) is StoreFailure.OTHER
    await again.close()


async def test_a_lease_from_a_clock_that_was_set_back_ends(file: Path) -> None:
    now = 1_000_000.0
    ahead, behind = SqliteStore(str(file), lambda: now + 86_400), SqliteStore(str(file), lambda: now)
    assert await ahead.acquire("a", 5) is not None
    assert await behind.acquire("b", 5) is not None
    await ahead.close()
    await behind.close()


async def test_a_call_that_hangs_costs_its_caller_a_bounded_time(
    store: SqliteStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await saved(store)
    # The lock stands in for a disk that hangs: SQLite waits for it longer than the caller does.
    monkeypatch.setattr(sqlite_store, "CALL_S", 0.01)
    with sqlite3.connect(file, isolation_level=None) as holding:
        holding.execute("BEGIN IMMEDIATE")
        assert await failure_of(store, expected=1) is StoreFailure.TIMEOUT
        holding.execute("ROLLBACK")
    holding.close()
    monkeypatch.setattr(sqlite_store, "CALL_S", 30.0)
    assert await store.load() == {"coding": Stored("{}", 1)}


async def test_the_events_and_messages_kept_are_bounded(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "MAX_EVENTS", 3)
    monkeypatch.setattr(sqlite_store, "MAX_MESSAGES", 2)
    token = await store.acquire("a", 60) or 0
    await store.save("legal", "{}", ("kept",), expected=0, token=token)
    for version in range(5):
        await store.save("coding", "{}", (f"e{version}",), expected=version, token=token)
    assert await store.history("coding", 100) == ("e2", "e3", "e4")
    assert await store.history("legal", 100) == ("kept",)
    for number in range(5):
        await store.send(f"m{number}")
    assert await store.receive() == ("m3", "m4")
