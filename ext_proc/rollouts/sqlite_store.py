"""Rollouts in an SQLite file, for the processes of one machine. Implements `core.ports.RolloutStore`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from ext_proc.core.errors import StoreError, StoreFailure
from ext_proc.core.ports import Stored

MEMORY = ":memory:"
"""Instead of a path: nothing is kept beyond this process."""

BUSY_S = 1.0
"""How long SQLite waits for another process's write."""

CALL_S = 3.0
"""How long a caller waits for any call, a disk that hangs included."""

MAX_LEASE_S = 300.0
"""No lease is longer: the bound of `rollouts.lease` in the file."""

MAX_EVENTS = 10_000
MAX_MESSAGES = 1_000
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS states (policy TEXT PRIMARY KEY, document TEXT NOT NULL, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, policy TEXT NOT NULL, event TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_of_a_policy ON events (policy, id);
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, message TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS lease (one INTEGER PRIMARY KEY CHECK (one = 1), holder TEXT NOT NULL,
                                  token INTEGER NOT NULL, expires REAL NOT NULL);
CREATE TABLE IF NOT EXISTS revision (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL);
INSERT OR IGNORE INTO lease VALUES (1, '', 0, 0);
INSERT OR IGNORE INTO revision VALUES (1, 0);
"""

_FAILURES: Mapping[int, StoreFailure] = {
    sqlite3.SQLITE_BUSY: StoreFailure.LOCKED,
    sqlite3.SQLITE_LOCKED: StoreFailure.LOCKED,
    sqlite3.SQLITE_FULL: StoreFailure.FULL,
    sqlite3.SQLITE_CORRUPT: StoreFailure.CORRUPT,
    sqlite3.SQLITE_NOTADB: StoreFailure.CORRUPT,
    sqlite3.SQLITE_READONLY: StoreFailure.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: StoreFailure.UNREACHABLE,
    sqlite3.SQLITE_IOERR: StoreFailure.UNREACHABLE,
}

T = TypeVar("T")


class SqliteStore:
    """One connection in a thread of its own, opened when first needed and again after any failure.

    So a file that is repaired, moved back or gets room again is used again without a restart. `clock`
    gives seconds since the epoch: leases are between processes that share it.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.time, *, read_only: bool = False) -> None:
        self._path = path
        self._read_only = read_only
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._thread = ThreadPoolExecutor(1, "rollout-store")

    async def load(self) -> Mapping[str, Stored]:
        return await self._call(_load)

    async def save(
        self, policy: str, document: str, events: tuple[str, ...], *, expected: int, token: int
    ) -> int:
        return await self._call(partial(_save, policy, document, events, expected, token))

    async def history(self, policy: str, limit: int) -> tuple[str, ...]:
        return await self._call(partial(_history, policy, limit))

    async def revision(self) -> int:
        return await self._call(_revision)

    async def acquire(self, holder: str, ttl_s: float) -> int | None:
        return await self._call(partial(_acquire, holder, ttl_s, self._clock))

    async def release(self, holder: str) -> None:
        await self._call(partial(_release, holder))

    async def send(self, message: str) -> None:
        await self._call(partial(_send, message))

    async def receive(self) -> tuple[str, ...]:
        return await self._call(_receive)

    async def close(self) -> None:
        # Behind whatever still runs, but no longer than any call: a disk may hang.
        if self._connection is not None:
            closed = self._thread.submit(self._connection.close)
            await asyncio.wait([asyncio.wrap_future(closed)], timeout=CALL_S)
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CALL_S):
                return await loop.run_in_executor(self._thread, self._do, work)
        except TimeoutError:
            raise StoreError(StoreFailure.TIMEOUT, f"the file did not answer within {CALL_S:g} s") from None

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._connected())
        except sqlite3.Error as error:
            self._disconnect()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            raise StoreError(_FAILURES.get(code, StoreFailure.OTHER), str(error)) from error
        except OSError as error:
            self._disconnect()
            raise StoreError(StoreFailure.UNREACHABLE, error.strerror or type(error).__name__) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._path != MEMORY and _inode(self._path) != self._inode:
            # The file was removed or replaced: what is written to the old one, nobody would ever read.
            self._disconnect()
        if self._connection is None:
            where = self._path
            if self._read_only:
                where = f"{Path(self._path).absolute().as_uri()}?mode=ro"
            elif self._path != MEMORY:
                Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                where, timeout=BUSY_S, isolation_level=None, check_same_thread=False, uri=self._read_only
            )
            try:
                if not self._read_only:
                    _prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            self._inode = _inode(self._path)
        return self._connection

    def _disconnect(self) -> None:
        # What is in memory would be gone with its connection.
        if self._connection is not None and self._path != MEMORY:
            self._connection.close()
            self._connection = None


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def _prepare(connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > SCHEMA_VERSION:
        raise StoreError(StoreFailure.OTHER, f"the file is of a later version ({found})")
    # Readers do not wait for the writer. Where a file system cannot do that, SQLite keeps its old way.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if found < SCHEMA_VERSION:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _load(connection: sqlite3.Connection) -> Mapping[str, Stored]:
    rows = connection.execute("SELECT policy, document, version FROM states")
    return {policy: Stored(document, version) for policy, document, version in rows}


def _save(
    policy: str,
    document: str,
    events: tuple[str, ...],
    expected: int,
    token: int,
    connection: sqlite3.Connection,
) -> int:
    with _transaction(connection):
        (given,) = connection.execute("SELECT token FROM lease").fetchone()
        if token < given:
            raise StoreError(StoreFailure.FENCED, "another replica has the lease")
        row = connection.execute("SELECT version FROM states WHERE policy = ?", (policy,)).fetchone()
        if (row[0] if row else 0) != expected:
            raise StoreError(StoreFailure.CONFLICT, "the state was changed by somebody else")
        connection.execute(
            "INSERT INTO states VALUES (?, ?, ?) ON CONFLICT (policy)"
            " DO UPDATE SET document = excluded.document, version = excluded.version",
            (policy, document, expected + 1),
        )
        connection.executemany(
            "INSERT INTO events (policy, event) VALUES (?, ?)", [(policy, event) for event in events]
        )
        connection.execute(
            "DELETE FROM events WHERE policy = ?1 AND id <= (SELECT id FROM events WHERE policy = ?1"
            f" ORDER BY id DESC LIMIT 1 OFFSET {MAX_EVENTS})",
            (policy,),
        )
        connection.execute("UPDATE revision SET number = number + 1")
    return expected + 1


def _history(policy: str, limit: int, connection: sqlite3.Connection) -> tuple[str, ...]:
    rows = connection.execute(
        "SELECT event FROM events WHERE policy = ? ORDER BY id DESC LIMIT ?", (policy, limit)
    ).fetchall()
    return tuple(event for (event,) in reversed(rows))


def _revision(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("SELECT number FROM revision").fetchone()
    return int(number)


def _acquire(
    holder: str, ttl_s: float, clock: Callable[[], float], connection: sqlite3.Connection
) -> int | None:
    with _transaction(connection):
        now = clock()
        last, token, expires = connection.execute("SELECT holder, token, expires FROM lease").fetchone()
        # A lease that ends later than any could was given by a clock that has since been set back.
        is_free = last == holder or not now < expires <= now + MAX_LEASE_S
        if not is_free:
            return None
        given: int = token + (last != holder)
        connection.execute(
            "UPDATE lease SET holder = ?, token = ?, expires = ?", (holder, given, now + ttl_s)
        )
    return given


def _release(holder: str, connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE lease SET holder = '', expires = 0 WHERE holder = ?", (holder,))


def _send(message: str, connection: sqlite3.Connection) -> None:
    with _transaction(connection):
        connection.execute("INSERT INTO messages (message) VALUES (?)", (message,))
        connection.execute(
            "DELETE FROM messages WHERE id <= (SELECT max(id) FROM messages) - ?", (MAX_MESSAGES,)
        )


def _receive(connection: sqlite3.Connection) -> tuple[str, ...]:
    # Most often there is none, and looking locks nobody out.
    if connection.execute("SELECT 1 FROM messages LIMIT 1").fetchone() is None:
        return ()
    with _transaction(connection):
        rows = connection.execute("SELECT message FROM messages ORDER BY id").fetchall()
        connection.execute("DELETE FROM messages")
    return tuple(message for (message,) in rows)
