"""Rollouts in Redis, for replicas on several machines. Implements `core.ports.RolloutStore`.

What must happen as one is a Lua script, which Redis runs by itself. All keys share a hash tag, so that
they lie on one node of a cluster. Leases end by Redis' own clock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping
from typing import Any, cast

import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ext_proc.core.errors import StoreError, StoreFailure
from ext_proc.core.ports import Stored
from ext_proc.core.types import Secret

CONNECT_S = 1.0
CALL_S = 2.0
"""How long a caller waits for any call, connecting included."""

MAX_EVENTS = 10_000
MAX_MESSAGES = 1_000

_CONFLICT, _FENCED = -1, -2

_SAVE = """
if tonumber(ARGV[4]) < tonumber(redis.call('GET', KEYS[4]) or '0') then return -2 end
local version = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if version ~= tonumber(ARGV[3]) then return -1 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], version + 1)
for i = 6, #ARGV do redis.call('RPUSH', KEYS[5], ARGV[i]) end
redis.call('LTRIM', KEYS[5], -tonumber(ARGV[5]), -1)
redis.call('INCR', KEYS[3])
return version + 1
"""
_LOAD = "return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}"
_ACQUIRE = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return tonumber(redis.call('GET', KEYS[2]) or '0')
end
if holder then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('INCR', KEYS[2])
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 0"
_SEND = """
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
return 0
"""
_RECEIVE = """
local messages = redis.call('LRANGE', KEYS[1], 0, -1)
redis.call('DEL', KEYS[1])
return messages
"""

_FAILURES: tuple[tuple[type[Exception], StoreFailure], ...] = (
    (exceptions.ReadOnlyError, StoreFailure.READ_ONLY),
    (exceptions.OutOfMemoryError, StoreFailure.FULL),
    (exceptions.BusyLoadingError, StoreFailure.LOCKED),
    (exceptions.TimeoutError, StoreFailure.TIMEOUT),
    (exceptions.ConnectionError, StoreFailure.UNREACHABLE),
    (OSError, StoreFailure.UNREACHABLE),
)


class RedisStore:
    """`namespace` keeps apart the meshes that share one Redis."""

    def __init__(self, url: Secret, namespace: str) -> None:
        # No retries of its own: the controller asks again anyway, and says meanwhile what is wrong.
        self._redis: Any = redis.asyncio.Redis.from_url(
            url.reveal(),
            socket_timeout=CALL_S,
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        prefix = f"arch-ext-proc:{{{namespace}}}:rollouts"
        self._states, self._versions = f"{prefix}:states", f"{prefix}:versions"
        self._revision, self._token = f"{prefix}:revision", f"{prefix}:token"
        self._lease, self._messages = f"{prefix}:lease", f"{prefix}:messages"
        self._history = f"{prefix}:history:"

    async def load(self) -> Mapping[str, Stored]:
        states, versions = await self._run(_LOAD, (self._states, self._versions))
        numbers = dict(_pairs(versions))
        return {policy: Stored(document, int(numbers[policy])) for policy, document in _pairs(states)}

    async def save(
        self, policy: str, document: str, events: tuple[str, ...], *, expected: int, token: int
    ) -> int:
        keys = (self._states, self._versions, self._revision, self._token, self._history + policy)
        version = int(await self._run(_SAVE, keys, policy, document, expected, token, MAX_EVENTS, *events))
        if version == _FENCED:
            raise StoreError(StoreFailure.FENCED, "another replica has the lease")
        if version == _CONFLICT:
            raise StoreError(StoreFailure.CONFLICT, "the state was changed by somebody else")
        return version

    async def history(self, policy: str, limit: int) -> tuple[str, ...]:
        return tuple(await self._do(self._redis.lrange(self._history + policy, -limit, -1)))

    async def revision(self) -> int:
        return int(await self._do(self._redis.get(self._revision)) or 0)

    async def acquire(self, holder: str, ttl_s: float) -> int | None:
        token = await self._run(_ACQUIRE, (self._lease, self._token), holder, round(ttl_s * 1000))
        return int(token) or None

    async def release(self, holder: str) -> None:
        await self._run(_RELEASE, (self._lease,), holder)

    async def send(self, message: str) -> None:
        await self._run(_SEND, (self._messages,), message, MAX_MESSAGES)

    async def receive(self) -> tuple[str, ...]:
        return tuple(await self._run(_RECEIVE, (self._messages,)))

    async def close(self) -> None:
        with contextlib.suppress(StoreError):
            await self._do(self._redis.aclose())

    async def _run(self, script: str, keys: tuple[str, ...], *arguments: str | int) -> Any:
        return await self._do(cast(Awaitable[Any], self._redis.eval(script, len(keys), *keys, *arguments)))

    async def _do(self, command: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(CALL_S):
                return await command
        except TimeoutError:
            raise StoreError(StoreFailure.TIMEOUT, f"Redis did not answer within {CALL_S:g} s") from None
        except (exceptions.RedisError, OSError) as error:
            failure = next((failure for kind, failure in _FAILURES if isinstance(error, kind)), None)
            # The type alone: a text could quote the URL, and with it a password.
            raise StoreError(failure or StoreFailure.OTHER, type(error).__name__) from error


def _pairs(flat: list[str]) -> list[tuple[str, str]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
