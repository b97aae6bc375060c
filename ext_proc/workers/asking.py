"""What the parent asks a worker's admin server, over its Unix socket."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import aiohttp

from ext_proc.workers.worker import Worker

ASK_LIMIT_S = 2.0
"""How long a worker's part of something is waited for: one that hangs is left out until it is replaced."""


async def ask(worker: Worker, path: str) -> Any:
    """A worker's JSON. None: it has none to give now."""
    try:
        async with (
            session_of(worker, ASK_LIMIT_S, ASK_LIMIT_S) as session,
            session.get(f"http://localhost{path}") as answer,
        ):
            return await answer.json() if answer.status == HTTPStatus.OK else None
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None


def session_of(worker: Worker, connect_s: float, total_s: float | None = None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(worker.seat.admin),
        timeout=aiohttp.ClientTimeout(sock_connect=connect_s, sock_read=None, total=total_s),
        auto_decompress=False,
    )
