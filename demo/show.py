"""What the demo prints: progress lines, tables, and in the end what failed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_WITHOUT_TERMINAL = 140
NARROW, WIDE = 130, 150
"""Below this many columns a table leaves out what another of its columns implies; from the second on nothing
is shortened."""


def make_console() -> Console:
    """As wide as the terminal, or `COLUMNS`. Without either (CI, a pipe), wide enough for the tables."""
    console = Console(highlight=False)
    is_told = console.is_terminal or "COLUMNS" in os.environ
    return console if is_told else Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)


class Show:
    """The demo's output. `problems` collects what was not as promised."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = perf_counter()
        self.problems: list[str] = []

    @property
    def is_narrow(self) -> bool:
        return self._console.width < NARROW

    @property
    def is_wide(self) -> bool:
        return self._console.width >= WIDE

    @property
    def elapsed_s(self) -> float:
        return perf_counter() - self._started

    def title(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, style="bold"))

    def line(self, text: str = "") -> None:
        self._console.print(Text(text), soft_wrap=True)

    def progress(self, text: str) -> None:
        """What takes a moment, said before it begins."""
        self._console.print(Text(f"{self.elapsed_s:6.1f} s  {text}", style="dim"), soft_wrap=True)

    def table(self, table: Table) -> None:
        self._console.print(table)

    def problem(self, text: str) -> None:
        """Something that fails the demo."""
        self.problems.append(text)
        self._console.print(Text(f"  ✗ {text}", style="bold red"), soft_wrap=True)

    def expect(self, is_so: bool, promise: str, otherwise: str = "") -> None:
        """A promise, checked: printed when it holds, a problem when not."""
        if is_so:
            self._console.print(Text(f"  ✓ {promise}", style="green"), soft_wrap=True)
        else:
            self.problem(f"not so: {promise}{f' ({otherwise})' if otherwise else ''}")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A progress line before, and how long it took after."""
        self.progress(f"{text} …")
        started = perf_counter()
        yield
        if (took := perf_counter() - started) >= 1:
            self.progress(f"  took {took:.1f} s")


def new_table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
