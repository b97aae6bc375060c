"""What happened of late, for whoever looks on: the last decisions, and the last minutes in sums.

Each call is a few microseconds and costs the same whether anybody looks or not: a page takes from here at
its own pace, nothing here knows of pages. Names and numbers only, never a text or a key. Sums are counts, so
those of several processes can be added up.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ext_proc.core.errors import Reason
from ext_proc.core.observation import Observation, Role
from ext_proc.core.types import Outcome
from ext_proc.telemetry.entries import Entries

SLOT_S = 5
SLOTS = 60
"""Five minutes: longer ago is what Prometheus is for."""
MAX_ID_CHARS = 64
"""Of a request id, which may be a client's own. UUIDs have 36."""

BOUNDS_MS = tuple(round(0.05 * 1.25**step, 4) for step in range(64))
"""Upper ends of the times told apart, to 25 %: from 0.05 ms to a minute."""

Arm = tuple[str, str, str]
"""Policy, arm and model, each empty where there is none."""


@dataclass(slots=True)
class _Slot:
    """What happened in `SLOT_S` seconds."""

    number: int
    decided: Counter[Arm] = field(default_factory=Counter)
    answered: Counter[Arm] = field(default_factory=Counter)
    failed: Counter[Arm] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    decision: Counter[int] = field(default_factory=Counter)
    router: Counter[int] = field(default_factory=Counter)


class Activity:
    """An `ObservationSink` too. Bounded: by `SLOTS`, what `entries` keep and what the configuration names."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        named: Callable[[Observation], Observation] = lambda observation: observation,
    ) -> None:
        """`named` leaves an observation no names but the configuration's."""
        self._clock = clock
        self._named = named
        self._started = clock()
        self.entries = Entries()
        self._slots: deque[_Slot] = deque(maxlen=SLOTS)

    def decided(self, request_id: str, policy: str, score: float | None, outcome: Outcome) -> None:
        """A request was answered. `policy` is a label: the file's name, or one for all others."""
        decision, now = outcome.decision, self._clock()
        slot = self._slot(now)
        slot.decided[policy, decision.arm or "", decision.target.name] += 1
        slot.reasons[decision.reason] += 1
        slot.decision[_bucket(outcome.total_s)] += 1
        if outcome.router_s is not None:
            slot.router[_bucket(outcome.router_s)] += 1
        self.entries.add(
            now,
            "decision",
            {
                "request_id": request_id[:MAX_ID_CHARS],
                "policy": policy,
                "reason": decision.reason.value,
                "fallback": decision.reason.is_fallback,
                "score": score,
                "model": decision.target.name,
                "arm": decision.arm,
                "shadow": decision.shadow.target.name if decision.shadow else None,
                "router_s": outcome.router_s,
                "total_s": outcome.total_s,
            },
        )

    def observed(self, observation: Observation) -> None:
        """An answer has ended. Copies are the comparisons' matter."""
        if observation.role is not Role.PRIMARY or observation.is_unanswered:
            return
        observation, now = self._named(observation), self._clock()
        slot, arm = self._slot(now), (observation.policy, observation.arm, observation.target)
        slot.failed[arm] += observation.is_error
        if not observation.amends:
            slot.answered[arm] += 1
        if observation.is_error:
            slot.faults["provider", observation.target] += 1
        self.entries.add(
            now,
            "answer",
            {
                "request_id": observation.request_id[:MAX_ID_CHARS],
                "model": observation.target,
                "status": observation.status,
                "error": observation.is_error,
                "latency_s": observation.latency_s,
                "tokens_out": observation.tokens_out,
            },
        )

    def fault(self, kind: str, what: str) -> None:
        """Something failed, of a kind and a name that are bounded. Traffic went on all the same."""
        self._slot(self._clock()).faults[kind, what] += 1

    def sums(self) -> dict[str, Any]:
        """The last `SLOTS` slots as JSON's types. Trends hold a number per slot, the newest last."""
        now = self._clock()
        newest = self._slot(now).number
        arms: dict[Arm, dict[str, Any]] = {}
        reasons: Counter[Reason] = Counter()
        faults: Counter[tuple[str, str]] = Counter()
        decision: Counter[int] = Counter()
        router: Counter[int] = Counter()
        decided = [0] * SLOTS
        for slot in self._slots:
            place = SLOTS - 1 - (newest - slot.number)
            if place < 0:
                continue
            for name in ("decided", "answered", "failed"):
                counts: Counter[Arm] = getattr(slot, name)
                for arm, count in counts.items():
                    found = arms.get(arm) or arms.setdefault(arm, _no_sums(arm))
                    found[name] += count
                    if name == "decided":
                        found["trend"][place] += count
                        decided[place] += count
            reasons.update(slot.reasons)
            faults.update(slot.faults)
            decision.update(slot.decision)
            router.update(slot.router)
        return {
            "at": now,
            "started_at": self._started,
            "slot_s": SLOT_S,
            "decided": decided,
            "arms": list(arms.values()),
            "reasons": [
                {"reason": reason.value, "count": count, "fallback": reason.is_fallback}
                for reason, count in reasons.most_common()
            ],
            "faults": [{"kind": kind, "what": what, "count": n} for (kind, what), n in faults.most_common()],
            "decision": times_of(decision),
            "router": times_of(router),
        }

    def _slot(self, now: float) -> _Slot:
        number = int(now // SLOT_S)
        # A clock that is set back goes on in the slot it had.
        if not self._slots or self._slots[-1].number < number:
            self._slots.append(_Slot(number))
        return self._slots[-1]


def times_of(counts: Mapping[int, int]) -> dict[str, Any]:
    """Times by bucket as JSON's types. Quantiles are in milliseconds, None where nothing was timed."""
    return {
        "count": sum(counts.values()),
        "buckets": [[BOUNDS_MS[at], counts[at]] for at in sorted(counts)],
        "p50_ms": _quantile(counts, 0.5),
        "p90_ms": _quantile(counts, 0.9),
        "p99_ms": _quantile(counts, 0.99),
    }


def _quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Between a bucket's ends in proportion."""
    wanted = share * sum(counts.values())
    for at in sorted(counts):
        if wanted <= counts[at]:
            lower = BOUNDS_MS[at - 1] if at else 0.0
            return round(lower + (BOUNDS_MS[at] - lower) * wanted / counts[at], 3)
        wanted -= counts[at]
    return None


def _bucket(seconds: float) -> int:
    return min(bisect_left(BOUNDS_MS, seconds * 1000), len(BOUNDS_MS) - 1)


def _no_sums(arm: Arm) -> dict[str, Any]:
    policy, name, model = arm
    return {
        "policy": policy,
        "arm": name,
        "model": model,
        "decided": 0,
        "answered": 0,
        "failed": 0,
        "trend": [0] * SLOTS,
    }
