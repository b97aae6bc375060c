"""Compared answers on disk, for people to read: only when asked for, redacted, and never beyond a size."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import orjson

from ext_proc.core.observation import Comparison
from ext_proc.core.pairs import Pair
from ext_proc.core.redact import redact
from ext_proc.core.reply import Reply
from ext_proc.core.settings import SamplesSettings
from ext_proc.telemetry import log
from ext_proc.telemetry.answers import figures

_OWNER_ONLY = 0o600

MAX_WAITING = 16
"""Pairs that may wait for the disk at once, with their texts; the ones after them are not written."""


class Samples:
    """Appends one JSON object a line, as long as the file stays below its bound."""

    def __init__(self, settings: SamplesSettings) -> None:
        self._path = Path(settings.path)
        self._redact = settings.redact
        self._max_bytes = settings.max_bytes
        self._is_full = False
        self._waiting = 0
        self._lock = asyncio.Lock()

    async def write(self, comparison: Comparison, pair: Pair) -> bool:
        """Write a pair with its figures. A disk in trouble is logged once, and costs no comparison.

        False: the pair is dropped, because too many wait for a disk that is slow or hangs.
        """
        if self._is_full:
            return True
        if self._waiting >= MAX_WAITING:
            return False
        self._waiting += 1
        try:
            async with self._lock:
                await asyncio.to_thread(self._append, comparison, pair)
        finally:
            self._waiting -= 1
        return True

    def _append(self, comparison: Comparison, pair: Pair) -> None:
        line = orjson.dumps(
            {
                **figures(comparison),
                "question": self._text(pair.copy.question),
                "primary_answer": self._reply(pair.primary.reply),
                "shadow_answer": self._reply(pair.copy.reply),
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        try:
            # The file holds what users said: nobody else's to read.
            with os.fdopen(
                os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _OWNER_ONLY), "ab", buffering=0
            ) as file:
                if file.tell() + len(line) > self._max_bytes:
                    self._stop("full")
                    return
                file.write(line)
        except OSError as error:
            self._stop(error.strerror or type(error).__name__)

    def _stop(self, why: str) -> None:
        self._is_full = True
        log.event(logging.WARNING, "samples_stopped", path=str(self._path), why=why)

    def _reply(self, reply: Reply | None) -> dict[str, object] | None:
        if reply is None:
            return None
        tools = [{"name": tool.name, "arguments": self._text(tool.arguments)} for tool in reply.tools]
        return {"text": self._text(reply.text), "tools": tools}

    def _text(self, text: str | None) -> str | None:
        if text is None:
            return None
        # Half a surrogate pair, which JSON may carry, has no UTF-8.
        valid = text.encode("utf-8", "replace").decode()
        return redact(valid) if self._redact else valid
