"""How many streams still use what another configuration has replaced."""

from __future__ import annotations

from collections.abc import Callable


class InUse:
    """Counts the streams that hold something, and tells when the last has let go of it after it was replaced.

    For one event loop: a stream takes the thing and says so in one step, between which nothing is replaced.
    """

    __slots__ = ("_freed", "streams")

    def __init__(self) -> None:
        self.streams = 0
        self._freed: Callable[[], None] | None = None

    def begin(self) -> None:
        """A stream has taken it."""
        self.streams += 1

    def end(self) -> None:
        """That stream has ended."""
        self.streams -= 1
        self._tell()

    def replaced(self, freed: Callable[[], None]) -> None:
        """No stream takes it any more: `freed` is called once, when none has it."""
        self._freed = freed
        self._tell()

    def _tell(self) -> None:
        if self._freed is not None and not self.streams:
            freed, self._freed = self._freed, None
            freed()
