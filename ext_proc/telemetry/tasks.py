"""Background tasks that cannot be lost: the loop alone keeps no reference and reports no failure."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Coroutine
from typing import Any

from ext_proc.telemetry import log

_running: set[asyncio.Task[Any]] = set()


def spawn(job: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run a coroutine beside everything else. Whoever wants it to end cancels the task.

    Errors: none for the caller; a task that fails is logged with the place, never with the text, which
    could quote a message.
    """
    task = asyncio.get_running_loop().create_task(job, name=name)
    _running.add(task)
    task.add_done_callback(_done)
    return task


def _done(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if task.cancelled() or (error := task.exception()) is None:
        return
    frames = traceback.extract_tb(error.__traceback__)
    log.event(
        logging.ERROR,
        "task_failed",
        task=task.get_name(),
        error=type(error).__name__,
        at=" < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames)),
    )
