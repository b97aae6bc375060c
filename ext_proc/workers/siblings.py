"""A worker's side: its place among its siblings, and what it tells them.

Envoy opens each stream of a request on whichever worker it likes, so a copy's stream and the primary's need
not meet in one. Whoever decides a request writes its own number into the name under which the answers meet,
and the others send there what they see of them. What was decided for a session is told to all.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from ext_proc.core.copying import Copy, CopyBounds
from ext_proc.core.observation import Role
from ext_proc.core.ports import AnswerSink, Kept, Sessions
from ext_proc.core.watching import Answer
from ext_proc.telemetry import log
from ext_proc.telemetry.joining import Family
from ext_proc.telemetry.tasks import spawn
from ext_proc.workers import frames
from ext_proc.workers.answers import answer_of, fields_of

CLOSE_S = 2.0
"""How long the end of a worker waits for the parent to read its last metrics."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place: its index, from 0, of so many. `admin` is the Unix socket of its admin server.

    `salt` is what sessions are placed by where the file names none: the same for all, and after restarts.
    """

    index: int
    of: int
    admin: str
    salt: bytes = field(repr=False)

    @property
    def fields(self) -> dict[str, Any]:
        return {"index": self.index, "of": self.of, "admin": self.admin, "salt": self.salt.hex()}


class Siblings:
    """The connection to the parent, and through it to the other workers."""

    def __init__(self, connection: socket.socket) -> None:
        """Take the seat that the parent gives. Errors: ConnectionError when there is no parent."""
        self._connection = connection
        head = _receive(connection, frames.HEAD.size)
        length, _ = frames.HEAD.unpack(head)
        given = dict(frames.unpack(_receive(connection, length)))
        given.pop("kind")
        self.seat = Seat(**{**given, "salt": bytes.fromhex(given["salt"])})
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._families: Callable[[], list[Family]] = list
        self._stop: Callable[[], None] = lambda: None
        self._bounds: CopyBounds | None = None
        self._answers: AnswerSink | None = None
        self._kept: Sessions | None = None
        self.is_retiring = False

    @property
    def pair_prefix(self) -> str:
        """How the names begin under which the answers to this worker's decisions meet."""
        return f"{self.seat.index}-"

    def bounds(self, limit_s: float) -> CopyBounds:
        """Bounds of this worker's part of the copies."""
        self._bounds = SharedBounds(self, limit_s)
        return self._bounds

    def answers(self, sink: AnswerSink) -> AnswerSink:
        """A sink that hands on what belongs to another worker's decision."""
        self._answers = sink
        return SharedAnswers(self, sink)

    def sessions(self, kept: Sessions) -> Sessions:
        """A memory whose entries the others get too."""
        self._kept = kept
        return SharedSessions(self, kept)

    async def start(self, families: Callable[[], list[Family]], stop: Callable[[], None]) -> None:
        """Begin to listen. `stop` is called when the parent wants this worker to go, or is gone itself."""
        self._families, self._stop = families, stop
        reader, self._writer = await asyncio.open_unix_connection(sock=self._connection)
        self._reading = spawn(self._read(reader), "siblings")

    def ready(self, port: int) -> None:
        """This worker takes requests."""
        self._send(frames.PARENT, frames.pack("ready", port=port))

    def known(self) -> None:
        """Somebody has asked for this worker's health: Envoy knows of it."""
        self._send(frames.PARENT, frames.pack("known"))

    async def close(self) -> None:
        """Tell the parent what was counted to the end, and go."""
        if self._writer is None:
            self._connection.close()
            return
        self._tell_metrics()
        if self._reading is not None:
            self._reading.cancel()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._writer.drain()
                self._writer.close()
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            self._writer.transport.abort()

    def owner(self, pair: str) -> int | None:
        """Which other worker named a pair. None: this one, or nobody did."""
        number, dash, _ = pair.partition("-")
        if not dash or not number.isdecimal() or int(number) >= self.seat.of:
            return None
        return None if int(number) == self.seat.index else int(number)

    def tell(self, owner: int, kind: str, **fields: Any) -> None:
        """Tell one sibling."""
        self._send(owner, frames.pack(kind, **fields))

    def tell_all(self, kind: str, **fields: Any) -> None:
        """Tell every sibling."""
        self._send(frames.EVERYBODY, frames.pack(kind, **fields))

    def _send(self, address: int, content: bytes) -> None:
        if self._writer is not None:
            frames.write_frame(self._writer, address, content)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while (frame := await frames.read_frame(reader)) is not None:
            try:
                self._take(frames.unpack(frame[1]))
            except Exception as error:  # noqa: BLE001 - one message's fault is not the worker's end
                log.event(logging.ERROR, "sibling_message", error=type(error).__name__)
        self._stop()

    def _take(self, message: Any) -> None:
        match message["kind"]:
            case "metrics":
                self._tell_metrics()
            case "retire":
                self.is_retiring = True
                self._stop()
            case "kept" if self._kept is not None:
                self._kept.keep(bytes.fromhex(message["key"]), Kept(message["policy"]))
            case "began" if self._bounds is not None:
                self._bounds.began((message["pair"], message["target"]), message["now"])
            case "ended" if self._bounds is not None:
                self._bounds.ended((message["pair"], message["target"]))
            case "answer" if self._answers is not None:
                self._answers.answered(answer_of(message["answer"]))

    def _tell_metrics(self) -> None:
        self._send(frames.PARENT, frames.pack("metrics", families=self._families()))


class SharedBounds(CopyBounds):
    """A part of the bounds. What other workers see of this worker's copies, they tell it."""

    def __init__(self, siblings: Siblings, limit_s: float) -> None:
        super().__init__(limit_s, siblings.seat.of)
        self._siblings = siblings

    def began(self, copy: Copy, now: float) -> None:
        if (owner := self._siblings.owner(copy[0])) is None:
            super().began(copy, now)
        else:
            # Any process of a machine reads the same monotonic clock.
            self._siblings.tell(owner, "began", pair=copy[0], target=copy[1], now=now)

    def ended(self, copy: Copy) -> None:
        if (owner := self._siblings.owner(copy[0])) is None:
            super().ended(copy)
        else:
            self._siblings.tell(owner, "ended", pair=copy[0], target=copy[1])


class SharedAnswers:
    """An `AnswerSink`: answers go to whoever decided their request, since there they meet."""

    def __init__(self, siblings: Siblings, own: AnswerSink) -> None:
        self._siblings = siblings
        self._own = own

    def answered(self, answer: Answer) -> None:
        subject = answer.subject
        owner = self._siblings.owner(subject.pair)
        if owner is None:
            self._own.answered(answer)
        elif subject.role is not Role.PRIMARY or subject.copies:
            self._siblings.tell(owner, "answer", answer=fields_of(answer))


class SharedSessions:
    """`Sessions` that tell the siblings what they keep."""

    def __init__(self, siblings: Siblings, own: Sessions) -> None:
        self._siblings = siblings
        self._own = own

    def recall(self, key: bytes) -> Kept | None:
        return self._own.recall(_digest(key))

    def keep(self, key: bytes, kept: Kept) -> None:
        digest = _digest(key)
        self._own.keep(digest, kept)
        self._siblings.tell_all("kept", key=digest.hex(), policy=kept.policy)


def _digest(key: bytes) -> bytes:
    """A client's own ids may be long, and say who it is: no other process needs them."""
    return blake2b(key, digest_size=16).digest()


def _receive(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = connection.recv(size - len(found))
        if not piece:
            raise ConnectionError("the parent is gone")
        found += piece
    return found
