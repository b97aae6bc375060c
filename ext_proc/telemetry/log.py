"""Log lines for people or for machines: an event name and fields, never a message's text or a key."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson

_LOGGER = logging.getLogger("ext_proc")


def configure(*, as_json: bool, level: str = "INFO") -> None:
    """Send log lines to standard error, one a line, once per process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if as_json else _HumanFormatter())
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(level)
    _LOGGER.propagate = False


def event(level: int, name: str, **fields: Any) -> None:
    """Log one event. Fields are ids, names, numbers and reasons."""
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, name, extra={"fields": fields})


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
