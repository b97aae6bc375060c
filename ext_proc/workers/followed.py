"""All workers' decisions and answers as one list, fetched while somebody looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from ext_proc.telemetry.entries import KEPT, Entries
from ext_proc.workers.asking import ask
from ext_proc.workers.worker import Worker

AT_MOST_EVERY_S = 0.2
"""However many look: each page asks four times a second."""


class Followed:
    """`entries` are numbered anew, so that a reader goes on where it was whichever workers come and go."""

    def __init__(
        self, serving: Callable[[], Sequence[Worker]], clock: Callable[[], float] = time.time
    ) -> None:
        self.entries = Entries()
        self._serving = serving
        self._clock = clock
        self._cursors: dict[int, str] = {}
        self._held: list[dict[str, Any]] = []
        self._fetched_at: float | None = None
        self._turn = asyncio.Lock()

    async def fetch(self) -> None:
        """Bring `entries` up to date, unless that has just been done."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if self._fetched_at is None or now - self._fetched_at >= AT_MOST_EVERY_S:
                await self._fetch()
                self._fetched_at = asyncio.get_running_loop().time()

    async def _fetch(self) -> None:
        began = self._clock()
        workers = list(self._serving())
        batches = await asyncio.gather(*map(self._news, workers))
        fresh = []
        for worker, batch in zip(workers, batches, strict=True):
            if batch is not None:
                # A worker that took another's place says so itself: its cursors have another name.
                self._cursors[worker.seat.index] = batch["cursor"]
                self.entries.skip(batch["skipped"])
                fresh += [{**entry, "worker": worker.seat.index} for entry in batch["entries"]]
        # An answer may be told by one worker before its decision is by another. What happened before anybody
        # was asked is complete; the rest waits for the next time.
        due = self._held + [entry for entry in fresh if entry["at"] <= began]
        self._held = [entry for entry in fresh if entry["at"] > began]
        for entry in sorted(due, key=lambda entry: float(entry["at"])):
            fields = {name: value for name, value in entry.items() if name not in ("number", "at", "kind")}
            self.entries.add(entry["at"], entry["kind"], fields)

    async def _news(self, worker: Worker) -> Any:
        cursor = self._cursors.get(worker.seat.index, "")
        return await ask(worker, f"/decisions?after={cursor}&limit={KEPT}")
