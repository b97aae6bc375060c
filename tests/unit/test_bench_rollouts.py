"""The simulated traffic of `make bench-rollout`: counted as the server counts, and decided rightly.

The seeds are fixed, so that these rates are the same on every machine; `bench/rollouts.py` has the real
sample sizes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.rollouts import ONE, SIX, Model, Scenario, draw, observe, run, wilson
from ext_proc.core.observation import Observation, Role
from ext_proc.core.rollout import declared, step
from ext_proc.core.rollout_plan import Analysis, MetricKind, SetWeight
from ext_proc.core.rollout_types import Counts, Evidence, Inputs, Phase
from ext_proc.core.window import Window

RUNS = 40
CUTS = {
    MetricKind.LATENCY_P95: 5.0,
    MetricKind.COST: 0.01,
    MetricKind.FIRST_BYTE_P50: 0.4,
    MetricKind.TOKENS: 900.0,
}


def test_the_simulation_counts_as_the_server_does() -> None:
    scenario = Scenario(
        "both", tuple(kind for kind in SIX if kind is not MetricKind.SIMILARITY), Model(error_rate=0.2)
    )
    plan = scenario.plan
    chunk = draw(scenario, np.random.default_rng(7), 0.0)
    state, _ = step(declared(plan, 0.0), plan, Inputs(), 0.0)
    state = replace(state, weight_per_10k=3000, evidence=Evidence(epoch=1, cuts=CUTS))
    window = Window(plan, state.evidence)
    for index in range(600):
        is_canary = bool(chunk.bucket[index] < 3000)
        values = {name: float(column[index]) for name, column in chunk.values[is_canary].items()}
        window.add(
            Observation(
                request_id=str(index),
                policy="p",
                arm="canary" if is_canary else "baseline",
                target="t",
                role=Role.PRIMARY,
                status=500 if chunk.fails[is_canary][index] else 200,
                latency_s=values["latency"],
                at=float(chunk.at[index]),
                first_byte_s=values["first_byte"],
                tokens_out=round(values["tokens"]),
                cost=values["cost"],
                bucket=int(chunk.bucket[index]),
            )
        )
    simulated, counted = observe(plan, state, chunk, slice(0, 600)), window.counts()
    assert simulated.requests == counted.requests
    assert simulated.histograms == counted.histograms
    for kind in plan.metrics:
        for column in Counts.__slots__:
            ours = getattr(simulated.counts[kind.kind], column)
            assert ours == pytest.approx(getattr(counted.counts[kind.kind], column)), (kind.kind, column)


@pytest.mark.parametrize("kinds", [ONE, SIX])
def test_an_identical_canary_is_promoted(kinds: tuple[MetricKind, ...]) -> None:
    results = run(Scenario("identical", kinds, Model()), RUNS if kinds is ONE else 5)
    assert sum(result.phase is Phase.ABORTED for result in results) <= 0.05 * len(results)
    assert sum(result.phase is Phase.PROMOTED for result in results) >= 0.95 * len(results)


@pytest.mark.parametrize(
    ("kinds", "canary", "exposed"),
    [
        (ONE, Model(error_rate=0.05), 2500),
        ((MetricKind.LATENCY_P95,), Model(latency_s=4.0), 500),
        ((MetricKind.COST,), Model(price=3e-5), 300),
        ((MetricKind.SIMILARITY,), Model(unlike=0.6), 100),
    ],
)
def test_a_bad_canary_is_rolled_back_before_many_requests_went_there(
    kinds: tuple[MetricKind, ...], canary: Model, exposed: int
) -> None:
    results = run(Scenario("bad", kinds, canary), RUNS)
    assert sum(result.phase is Phase.ABORTED for result in results) >= 0.95 * RUNS
    assert sorted(result.exposed for result in results)[int(0.95 * RUNS)] <= exposed


def test_requests_of_long_sessions_do_not_pass_for_independent_ones() -> None:
    """Sessions of 100 requests, one in ten of which fails nearly always: as if requests were independent,
    14 of these 40 identical canaries would be rolled back."""
    alike = Model(error_rate=0.1, frailty=9.0)
    steps = (SetWeight(3000), Analysis())
    scenario = Scenario("alike", ONE, alike, alike, session_requests=100.0, steps=steps, deadline_s=2400.0)
    results = run(scenario, RUNS)
    assert sum(result.phase is Phase.ABORTED for result in results) <= 0.05 * RUNS


def test_an_interval_of_wilson() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
