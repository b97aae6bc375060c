"""The store that the file names, and the name this process writes under."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from pathlib import Path

from ext_proc.core.errors import StoreError
from ext_proc.core.ports import RolloutStore, Stored
from ext_proc.core.rollout_json import StateError
from ext_proc.core.rollout_settings import MEMORY_STORE, PolicyRollout, RolloutSettings
from ext_proc.rollouts.report import where
from ext_proc.rollouts.sqlite_store import MEMORY, SqliteStore
from ext_proc.rollouts.tracked import FORGOTTEN, read_document


def open_store(settings: RolloutSettings, *, read_only: bool = False) -> RolloutStore:
    """The store. Nothing is opened before it is asked something."""
    place = settings.store.reveal()
    if is_redis(place):
        # Only whoever has a Redis needs its client.
        from ext_proc.rollouts.redis_store import RedisStore  # noqa: PLC0415

        return RedisStore(settings.store, settings.namespace)
    return SqliteStore(MEMORY if place == MEMORY_STORE else place, read_only=read_only)


def has_something(settings: RolloutSettings) -> bool:
    """Whether there are rollouts, or a store that may still know of some that left the file."""
    place = settings.store.reveal()
    return bool(settings.policies) or is_redis(place) or (place != MEMORY_STORE and Path(place).is_file())


async def standings(settings: RolloutSettings) -> tuple[str, ...]:
    """Where the file's rollouts stand, a line each, as far as the store can be read. Changes nothing."""
    place = settings.store.reveal()
    if not settings.policies or place == MEMORY_STORE:
        return ()
    if not is_redis(place) and not await asyncio.to_thread(Path(place).exists):
        return tuple(f'rollout of "{policy}": not started yet' for policy in settings.policies)
    store = open_store(settings, read_only=True)
    try:
        stored = await store.load()
    except StoreError as error:
        return (f"rollouts: the store cannot be read ({error.failure})",)
    finally:
        await store.close()
    return tuple(
        _standing(policy, rollout, stored.get(policy)) for policy, rollout in settings.policies.items()
    )


def _standing(policy: str, rollout: PolicyRollout, stored: Stored | None) -> str:
    name = f'rollout of "{policy}"'
    if stored is None or stored.document == FORGOTTEN:
        return f"{name}: not started yet"
    try:
        state, exposed = read_document(stored.document)
    except StateError as error:
        return f"{name}: its stored state cannot be read: {error}"
    line = f"{name}: {where(state, len(rollout.plan.steps))}, {exposed} answers exposed"
    if state.target != rollout.plan.target:
        line += f"; the file names {rollout.plan.target}, which begins a new one"
    return line


def is_redis(place: str) -> bool:
    return "://" in place


def holder() -> str:
    """A name that no other process has, nor this one after a restart."""
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
