"""Where users' messages went, in this process's memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

from ext_proc.core.ports import Kept
from ext_proc.core.settings import MemorySettings


class MemorySessions:
    """Implements `core.ports.Sessions`: what was used last, each for a while after its last use."""

    def __init__(self, settings: MemorySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, Kept]] = OrderedDict()

    def configure(self, settings: MemorySettings) -> None:
        """Take other bounds. What is remembered stays, as far as it fits in."""
        self._settings = settings
        while len(self._kept) > settings.size:
            self._kept.popitem(last=False)

    def recall(self, key: bytes) -> Kept | None:
        key = _digest(key)
        entry = self._kept.get(key)
        if entry is None:
            return None
        expires, kept = entry
        if expires <= self._clock():
            del self._kept[key]
            return None
        self._touch(key, kept)
        return kept

    def keep(self, key: bytes, kept: Kept) -> None:
        if not self._settings.size:
            return
        self._touch(_digest(key), kept)
        while len(self._kept) > self._settings.size:
            self._kept.popitem(last=False)

    def _touch(self, key: bytes, kept: Kept) -> None:
        self._kept[key] = self._clock() + self._settings.ttl_s, kept
        self._kept.move_to_end(key)


def _digest(key: bytes) -> bytes:
    """A client's own ids may be long, and say who it is: neither is kept."""
    return blake2b(key, digest_size=16).digest()
