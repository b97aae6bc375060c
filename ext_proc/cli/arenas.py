"""glibc's memory arenas, kept few."""

from __future__ import annotations

import ctypes
import os

MOST = 2
"""One for the event loop, one for all other threads. glibc allows eight per core."""

_M_ARENA_MAX = -8
"""Source: malloc.h of glibc."""


def keep_arenas_few() -> None:
    """Call it before the first thread starts; an operator's own `MALLOC_ARENA_MAX` stands.

    gRPC's threads take turns in reading what Envoy sends. Each would get an arena of its own, in which the
    largest bodies that it ever read leave some megabytes that no other thread uses (ADR 0045).
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, MOST)
    except (OSError, AttributeError):
        # Another libc: it has no such arenas.
        return
