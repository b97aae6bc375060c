"""One worker as its parent sees it: a child process, and the connection to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from ext_proc.telemetry.tasks import spawn
from ext_proc.workers import frames
from ext_proc.workers.siblings import Seat


class State(StrEnum):
    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"
    ENDED = "ended"


class Worker:
    """From its start to its end; whoever comes after it is another one.

    `deliver` gets what it writes to its siblings, `changed` is called with each new state, and `told` gets
    its metrics. What it says is believed: it is a process of ours.
    """

    def __init__(
        self,
        seat: Seat,
        deliver: Callable[[int, int, bytes], None],
        changed: Callable[[Worker], None],
        told: Callable[[Worker, list[Any]], None],
    ) -> None:
        self.seat = seat
        self.state = State.STARTING
        self.port = 0
        self.pid = 0
        self.status = 0
        self.started_at = 0.0
        self.ready_at: float | None = None
        self.heard_at = 0.0
        self.is_retiring = False
        self.is_known = asyncio.Event()
        self.has_ended = asyncio.Event()
        self._deliver = deliver
        self._changed = changed
        self._told = told
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answer: asyncio.Future[None] | None = None
        self._is_asked = False

    async def start(self, command: Sequence[str]) -> None:
        """Run `command` with the number of its end of the connection as its last argument.

        Errors: OSError when there can be no process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    str(fd),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(fd,),
                    # A terminal's signals are for the parent, which passes on what shall reach a worker.
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        self.pid, self.started_at = self._process.pid, asyncio.get_running_loop().time()
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self.say("seat", **self.seat.fields)
        spawn(self._follow(reader, self._process), f"worker {self.seat.index}")

    def say(self, kind: str, **fields: Any) -> bool:
        """Tell it something. False: it does not read."""
        return self.pass_on(frames.pack(kind, **fields))

    def pass_on(self, content: bytes) -> bool:
        """Hand it what a sibling wrote. False: it does not read."""
        return self._writer is not None and frames.write_frame(self._writer, self.seat.index, content)

    def retire(self) -> None:
        """Let it leave: it serves until Envoy asks others, then drains and ends."""
        self.is_retiring = True
        self._enter(State.LEAVING)
        self.say("retire")

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and not self.has_ended.is_set():
            # It may have ended, and nobody heard yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def ask_metrics(self) -> asyncio.Future[None]:
        """Done when it has told of its metrics, or has ended."""
        if self._answer is None or self._answer.done():
            self._answer = asyncio.get_running_loop().create_future()
            self._is_asked = False
        # While it does not read, a question may be dropped; once it does, it shall have one to answer.
        self._is_asked = self._is_asked or self.say("metrics")
        return self._answer

    async def _follow(self, reader: asyncio.StreamReader, process: asyncio.subprocess.Process) -> None:
        while (frame := await frames.read_frame(reader)) is not None:
            address, content = frame
            if address == frames.PARENT:
                self._take(frames.unpack(content))
            else:
                self._deliver(self.seat.index, address, content)
        self.status = await process.wait()
        if self._writer is not None:
            self._writer.close()
        self._enter(State.ENDED)
        self.has_ended.set()
        self._answered()

    def _take(self, message: Any) -> None:
        now = asyncio.get_running_loop().time()
        self.heard_at = now
        match message["kind"]:
            case "ready":
                self.port, self.ready_at = message["port"], now
                if self.state is State.STARTING:
                    self._enter(State.SERVING)
            case "known":
                self.is_known.set()
            case "metrics":
                self._told(self, message["families"])
                self._answered()

    def _answered(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _enter(self, state: State) -> None:
        self.state = state
        self._changed(self)
