"""The server's own word on each request: its `decided` log lines, found by request id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

FIND_LIMIT_S = 5.0
_POLL_S = 0.02


class DecisionLog:
    """Reads the log of a server that runs with `--log-level DEBUG --log-format json`, as it grows."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0
        self._rest = b""
        self._found: dict[str, dict[str, Any]] = {}

    async def find(self, request_id: str) -> dict[str, Any]:
        """The line about one request. Empty when there is none, because no server saw it."""
        try:
            async with asyncio.timeout(FIND_LIMIT_S):
                while request_id not in self._found:
                    if not self._take():
                        await asyncio.sleep(_POLL_S)
        except TimeoutError:
            return {}
        return self._found[request_id]

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Every line from now on, as the decisions are made."""
        self._take()
        while True:
            for line in self._take():
                yield line
            await asyncio.sleep(_POLL_S)

    def _take(self) -> list[dict[str, Any]]:
        with self._log.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        decided = [line for line in map(_parsed, lines) if line.get("event") == "decided"]
        self._found.update({line["request_id"]: line for line in decided})
        return decided


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
