"""The parent of several workers: starts them, replaces those that end, and restarts them in turn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ext_proc.core.errors import ConfigError
from ext_proc.core.settings import Configuration
from ext_proc.telemetry import log
from ext_proc.telemetry.tasks import spawn
from ext_proc.telemetry.workers import WorkerTelemetry
from ext_proc.transport import unix
from ext_proc.workers import frames
from ext_proc.workers.front import Application, Front
from ext_proc.workers.plan import Record, after_crash
from ext_proc.workers.siblings import Seat
from ext_proc.workers.worker import State, Worker

POLL_S = 5.0
"""How often workers are asked what they counted: a crash loses at most that much of it."""

HUNG_S = 60.0
"""A worker that says nothing for so long is ended: its event loop stands still."""

START_S = 300.0
"""A worker that is not ready after so long is ended. A model takes minutes; one that hangs is no worker."""

METRICS_LIMIT_S = 2.0
"""How long a scrape waits for a worker; then the worker's last figures stand for it."""

JOIN_LIMIT_S = 10.0
JOIN_S = 1.0
"""A restart in turn goes on when the new worker was asked for its health, and so long after that: other
Envoys ask within a second too. Where nobody asks for so long, nobody checks."""

STOP_S = 15.0
"""How much longer than its drain a worker may take to end."""


@dataclass(slots=True)
class Place:
    """Where there shall always be a worker."""

    seat: Seat
    record: Record = field(default_factory=Record)
    worker: Worker | None = None
    starts: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def is_in(self, *states: State) -> bool:
        return self.worker is not None and self.worker.state in states

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a change after which this holds."""
        while not holds():
            self.changed.clear()
            await self.changed.wait()


class Supervisor:
    """`command` starts a worker when a file descriptor is added to it; `check` raises what is wrong with the
    configuration file now, `application` makes what the admin port begins with.

    Errors: OSError when there is no place for the workers' sockets.
    """

    def __init__(
        self,
        configuration: Configuration,
        command: Sequence[str],
        check: Callable[[], object],
        application: Application,
        hung_s: float = HUNG_S,
        poll_s: float = POLL_S,
        start_s: float = START_S,
    ) -> None:
        self._settings = configuration.server
        self._command = tuple(command)
        self._check = check
        self._telemetry = WorkerTelemetry()
        count = configuration.server.workers
        self._folder = _folder_for_sockets(count)
        self.places = [
            Place(Seat(index, count, _socket_in(self._folder.name, index), configuration.snapshot.salt))
            for index in range(count)
        ]
        self._front = Front(configuration.admin, self, application)
        self._hung_s, self._poll_s, self._start_s = hung_s, poll_s, start_s
        self._stopping = asyncio.Event()
        self._failed: int | None = None
        self._has_come_up = False
        self._roll_wanted = asyncio.Event()

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status. SIGHUP restarts the workers in turn.

        Errors: OSError when the admin address is taken.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._roll_wanted.set)
        jobs: list[asyncio.Task[None]] = []
        try:
            port = await self._front.start()
            log.event(logging.INFO, "supervising", workers=len(self.places), admin_port=port)
            jobs += [spawn(self._keep(place), f"place {place.seat.index}") for place in self.places]
            jobs += [
                spawn(self._poll(), "worker metrics"),
                spawn(self._roll_when_wanted(), "rolling restart"),
            ]
            await self._stopping.wait()
            log.event(logging.INFO, "draining", seconds=self._settings.drain_s)
            await self._end_all()
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            await self._front.stop()
            self._folder.cleanup()
        log.event(logging.INFO, "stopped")
        return self._failed or 0

    def stop(self) -> None:
        """End all, as SIGTERM does."""
        self._stopping.set()

    # ---- what the front shows

    @property
    def is_ready(self) -> bool:
        """Whether a worker takes requests. Envoy knows of each by its own health checks."""
        return not self._stopping.is_set() and any(place.is_in(State.SERVING) for place in self.places)

    def serving(self) -> list[Worker]:
        """Those that answer, the ones that take new requests first."""
        workers = [place.worker for place in self.places if place.worker is not None]
        order = (State.SERVING, State.LEAVING)
        return [worker for state in order for worker in workers if worker.state is state]

    async def metrics(self) -> bytes:
        """Everybody's metrics as one."""
        await self._ask_metrics()
        return self._telemetry.exposition()

    def report(self) -> list[dict[str, Any]]:
        """The places and who is there."""
        return [
            {
                "worker": place.seat.index,
                "state": place.worker.state.value if place.worker else "waiting",
                "pid": place.worker.pid if place.worker else None,
                "address": str(self._settings.of_worker(place.seat.index)),
                "starts": place.starts,
            }
            for place in self.places
        ]

    # ---- one place

    async def _keep(self, place: Place) -> None:
        while not self._stopping.is_set():
            try:
                worker = await self._start(place)
            except OSError as error:
                log.event(logging.ERROR, "worker_not_started", worker=place.seat.index, why=error.strerror)
                status, expected, served_s = 1, False, None
            else:
                await worker.has_ended.wait()
                status, expected = worker.status, worker.is_retiring or self._stopping.is_set()
                now = asyncio.get_running_loop().time()
                served_s = None if worker.ready_at is None else now - worker.ready_at
                self._telemetry.ended(place.seat.index, worker.pid, status, expected=expected)
            if self._stopping.is_set():
                return
            if expected:
                self._telemetry.restarted(place.seat.index, "rolling")
                continue
            if served_s is None and not self._has_come_up:
                # What is wrong at the first start is for whoever starts it: the worker has said what.
                self._failed = abs(status) or 1
                self._stopping.set()
                return
            place.record, delay_s = after_crash(place.record, served_s)
            self._telemetry.restarted(place.seat.index, "crashed", delay_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()

    async def _start(self, place: Place) -> Worker:
        worker = Worker(place.seat, self._deliver, lambda worker: self._changed(place, worker), self._told)
        # A socket that a crashed one left would be in the way.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.seat.admin)
        await worker.start(self._command)
        place.worker = worker
        place.starts += 1
        self._telemetry.started(place.seat.index, worker.pid)
        return worker

    def _changed(self, place: Place, worker: Worker) -> None:
        if worker.state is State.SERVING:
            self._telemetry.ready(place.seat.index, worker.pid)
        if worker.state is State.ENDED:
            self._telemetry.joined.gone(worker)
        place.changed.set()
        serving = sum(place.is_in(State.SERVING) for place in self.places)
        self._has_come_up |= serving == len(self.places)
        self._telemetry.serving(serving, len(self.places))

    # ---- between the places

    def _deliver(self, sender: int, address: int, content: bytes) -> None:
        """What a worker wrote to a sibling, or to all of them."""
        for place in self.places:
            index = place.seat.index
            is_for = index == address or (address == frames.EVERYBODY and index != sender)
            if is_for and (place.worker is None or not place.worker.pass_on(content)):
                self._telemetry.undelivered()

    def _told(self, worker: Worker, families: list[Any]) -> None:
        self._telemetry.joined.update(worker, families)

    async def _ask_metrics(self) -> None:
        asked = [worker.ask_metrics() for worker in self.serving()]
        if asked:
            await asyncio.wait(asked, timeout=METRICS_LIMIT_S)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            await self._ask_metrics()
            now = asyncio.get_running_loop().time()
            for worker in [place.worker for place in self.places if place.worker is not None]:
                # One that starts has not been heard yet, and cannot be asked.
                is_hung = (
                    now - worker.started_at > self._start_s
                    if worker.state is State.STARTING
                    else now - worker.heard_at > self._hung_s
                )
                if is_hung and worker.state is not State.ENDED:
                    self._telemetry.hung(worker.seat.index, worker.pid, worker.state.value)
                    worker.send(signal.SIGKILL)

    # ---- all places

    async def _roll_when_wanted(self) -> None:
        while True:
            await self._roll_wanted.wait()
            self._roll_wanted.clear()
            try:
                await asyncio.to_thread(self._check)
            except ConfigError as error:
                for problem in error.problems:
                    log.event(logging.ERROR, "restart_refused", problem=str(problem))
                continue
            except Exception as error:  # noqa: BLE001 - a bug must not end the restarts to come
                log.event(logging.ERROR, "restart_refused", problem=f"a bug: {type(error).__name__}")
                continue
            await self._roll()

    async def _roll(self) -> None:
        """Restart one worker after the other. One that does not come back leaves the rest as they are."""
        log.event(logging.INFO, "rolling_restart", workers=len(self.places))
        for place in self.places:
            old = place.worker
            if old is None or old.state is not State.SERVING:
                continue  # It is being started, and reads the file as it is now.
            old.retire()
            await place.until(partial(_has_settled, place, old))
            new = place.worker
            if new is None or new.state is not State.SERVING:
                log.event(logging.ERROR, "rolling_restart_stopped", worker=place.seat.index)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(JOIN_LIMIT_S):
                    await new.is_known.wait()
            await asyncio.sleep(JOIN_S)
        log.event(logging.INFO, "rolling_restart_done")

    async def _end_all(self) -> None:
        workers = [place.worker for place in self.places if place.worker is not None]
        for worker in workers:
            worker.send(signal.SIGTERM)
        ends = [asyncio.ensure_future(worker.has_ended.wait()) for worker in workers]
        if not ends:
            return
        _, late = await asyncio.wait(ends, timeout=self._settings.drain_s + STOP_S)
        if late:
            for worker in workers:
                worker.send(signal.SIGKILL)
            await asyncio.wait(late)


def _socket_in(folder: str, index: int) -> str:
    return str(Path(folder) / f"{index}.sock")


def _folder_for_sockets(count: int) -> tempfile.TemporaryDirectory[str]:
    """Errors: OSError that says what to do."""
    try:
        made = tempfile.TemporaryDirectory(prefix="arch-ext-proc-")
    except OSError as error:
        text = f"no folder for the workers' sockets: {error.strerror}: set TMPDIR to one that can be written"
        raise OSError(text) from error
    longest = _socket_in(made.name, count - 1)
    if len(os.fsencode(longest)) > unix.MAX_PATH_BYTES:
        made.cleanup()
        raise OSError(f"{longest} is too long for a socket: set TMPDIR to a shorter folder")
    return made


def _has_settled(place: Place, old: Worker) -> bool:
    """Whether the next worker serves, or has failed to."""
    return place.worker is not old and place.is_in(State.SERVING, State.ENDED)
