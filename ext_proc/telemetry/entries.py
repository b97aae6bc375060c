"""The last decisions and answers by number, for readers that each go on where they were."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Mapping
from itertools import islice, takewhile
from typing import Any, NamedTuple

KEPT = 500
"""Decisions and answers of late, of some 300 bytes each."""


class Entry(NamedTuple):
    """One decision, or one answer to an earlier one with the same request id.

    `fields` are JSON's types.
    """

    number: int
    at: float
    kind: str
    fields: Mapping[str, Any]


class Batch(NamedTuple):
    """The newest entries, the oldest of them first. `skipped` came before them and after what was asked."""

    last: int
    skipped: int
    entries: tuple[Entry, ...]


class Entries:
    """Bounded by `KEPT`. `name` tells these numbers from another process's."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(4)
        self._kept: deque[Entry] = deque(maxlen=KEPT)
        self._last = 0

    def add(self, at: float, kind: str, fields: Mapping[str, Any]) -> None:
        self._last += 1
        self._kept.append(Entry(self._last, at, kind, fields))

    def skip(self, count: int) -> None:
        """So many were not kept."""
        self._last += count

    def since(self, number: int, most: int) -> Batch:
        """What came after an entry's number (0: everything kept), its newest `most`."""
        number = min(number, self._last)
        news = takewhile(lambda entry: entry.number > number, reversed(self._kept))
        entries = tuple(reversed(tuple(islice(news, most))))
        return Batch(self._last, self._last - number - len(entries) if number else 0, entries)
