"""A circuit breaker as a value with a clock that is given to it. Pure but for its own state.

closed     failures in a row < limit        everything goes through
open       until the pause is over          nothing does
half-open  the pause is over                one probe does; its end closes or opens again
"""

from __future__ import annotations


class Breaker:
    """Counts failures in a row. Units: seconds of any monotonic clock."""

    __slots__ = ("_failures", "_limit", "_open_until", "_pause_s", "_probing")

    def __init__(self, limit: int, pause_s: float) -> None:
        self._limit = limit
        self._pause_s = pause_s
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    def allows(self, now: float) -> bool:
        """Whether one more may go through now. Who is let through must report how it ended."""
        if self._open_until is None:
            return True
        if now < self._open_until or self._probing:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        self._failures, self._open_until, self._probing = 0, None, False

    def failed(self, now: float) -> None:
        self._failures += 1
        if self._probing or self._failures >= self._limit:
            self._open_until = now + self._pause_s
        self._probing = False

    def abandoned(self) -> None:
        """It ended for a reason that says nothing about the other side: the caller left."""
        self._probing = False
