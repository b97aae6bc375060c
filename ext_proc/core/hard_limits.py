"""Hard limits, looked at with every answer of the canary, so that a bad one need not wait for the next look.

What is remembered is bounded by the limits' `requests` and lives in this process only: a restart or
another replica counts from nothing. An answer without a value (no first byte, no price, cut by nobody knows
whom) counts for no limit on that value; one that was cut when it was too slow already is too slow.
"""

from __future__ import annotations

from collections import deque

from ext_proc.core.observation import Observation, Role
from ext_proc.core.rollout_plan import Breach, HardLimit, LimitKind, RolloutPlan

TAIL = 0.05
"""Share of answers that may be slower than a p95."""


class Watch:
    """The hard limits of one rollout, while one weight is in force. Not for several threads."""

    def __init__(self, plan: RolloutPlan) -> None:
        self._canary = plan.canary
        self._meters = [_Meter(limit) for limit in plan.hard_limits]

    def seen(self, observation: Observation) -> Breach | None:
        """Count one answer in constant time; the first limit that it crosses, if any."""
        if observation.role is not Role.PRIMARY or observation.arm != self._canary:
            return None
        breaches = [breach for meter in self._meters if (breach := meter.seen(observation))]
        return breaches[0] if breaches else None


class _Meter:
    """One limit over the canary's last answers."""

    __slots__ = ("_last", "_limit", "_sum")

    def __init__(self, limit: HardLimit) -> None:
        self._limit = limit
        self._last: deque[float] = deque()
        self._sum = 0.0

    def seen(self, observation: Observation) -> Breach | None:
        value = self._value(observation)
        if value is None:
            return None
        self._last.append(value)
        self._sum += value
        if len(self._last) > self._limit.requests:
            self._sum -= self._last.popleft()
        if len(self._last) < self._limit.requests:
            return None
        average = self._sum / len(self._last)
        if average > self._allowed:
            return Breach(self._limit, average, len(self._last))
        return None

    @property
    def _allowed(self) -> float:
        match self._limit.kind:
            case LimitKind.LATENCY_P95 | LimitKind.FIRST_BYTE_P95:
                return TAIL
            case LimitKind.CONSECUTIVE_ERRORS:
                return 1 - 0.5 / self._limit.requests  # all of them, whatever the sum was rounded to
            case _:
                return self._limit.limit

    def _value(self, observation: Observation) -> float | None:
        match self._limit.kind:
            case LimitKind.ERROR_RATE | LimitKind.CONSECUTIVE_ERRORS:
                if observation.amends and observation.fallback:
                    return None  # the failure before it has been counted
                failed = observation.first_choice_failed
                return None if failed is None else float(failed)
            case _ if observation.amends:
                return None
            case LimitKind.LATENCY_P95:
                is_slow = observation.latency_s > self._limit.limit
                return None if observation.cut and not is_slow else float(is_slow)
            case LimitKind.FIRST_BYTE_P95:
                first = observation.first_byte_s
                return None if first is None else float(first > self._limit.limit)
            case LimitKind.COST:
                return None if observation.fallback or observation.cut else observation.cost
