"""A pytest plugin: nothing that the suite's processes leave behind holds a planted key, cookie or text.

When the run ends, every file under its temporary folder is searched (logs of servers, Envoys and controllers,
stores, records, samples, traces, what the admin ports told at the end), and so is what tests printed and
logged. What is found fails the run, whichever tests passed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import plants

CHUNK_BYTES = 1 << 20

MAY_HOLD: tuple[tuple[str, frozenset[str]], ...] = (
    # A test's own input: policies may be described in these words.
    (r"/arch_config\.yaml$", plants.TEXTS),
    # Decisions and samples are written down for their texts. Keys are no part of them.
    (r"/(record|recorded|decisions|samples)[^/]*\.jsonl(\.1)?$", plants.TEXTS),
)
"""What files, by the end of their path, may hold which plants. Everything else may hold none."""


def plants_in(data: bytes, wanted: Iterable[str] = plants.ALL) -> list[str]:
    """Those that are in the data, as they are."""
    return [plant for plant in wanted if plant.encode() in data]


def search(folder: Path) -> Iterator[str]:
    """What is found where it may not be, one line each."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = path.as_posix()
        allowed = next((held for pattern, held in MAY_HOLD if re.search(pattern, name)), frozenset())
        found = {plant for data in _chunks(path) for plant in plants_in(data)}
        for plant in sorted(found - allowed):
            yield f"{path.relative_to(folder)}: {plants.NAMES[plant]}"


def _chunks(path: Path) -> Iterator[bytes]:
    """The file in pieces that overlap, so that no plant is cut in two unseen."""
    overlap = max(len(plant.encode()) for plant in plants.ALL)
    try:
        with path.open("rb") as file:
            before = b""
            while data := file.read(CHUNK_BYTES):
                yield before + data
                before = data[-overlap:]
    except OSError as error:  # a socket, or a file that is gone
        if path.exists() and os.access(path, os.R_OK) and path.is_file():
            raise AssertionError(f"{path}: {error}") from error


class SecretGrep:
    """One run's search."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """What a test printed or logged. Of one that failed, pytest shows the values as well: not here."""
        if report.failed:
            return
        for title, text in report.sections:
            self.found += [
                f"{report.nodeid}, {title}: {plants.NAMES[plant]}" for plant in plants_in(text.encode())
            ]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        factory: Any = getattr(session.config, "_tmp_path_factory", None)
        # No test asked for a folder: there is none to search.
        if factory is not None and factory._basetemp is not None:
            self.found += search(factory.getbasetemp())
        if self.found and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.found:
            terminalreporter.section("secrets and texts where none may be")
            for line in dict.fromkeys(self.found):
                terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SecretGrep(), "secret-grep")
