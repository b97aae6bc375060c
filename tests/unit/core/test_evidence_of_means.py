"""Tokens and costs against a baseline whose answers all cost the same."""

from __future__ import annotations

import pytest

from ext_proc.core import evidence as evidence_of
from ext_proc.core.observation import Observation, Role
from ext_proc.core.rollout_plan import DEFAULT_RULES, Analysis, MetricKind, RolloutPlan, SetWeight
from ext_proc.core.rollout_types import Evidence, Outcome
from ext_proc.core.window import Window

PLAN = RolloutPlan(
    policy="coding",
    canary="canary",
    target="vllm/next",
    steps=(SetWeight(5_000), Analysis()),
    metrics=(DEFAULT_RULES[MetricKind.COST],),
)
COST = 0.005


def an_answer(arm: str, number: int, cost: float) -> Observation:
    return Observation(
        request_id=f"{arm}-{number}",
        policy="coding",
        arm=arm,
        target="vllm/next",
        role=Role.PRIMARY,
        status=200,
        latency_s=0.1,
        at=0.0,
        cost=cost,
        bucket=number,
    )


@pytest.mark.parametrize(("times", "outcome"), [(3.0, Outcome.WORSE), (1.0, Outcome.GOOD)])
def test_a_canary_is_seen_to_cost_more_or_the_same(times: float, outcome: Outcome) -> None:
    evidence = Evidence()
    for look in range(10):
        window = Window(PLAN, evidence)
        for number in range(look * 100, look * 100 + 100):
            window.add(an_answer("baseline", number, COST))
            window.add(an_answer("canary", number, COST * times))
        evidence = evidence_of.folded(evidence, PLAN, window.counts())
    (finding,) = evidence_of.findings(evidence, PLAN)
    assert finding.outcome is outcome
    assert finding.canary == pytest.approx(COST * times, rel=0.05)
