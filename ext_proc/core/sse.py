"""Server-sent events out of a stream of bytes that may be cut anywhere.

Source: the HTML standard, 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name (empty if it has none) and its data lines, joined."""

    name: str
    data: bytes


LOST = Event("", b"")
"""Stands for an event that was too long to keep."""


class EventStream:
    """Feed it bytes, get events. At most about `limit_bytes` of an unfinished event are held."""

    __slots__ = ("_after_cr", "_data", "_is_first", "_is_lost", "_limit", "_name", "_pieces", "_size")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._after_cr = False
        self._is_first = True
        self._pieces: list[bytes] = []
        self._data: list[bytes] = []
        self._name = ""
        self._size = 0
        self._is_lost = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the next bytes; the events that they complete."""
        if self._after_cr:
            # The line ended at the CR already; its LF came with this chunk.
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        events: list[Event] = []
        *lines, rest = _LINE_END.split(chunk)
        for end_of_line in lines:
            self._hold(end_of_line)
            line = b"".join(self._pieces)
            self._pieces.clear()
            self._take_line(line, events)
        self._hold(rest)
        return events

    def finish(self) -> list[Event]:
        """The event that the stream ended in, if it had any data: some servers save the last empty line."""
        events: list[Event] = []
        line = b"".join(self._pieces)
        self._pieces.clear()
        if line:
            self._take_line(line, events)
        self._take_line(b"", events)
        return events

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            self._is_lost = True
            self._data.clear()
            # What kind of line it is still counts: an empty one ends the event.
            del self._pieces[1:]
            self._pieces[:] = [b"".join(self._pieces)[:1] or piece[:1]]
        elif piece:
            self._pieces.append(piece)

    def _take_line(self, line: bytes, events: list[Event]) -> None:
        if self._is_first:
            line, self._is_first = line.removeprefix(_BOM), False
        if not line:
            if self._is_lost:
                events.append(LOST)
            elif self._data:
                events.append(Event(self._name, b"\n".join(self._data)))
            self._begin_event()
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data" and not self._is_lost:
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")

    def _begin_event(self) -> None:
        self._name = ""
        self._data.clear()
        self._size = 0
        self._is_lost = False
