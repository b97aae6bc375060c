"""Concurrent requests share passes: whoever waits while one runs goes together in the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from ext_proc.core.errors import Reason, RouterError
from ext_proc.telemetry.tasks import spawn

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(slots=True)
class _Waiting(Generic[J, R]):
    kind: Hashable
    job: J
    answer: asyncio.Future[R]


class Batcher(Generic[J, R]):
    """Runs `work` on batches of jobs of one kind, one batch at a time, in a thread.

    The first job of an idle batcher waits `gather_s` for company, no longer. Whoever is cancelled while
    waiting leaves its place. Belongs to one event loop.
    """

    def __init__(
        self, work: Callable[[Sequence[J]], Sequence[R]], *, max_batch: int, max_queue: int, gather_s: float
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._gather_s = gather_s
        self._queue: deque[_Waiting[J, R]] = deque()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="causal-lm-router")
        self._pump: asyncio.Task[None] | None = None

    async def submit(self, kind: Hashable, job: J) -> R:
        """The result of one job.

        Errors: RouterError ROUTER_BUSY when the queue is full; whatever `work` raises, for all of its batch.
        """
        self._forget_cancelled()
        if len(self._queue) >= self._max_queue:
            raise RouterError(Reason.ROUTER_BUSY, "the routing model's queue is full")
        waiting: _Waiting[J, R] = _Waiting(kind, job, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._pump is None or self._pump.done():
            self._pump = spawn(self._run(), "causal-lm-batches")
        return await waiting.answer

    async def run_alone(self, job: Callable[[], T]) -> T:
        """Run something in the same thread, between batches."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    def close(self) -> None:
        """End after the batch in hand; those that wait are cancelled."""
        if self._pump is not None:
            self._pump.cancel()
        for waiting in self._queue:
            waiting.answer.cancel()
        self._queue.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        await asyncio.sleep(self._gather_s)
        while batch := self._next_batch():
            jobs = [waiting.job for waiting in batch]
            try:
                results = await asyncio.get_running_loop().run_in_executor(self._executor, self._work, jobs)
                answered = list(zip(batch, results, strict=True))
            except asyncio.CancelledError:
                for waiting in batch:
                    waiting.answer.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - it is each job's to report
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            for waiting, result in answered:
                if not waiting.answer.done():
                    waiting.answer.set_result(result)

    def _next_batch(self) -> list[_Waiting[J, R]]:
        """The one that has waited longest, and others of its kind in order."""
        self._forget_cancelled()
        if not self._queue:
            return []
        kind = self._queue[0].kind
        batch = [waiting for waiting in self._queue if waiting.kind == kind][: self._max_batch]
        taken = set(map(id, batch))
        self._queue = deque(waiting for waiting in self._queue if id(waiting) not in taken)
        return batch

    def _forget_cancelled(self) -> None:
        if any(waiting.answer.done() for waiting in self._queue):
            self._queue = deque(waiting for waiting in self._queue if not waiting.answer.done())
