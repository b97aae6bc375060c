"""Whoever waits while a batch runs goes together in the next; nobody waits in vain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from ext_proc.core.errors import Reason, RouterError
from ext_proc.router.causal_lm.batching import Batcher


class Work:
    """Doubles numbers, holding each batch until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.batches.append(list(jobs))
        assert self.gate.wait(30)
        if 13 in jobs:
            raise ValueError("thirteen")
        return [job * 2 for job in jobs]


def a_batcher(work: Work, *, max_batch: int = 8, max_queue: int = 64) -> Batcher[int, int]:
    return Batcher(work, max_batch=max_batch, max_queue=max_queue, gather_s=0.0)


async def until_running(work: Work, batches: int = 1) -> None:
    async with asyncio.timeout(30):
        while len(work.batches) < batches:
            await asyncio.sleep(0.001)


async def running(
    batcher: Batcher[int, int], work: Work, *others: tuple[str, int]
) -> list[asyncio.Task[int]]:
    """Job 1 in the thread, the others waiting behind it."""
    tasks = [asyncio.ensure_future(batcher.submit("kind", 1))]
    await until_running(work)
    tasks += [asyncio.ensure_future(batcher.submit(kind, job)) for kind, job in others]
    await asyncio.sleep(0)
    return tasks


async def test_those_that_wait_share_the_next_batch_by_kind_and_in_order() -> None:
    work = Work()
    batcher = a_batcher(work, max_batch=3)
    jobs = [("kind", 2), ("other", 3), ("kind", 4), ("kind", 5), ("kind", 6)]
    tasks = await running(batcher, work, *jobs)
    work.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10, 12]
    assert work.batches == [[1], [2, 4, 5], [3], [6]]
    batcher.close()


async def test_a_full_queue_says_so_at_once() -> None:
    work = Work()
    batcher = a_batcher(work, max_queue=2)
    tasks = await running(batcher, work, ("kind", 2), ("kind", 3))
    with pytest.raises(RouterError) as caught:
        await batcher.submit("kind", 4)
    assert caught.value.reason is Reason.ROUTER_BUSY
    work.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]
    batcher.close()


async def test_whoever_is_cancelled_frees_its_place_and_is_not_computed() -> None:
    work = Work()
    batcher = a_batcher(work, max_queue=1)
    tasks = await running(batcher, work, ("kind", 2))
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    late = asyncio.ensure_future(batcher.submit("kind", 3))
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(tasks[0], late) == [2, 6]
    assert work.batches == [[1], [3]]
    batcher.close()


async def test_a_failure_is_told_to_its_batch_and_the_next_one_runs() -> None:
    work = Work()
    batcher = a_batcher(work, max_batch=2)
    tasks = await running(batcher, work, ("kind", 13), ("kind", 14), ("kind", 15))
    work.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["int", "ValueError", "ValueError", "int"]
    assert await batcher.submit("kind", 16) == 32
    batcher.close()


async def test_work_that_answers_too_few_fails_its_batch_and_leaves_nobody_waiting() -> None:
    work = Work()
    batcher: Batcher[int, int] = Batcher(
        lambda jobs: work(jobs)[: 1 if len(jobs) == 2 else None], max_batch=2, max_queue=64, gather_s=0.0
    )
    tasks = await running(batcher, work, ("kind", 2), ("kind", 3), ("kind", 4))
    work.gate.set()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    assert [type(result).__name__ for result in results] == ["int", "ValueError", "ValueError", "int"]
    batcher.close()


async def test_closing_cancels_those_that_wait() -> None:
    work = Work()
    batcher = a_batcher(work)
    tasks = await running(batcher, work, ("kind", 2))
    batcher.close()
    work.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
