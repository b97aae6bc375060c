"""A circuit breaker as a value with a clock that is given to it. Pure but for its own state.

closed     failures in a row < limit        everything goes through
open       until the pause is over          nothing does
half-open  the pause is over                one probe does; its end closes or opens again

What went through before it opened may end long after: its failure is no news then, nor the probe's.
"""

from __future__ import annotations

from enum import Enum


class Pass(Enum):
    """What one that is let through is, and shows when it reports how it ended."""

    ORDINARY = "ordinary"
    PROBE = "probe"


class Breaker:
    """Counts failures in a row. Units: seconds of any monotonic clock."""

    __slots__ = ("_failures", "_is_probed", "_limit", "_open_until", "_pause_s")

    def __init__(self, limit: int, pause_s: float) -> None:
        self._limit = limit
        self._pause_s = pause_s
        self._failures = 0
        self._open_until: float | None = None
        self._is_probed = False

    def admit(self, now: float) -> Pass | None:
        """Let one more through, or nobody now. Who is let through must report how it ended, once."""
        if self._open_until is None:
            return Pass.ORDINARY
        if now < self._open_until or self._is_probed:
            return None
        self._is_probed = True
        return Pass.PROBE

    def succeeded(self) -> None:
        """Whoever it was, the other side answers."""
        self._failures, self._open_until, self._is_probed = 0, None, False

    def failed(self, admitted: Pass, now: float) -> bool:
        """Whether it opened by that."""
        if admitted is Pass.PROBE:
            self._is_probed = False
        elif self._open_until is not None:
            return False
        self._failures += 1
        if admitted is Pass.ORDINARY and self._failures < self._limit:
            return False
        self._open_until = now + self._pause_s
        return True

    def abandoned(self, admitted: Pass) -> None:
        """It ended for a reason that says nothing about the other side: the caller left."""
        if admitted is Pass.PROBE:
            self._is_probed = False
