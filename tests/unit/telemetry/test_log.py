"""Who logs never waits for who reads."""

from __future__ import annotations

import logging
import threading

from ext_proc.telemetry.log import BackgroundHandler

LIMIT_S = 30.0


class StalledReader(logging.Handler):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.started = threading.Event()
        self.lines: list[tuple[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.started.set()
        assert self.gate.wait(LIMIT_S)
        self.lines.append((record.getMessage(), record.__dict__.get("fields")))


def say(handler: logging.Handler, name: str) -> None:
    handler.handle(logging.makeLogRecord({"msg": name, "levelno": logging.INFO, "fields": {"name": name}}))


def test_a_stalled_reader_is_not_waited_for_and_hears_what_was_dropped() -> None:
    reader = StalledReader()
    handler = BackgroundHandler(reader, max_waiting=2)
    say(handler, "first")
    assert reader.started.wait(LIMIT_S)
    for number in range(5):
        say(handler, f"{number}")
    assert reader.lines == []
    reader.gate.set()
    handler.flush()
    names = [name for name, _ in reader.lines]
    assert names == ["first", "log_lines_dropped", "0", "1"]
    assert reader.lines[1][1] == {"lines": 3}


def test_flushing_waits_for_everything_said_before() -> None:
    reader = StalledReader()
    reader.gate.set()
    handler = BackgroundHandler(reader)
    for number in range(500):
        say(handler, f"{number}")
    handler.flush()
    assert [name for name, _ in reader.lines] == [str(number) for number in range(500)]
