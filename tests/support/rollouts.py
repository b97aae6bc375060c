"""Rollout plans, looks and windows with defaults, so that a test names only what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ext_proc.core.observation import Observation, Role
from ext_proc.core.rollout import declared, step
from ext_proc.core.rollout_plan import Analysis, MetricKind, RolloutPlan, SetWeight
from ext_proc.core.rollout_plan import Step as PlanStep
from ext_proc.core.rollout_types import Counts, Event, Inputs, RolloutState, WindowCounts
from ext_proc.core.window import GROUPS

STEPS: tuple[PlanStep, ...] = (SetWeight(500), Analysis(), SetWeight(2500), Analysis())


def a_plan(**changes: Any) -> RolloutPlan:
    plan = RolloutPlan("coding", "canary", "vllm/next", STEPS, interval_s=60, min_requests=100)
    return replace(plan, **changes)


def an_answer(arm: str = "canary", **changes: Any) -> Observation:
    answer = Observation(
        request_id="r1",
        policy="coding",
        arm=arm,
        target="vllm/next",
        role=Role.PRIMARY,
        status=200,
        latency_s=1.0,
        at=0.0,
    )
    return replace(answer, **changes)


def spread(total: float) -> tuple[float, ...]:
    """So many, evenly over the groups of sessions."""
    return (total / GROUPS,) * GROUPS


def a_window(
    state: RolloutState,
    *,
    canary: tuple[float, float],
    baseline: tuple[float, float],
    kind: MetricKind = MetricKind.ERROR_RATE,
) -> WindowCounts:
    """A window in which each arm had (bad answers, answers) of one metric."""
    counts = Counts(
        n_baseline=spread(baseline[1]),
        n_canary=spread(canary[1]),
        bad_baseline=spread(baseline[0]),
        bad_canary=spread(canary[0]),
        harm_canary=spread(canary[0]),
    )
    return WindowCounts(state.evidence.epoch, round(canary[1]), {kind: counts})


class Rollout:
    """A rollout that is looked at once a minute, and remembers what happened."""

    def __init__(self, plan: RolloutPlan | None = None) -> None:
        self.plan = plan or a_plan()
        self.now = 1_000_000.0
        self.state = declared(self.plan, self.now)
        self.events: list[Event] = []

    def look(self, after_s: float = 60.0, **inputs: Any) -> tuple[Event, ...]:
        self.now += after_s
        self.state, events = step(self.state, self.plan, Inputs(**inputs), self.now)
        self.events += events
        return events

    def look_good(self) -> tuple[Event, ...]:
        """A look at 1,000 faultless answers of the canary beside 19,000 of the baseline."""
        return self.look(window=a_window(self.state, canary=(0, 1000), baseline=(0, 19_000)))

    def look_bad(self) -> tuple[Event, ...]:
        """A look at a canary that fails one request in two."""
        return self.look(window=a_window(self.state, canary=(500, 1000), baseline=(0, 19_000)))

    @property
    def where(self) -> tuple[str, int]:
        return self.state.phase.value, self.state.weight_per_10k

    def causes(self) -> Sequence[str]:
        return [event.cause.value for event in self.events]
