"""Log lines for people or for machines: an event name and fields, never a message's text or a key.

A thread writes them: whoever reads standard error may stall, and requests must not wait for that. What
does not fit in the queue meanwhile is dropped, and said when the reader goes on.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from typing import Any

import orjson

_LOGGER = logging.getLogger("ext_proc")
_common: dict[str, Any] = {}
"""Fields of every event of this process."""
_MAX_WAITING = 10_000
"""Lines of some 300 bytes."""
_FLUSH_S = 2.0
"""How long the end of the process waits for a reader that stalls."""


def configure(*, as_json: bool, level: str = "INFO", worker: int | None = None) -> None:
    """Send log lines to standard error, one a line, once per process. `worker`: which of several it is."""
    _common.clear()
    if worker is not None:
        _common["worker"] = worker
    writer = logging.StreamHandler(sys.stderr)
    writer.setFormatter(_JsonFormatter() if as_json else _HumanFormatter())
    _LOGGER.handlers[:] = [BackgroundHandler(writer)]
    _LOGGER.setLevel(level)
    _LOGGER.propagate = False


def says(level: int) -> bool:
    """Whether an event of this level is logged: where requests pass, its fields are not made for nothing."""
    return _LOGGER.isEnabledFor(level)


def event(level: int, name: str, **fields: Any) -> None:
    """Log one event. Fields are ids, names, numbers and reasons."""
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, name, extra={"fields": {**_common, **fields}})


class BackgroundHandler(logging.Handler):
    """Hands records to another handler in a thread of its own; `emit` never waits."""

    def __init__(self, writer: logging.Handler, max_waiting: int = _MAX_WAITING) -> None:
        super().__init__()
        self._writer = writer
        self._records: queue.Queue[logging.LogRecord] = queue.Queue(max_waiting)
        self._dropped = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait for what was said so far, but not for ever. Python's own end calls this."""
        records = self._records
        with records.all_tasks_done:
            records.all_tasks_done.wait_for(lambda: not records.unfinished_tasks, _FLUSH_S)

    def _run(self) -> None:
        while True:
            record = self._records.get()
            self._writer.handle(record)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self._writer.handle(_dropped(record, dropped))
            self._records.task_done()


def _dropped(after: logging.LogRecord, lines: int) -> logging.LogRecord:
    fields = {"levelno": logging.WARNING, "levelname": "WARNING", "msg": "log_lines_dropped"}
    return logging.makeLogRecord({**after.__dict__, **fields, "fields": {"lines": lines}})


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return orjson.dumps(line, default=str).decode()


class _HumanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        # repr() keeps a value on its line: a request id is whatever a client sent.
        pairs = (
            f"{key}={value!r}" if isinstance(value, str) else f"{key}={value}"
            for key, value in fields.items()
        )
        return " ".join(
            (self.formatTime(record, "%H:%M:%S"), f"{record.levelname:<7}", record.getMessage(), *pairs)
        )
