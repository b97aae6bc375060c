"""An HTTP/2 client that holds very many requests open, for a thousandth of what a library's requests cost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)


class Http2Connection:
    """One connection in the clear.

    `answered` counts whole answers by their status and one header's value, `reset` streams broken off.
    What is sent is small: flow control is left to the library, which raises when a window is full.
    """

    def __init__(self, host: str, port: int, told_by: str) -> None:
        self._address = host, port
        self._told_by = told_by.encode()
        self._h2 = H2Connection(H2Configuration(client_side=True))
        self._told: dict[int, str] = {}
        self._open: set[int] = set()
        self._reading: asyncio.Task[None] | None = None
        self.answered: Counter[str] = Counter()
        self.reset = 0

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(1 << 30)
        await self._flush()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def close(self) -> None:
        """Without a word, as a client that dies."""
        self._writer.transport.abort()
        if self._reading is not None:
            await self._reading

    async def begin(self, headers: Iterable[tuple[str, str]]) -> int:
        """Send a request's headers: its stream."""
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, headers)
        self._open.add(stream)
        await self._flush()
        return stream

    async def end(self, stream: int, body: bytes, trailers: Iterable[tuple[str, str]] = ()) -> None:
        trailers = list(trailers)
        self._h2.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self._h2.send_headers(stream, trailers, end_stream=True)
        await self._flush()

    async def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())
        await self._writer.drain()

    async def _read(self) -> None:
        with suppress(ConnectionError):
            while data := await self._reader.read(1 << 16):
                for event in self._h2.receive_data(data):
                    self._take(event)
                await self._flush()

    def _take(self, event: Event) -> None:
        match event:
            case ResponseReceived(stream_id=stream, headers=headers):
                values = dict(headers)
                self._told[stream] = (
                    f"{values[b':status'].decode()} {values.get(self._told_by, b'').decode()}"
                )
            case DataReceived(stream_id=stream, flow_controlled_length=length):
                self._h2.acknowledge_received_data(length, stream)
            case StreamEnded(stream_id=stream):
                self._open.discard(stream)
                self.answered[self._told.pop(stream)] += 1
            case StreamReset():
                self.reset += 1
