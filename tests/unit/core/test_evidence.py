"""From windows to findings: worse, good, undecided, and what each of them takes."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Any

import pytest

from ext_proc.core.evidence import CALIBRATION, findings, folded, restarted
from ext_proc.core.rollout_plan import (
    DEFAULT_RULES,
    LEAST_GROUPS,
    Analysis,
    MetricKind,
    RolloutPlan,
    SetWeight,
)
from ext_proc.core.rollout_types import Counts, Evidence, Finding, Outcome, WindowCounts
from ext_proc.core.window import GROUPS, bin_of, upper_edge
from tests.support.rollouts import a_plan, spread

ERRORS, COST = MetricKind.ERROR_RATE, MetricKind.COST


def a_plan_of(*kinds: MetricKind, **rule: Any) -> RolloutPlan:
    return a_plan(metrics=tuple(replace(DEFAULT_RULES[kind], **rule) for kind in kinds))


def seen(
    plan: RolloutPlan, canary: tuple[float, float], baseline: tuple[float, float] = (0, 0), **columns: Any
) -> Finding:
    """What is found of the first metric after one window of (bad, answers) per arm."""
    counts = Counts(
        spread(baseline[1]), spread(canary[1]), spread(baseline[0]), spread(canary[0]), spread(canary[0])
    )
    window = WindowCounts(0, counts={plan.metrics[0].kind: replace(counts, **columns)})
    return findings(folded(Evidence(), plan, window), plan)[0]


@pytest.mark.parametrize(
    ("canary", "baseline", "outcome"),
    [
        ((40, 800), (320, 16_000), Outcome.WORSE),
        ((16, 800), (320, 16_000), Outcome.GOOD),
        ((6, 200), (80, 4_000), Outcome.UNDECIDED),
        ((0, 0), (80, 4_000), Outcome.UNDECIDED),
        ((40, 800), (0, 0), Outcome.UNDECIDED),
    ],
)
def test_two_arms(canary: tuple[float, float], baseline: tuple[float, float], outcome: Outcome) -> None:
    assert seen(a_plan_of(ERRORS), canary, baseline).outcome is outcome


@pytest.mark.parametrize(
    ("kind", "canary", "outcome"),
    [
        (MetricKind.SIMILARITY, (60, 100), Outcome.WORSE),
        (MetricKind.SIMILARITY, (15, 100), Outcome.GOOD),
        (MetricKind.SIMILARITY, (30, 100), Outcome.UNDECIDED),
        (MetricKind.JUDGE, (160, 200), Outcome.WORSE),
        (MetricKind.JUDGE, (90, 200), Outcome.GOOD),
        (MetricKind.JUDGE, (115, 200), Outcome.UNDECIDED),
    ],
)
def test_comparisons_are_held_against_a_fixed_edge(
    kind: MetricKind, canary: tuple[float, float], outcome: Outcome
) -> None:
    assert seen(a_plan_of(kind), canary).outcome is outcome


def test_with_a_noise_floor_the_models_own_disagreement_is_allowed_for() -> None:
    unlike = (45, 150)
    alone, beside = a_plan_of(MetricKind.SIMILARITY), a_plan_of(MetricKind.SIMILARITY, noise_floor=True)
    assert seen(alone, unlike, (42, 150)).outcome is Outcome.UNDECIDED
    assert seen(beside, unlike, (42, 150)).outcome is Outcome.GOOD


def test_a_canary_between_the_margins_is_good_in_the_end() -> None:
    found = seen(a_plan_of(ERRORS), (3_000, 100_000), (2_000, 100_000))
    assert found.log_worse > found.needed_worse
    assert found.outcome is Outcome.GOOD


def test_a_few_sessions_decide_nothing() -> None:
    few = (10.0,) * (LEAST_GROUPS - 1) + (0.0,) * (GROUPS - LEAST_GROUPS + 1)
    enough = (10.0,) * LEAST_GROUPS + (0.0,) * (GROUPS - LEAST_GROUPS)
    for groups, outcome in ((few, Outcome.UNDECIDED), (enough, Outcome.WORSE)):
        columns = {"n_canary": groups, "bad_canary": groups, "harm_canary": groups}
        assert seen(a_plan_of(ERRORS), (0, 0), (0, 5000), **columns).outcome is outcome


def test_one_session_that_fails_over_and_over_is_no_proof() -> None:
    session = (60.0,) + (0.0,) * (GROUPS - 1)
    found = seen(a_plan_of(ERRORS), (60, 1500), (300, 15_000), bad_canary=session)
    assert found.dispersion > 50
    assert found.outcome is not Outcome.WORSE
    assert seen(a_plan_of(ERRORS), (90, 1500), (300, 15_000)).outcome is Outcome.WORSE


def test_the_rate_of_error_is_split_over_metrics_and_steps() -> None:
    plan = replace(a_plan_of(ERRORS, COST), false_rollback_rate=0.1, false_pass_rate=0.02)
    steps = (SetWeight(100), Analysis(), SetWeight(200), SetWeight(10_000))
    for found in findings(Evidence(), replace(plan, steps=steps)):
        assert found.needed_worse == pytest.approx(log(2 * 2 / 0.1))
        assert found.needed_good == pytest.approx(log(50))


def test_thresholds_are_read_from_the_baseline_once_there_is_enough_of_it() -> None:
    plan = a_plan_of(MetricKind.LATENCY_P50, COST)
    bins = {"latency/baseline": {0: CALIBRATION}, "cost/baseline": {bin_of(0.01): CALIBRATION - 1}}
    evidence = folded(Evidence(), plan, WindowCounts(0, histograms=bins))
    assert evidence.cuts == {MetricKind.LATENCY_P50: upper_edge(0)}
    evidence = folded(evidence, plan, WindowCounts(0, histograms={"cost/baseline": {bin_of(0.01): 1}}))
    (stretch,) = [1 + rule.max_degradation for rule in plan.metrics if rule.kind is COST]
    assert evidence.cuts[COST] == upper_edge(bin_of(0.01)) * stretch


def test_a_restart_keeps_the_thresholds_only() -> None:
    plan = a_plan_of(MetricKind.LATENCY_P50)
    evidence = folded(Evidence(), plan, WindowCounts(0, 7, histograms={"latency/baseline": {0: 500}}))
    fresh = restarted(evidence, plan)
    assert fresh == Evidence(epoch=1, basis=plan.basis, cuts=evidence.cuts)
    assert folded(fresh, plan, WindowCounts(0, 7)) is fresh


def test_windows_add_up_to_what_one_would_have_said() -> None:
    """But for the mixture: two windows of the same shape carry twice the evidence of one."""
    plan = a_plan_of(ERRORS)
    window = WindowCounts(0, counts={ERRORS: Counts(*(spread(n) for n in (500, 50, 10, 5, 5)))})
    once = folded(Evidence(), plan, window)
    twice = folded(once, plan, window)
    for before, after in zip(once.metrics[ERRORS].worse, twice.metrics[ERRORS].worse, strict=True):
        assert after == pytest.approx(2 * before)
    assert sum(twice.metrics[ERRORS].counts.n_baseline) == pytest.approx(1000)


def test_values_for_people_are_in_the_metrics_own_unit() -> None:
    plan = a_plan_of(MetricKind.LATENCY_P95, MetricKind.TOKENS, ERRORS)
    histograms = {
        "latency/canary": {bin_of(3.0): 10},
        "tokens/baseline": {bin_of(100.0): 1, bin_of(300.0): 1},
    }
    latency, tokens, errors = findings(folded(Evidence(), plan, WindowCounts(0, histograms=histograms)), plan)
    assert latency.canary == pytest.approx(3.0, rel=0.05)
    assert (latency.baseline, errors.canary) == (None, None)
    assert tokens.baseline == pytest.approx(200, rel=0.03)
