"""Notices that files may have changed: written in place, renamed over, or reached by a link that was turned.

A Kubernetes ConfigMap or secret is mounted as links through a folder `..data`, which is itself a link that
turns to a new folder at each change. So not the files are watched but the folders of every link on the way to
them, for the names that matter there. What no event tells of (a network's file system, a machine without
watches left, a folder that was replaced) is found by looking again now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Collection
from pathlib import Path

from watchfiles import Change, awatch

QUIET_MS = 200
"""A file that is being written is left alone until nothing has happened to it for so long."""
MOST_MS = 2_000
"""But not for longer than this."""
LOOK_S = 5.0
"""How often somebody looks whether an event was missed."""
_MAX_LINKS = 40
"""Linux gives up after so many."""


async def changes(files: Callable[[], Collection[Path]], stop: asyncio.Event) -> AsyncGenerator[None, None]:
    """Yield whenever the files should be looked at, until `stop`. `files` is asked anew each time."""
    while not stop.is_set():
        ways = await asyncio.to_thread(ways_to, files())
        try:
            async with contextlib.aclosing(_events(ways, stop)) as events:
                async for _ in events:
                    yield
                    if await asyncio.to_thread(ways_to, files()) != ways:
                        break
        except (OSError, RuntimeError):
            # There is nothing to watch, or it cannot be watched.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)
            yield


def ways_to(files: Collection[Path]) -> frozenset[tuple[Path, int]]:
    """Every entry of a folder that leads to one of the files, with its folder's inode: 0 for none."""
    return frozenset((entry, _inode(entry.parent)) for file in files for entry in _way_to(file))


def _way_to(file: Path) -> set[Path]:
    found: set[Path] = set()
    file = Path(os.path.abspath(file))
    at, rest, links = Path(file.anchor), list(file.parts[1:]), 0
    while rest:
        entry = Path(os.path.normpath(at / rest.pop(0)))
        try:
            target = Path(os.readlink(entry))
        except (OSError, ValueError):
            # It is no link, or no name that a file could have.
            at = entry
            continue
        found.add(entry)
        links += 1
        if links > _MAX_LINKS:
            return found
        if target.is_absolute():
            at, rest = Path(target.anchor), [*target.parts[1:], *rest]
        else:
            rest = [*target.parts, *rest]
    return found | {at}


def _inode(folder: Path) -> int:
    try:
        return folder.stat().st_ino
    except (OSError, ValueError):
        return 0


async def _events(ways: frozenset[tuple[Path, int]], stop: asyncio.Event) -> AsyncGenerator[None, None]:
    """Errors: OSError, RuntimeError when nothing can be watched."""
    names = {str(entry) for entry, _ in ways}
    folders = {str(entry.parent) for entry, inode in ways if inode}
    if not folders:
        raise FileNotFoundError("none of the folders is there")

    def matters(_: Change, path: str) -> bool:
        return path in names

    watching = awatch(
        *folders,
        watch_filter=matters,
        debounce=MOST_MS,
        step=QUIET_MS,
        stop_event=stop,
        rust_timeout=round(LOOK_S * 1000),
        yield_on_timeout=True,
        recursive=False,
    )
    async with contextlib.aclosing(watching):
        async for _ in watching:
            yield
