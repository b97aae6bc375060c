"""A background task's failure is reported, and quotes nothing."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from ext_proc.telemetry.tasks import spawn


async def test_a_failing_task_is_logged_by_name_and_place_only() -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("ext_proc")
    logger.addHandler(handler)

    async def fail() -> None:
        raise ValueError("what a user wrote")

    try:
        task = spawn(fail(), "the-job")
        with pytest.raises(ValueError, match="user wrote"):
            await task
        await asyncio.sleep(0)
    finally:
        logger.removeHandler(handler)
    (record,) = records
    fields = record.__dict__["fields"]
    assert (record.getMessage(), fields["task"], fields["error"]) == ("task_failed", "the-job", "ValueError")
    assert "fail:" in fields["at"]
    assert "user wrote" not in str(record.__dict__)


async def test_a_task_that_nobody_keeps_still_runs_to_its_end() -> None:
    done = asyncio.Event()

    async def job() -> None:
        await asyncio.sleep(0)
        gc.collect()
        done.set()

    spawn(job(), "unkept")
    gc.collect()
    await asyncio.wait_for(done.wait(), 10)
