"""How often a rollout decides rightly, and how many requests a bad canary gets before it is stopped.

Thousands of rollouts in virtual time, each walked by `core.rollout.step()` itself, one look per tick; only
the traffic is made up, with numpy and fixed seeds. Requests come in sessions: a session's requests share
its arm, a frailty that multiplies its error rate, and part of its latency and length, so that they are
not independent of each other.

    python -m bench.rollouts            # the whole table, as Markdown
    python -m bench.rollouts --harder   # canaries at the edge of what is tolerated
    python -m bench.rollouts --runs 200 # either one sooner, with wider intervals
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from math import sqrt
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ext_proc.core.rollout import declared, step
from ext_proc.core.rollout_plan import (
    DEFAULT_RULES,
    MEANS,
    QUANTILES,
    Analysis,
    MetricKind,
    MetricRule,
    Pause,
    RolloutPlan,
    SetWeight,
)
from ext_proc.core.rollout_plan import Step as PlanStep
from ext_proc.core.rollout_types import Counts, Inputs, Phase, RolloutState, WindowCounts
from ext_proc.core.window import BINS_PER_OCTAVE, GROUPS, quantity_of

Floats = NDArray[np.float64]

STEPS: tuple[PlanStep, ...] = (
    *(SetWeight(500), Analysis()),
    *(SetWeight(2500), Analysis()),
    *(SetWeight(5000), Analysis()),
)
PER_SECOND = 20.0
TICK_S = 60.0
SESSION_REQUESTS = 4.0
CHUNK = 5_000
"""Requests that are drawn at once; no session spans two chunks."""

ONE = (MetricKind.ERROR_RATE,)
THREE = (MetricKind.ERROR_RATE, MetricKind.LATENCY_P95, MetricKind.COST)
SIX = (*THREE, MetricKind.FIRST_BYTE_P50, MetricKind.TOKENS, MetricKind.SIMILARITY)


@dataclass(frozen=True)
class Model:
    """How a model answers. `frailty` is the variance of the factor that a session's error rate has."""

    error_rate: float = 0.02
    frailty: float = 2.0
    latency_s: float = 2.0
    latency_sigma: float = 0.7
    tokens: float = 300.0
    price: float = 1e-5
    unlike: float = 0.15


@dataclass(frozen=True)
class Scenario:
    """One line of the table: who is compared with whom, by what, and what ought to happen."""

    name: str
    kinds: tuple[MetricKind, ...]
    canary: Model
    baseline: Model = Model()
    ought: Phase = Phase.ABORTED
    steps: tuple[PlanStep, ...] = STEPS
    deadline_s: float = 4 * 3600.0
    per_second: float = PER_SECOND
    rules: tuple[MetricRule, ...] = ()
    drift: float = 0.0
    """How much error rate and latency of both arms rise and fall over an hour, as a share."""

    session_requests: float = SESSION_REQUESTS

    @property
    def plan(self) -> RolloutPlan:
        rules = self.rules or tuple(
            replace(DEFAULT_RULES[kind], noise_floor=kind is MetricKind.SIMILARITY) for kind in self.kinds
        )
        return RolloutPlan(
            policy="p",
            canary="canary",
            target="t",
            steps=self.steps,
            interval_s=TICK_S,
            min_requests=100,
            metrics=rules,
            deadline_s=self.deadline_s,
        )


@dataclass(frozen=True)
class Result:
    """How one rollout ended: promoted, aborted, or paused for being inconclusive."""

    phase: Phase
    exposed: int
    seconds: float
    by: str = ""


@dataclass
class Requests:
    """A chunk of requests in order of time; per request what either arm would do with it."""

    at: Floats
    bucket: NDArray[np.int64]
    fails: dict[bool, NDArray[np.bool_]]
    values: dict[bool, dict[str, Floats]]
    unlike: dict[bool, Floats]


def simulate(scenario: Scenario, seed: int) -> Result:
    """Walk one rollout to its end."""
    plan, random = scenario.plan, np.random.default_rng(seed)
    now = 0.0
    state, _ = step(declared(plan, now), plan, Inputs(), now)
    exposed, chunk, start = 0, draw(scenario, random, now), 0
    while state.phase is Phase.PROGRESSING:
        now += TICK_S
        end = int(np.searchsorted(chunk.at, now))
        window = observe(plan, state, chunk, slice(start, end))
        start = end
        if end == len(chunk.at):
            # The tick that the chunk ends in is cut short; what follows begins at the next.
            chunk, start = draw(scenario, random, now), 0
        exposed += window.requests
        state, events = step(state, plan, Inputs(window=window), now)
        if state.phase in (Phase.ABORTED, Phase.PAUSED):
            worse = [found.metric.value for found in events[-1].findings if found.outcome == "worse"]
            return Result(state.phase, exposed, now, ",".join(worse))
    return Result(state.phase, exposed, now)


def draw(scenario: Scenario, random: np.random.Generator, now: float) -> Requests:
    """A chunk of sessions: Poisson arrivals, geometric lengths, about half a minute between requests."""
    seconds = CHUNK / scenario.per_second
    sessions = int(CHUNK / scenario.session_requests)
    length = random.geometric(1 / scenario.session_requests, sessions)
    session = np.repeat(np.arange(sessions), length)
    first = random.uniform(0, seconds, sessions)
    at = first[session] + random.exponential(30.0, len(session)) * (np.arange(len(session)) % 7)
    at = now + at % seconds
    order = np.argsort(at)
    at, session = at[order], session[order]
    size = len(at)
    bucket = random.integers(0, 10_000, sessions)[session]
    frail = random.gamma(1 / scenario.baseline.frailty, scenario.baseline.frailty, sessions)[session]
    swing = 1 + scenario.drift * np.sin(2 * np.pi * at / 3600) if scenario.drift else np.ones(size)
    chance = random.uniform(size=size) / np.maximum(frail * swing, 1e-12)
    arms = {False: scenario.baseline, True: scenario.canary}
    wanted = {quantity_of(kind) for kind in scenario.kinds}
    values: dict[bool, dict[str, Floats]] = {False: {}, True: {}}
    if wanted & {"latency", "first_byte"}:
        slow = swing * np.exp(scenario.baseline.latency_sigma * _alike(random, session, sessions))
        for arm, model in arms.items():
            values[arm] |= {"latency": model.latency_s * slow, "first_byte": 0.2 * model.latency_s * slow}
    if wanted & {"tokens", "cost"}:
        long = np.ceil(scenario.baseline.tokens * np.exp(0.6 * _alike(random, session, sessions)))
        for arm, model in arms.items():
            values[arm] |= {"tokens": long, "cost": long * model.price}
    unlike = {}
    if MetricKind.SIMILARITY in scenario.kinds:
        for arm, model in arms.items():
            unlike[arm] = np.clip(random.beta(1.5, 8.5, size) + model.unlike - 0.15, 0, 1)
    fails = {arm: chance < model.error_rate for arm, model in arms.items()}
    return Requests(at, bucket, fails, values, unlike)


def _alike(random: np.random.Generator, session: NDArray[np.int64], sessions: int) -> Floats:
    """Standard normal, half of the variance the session's, half the request's."""
    both = random.normal(size=sessions)[session] + random.normal(size=len(session))
    return np.asarray(sqrt(0.5) * both)


def observe(plan: RolloutPlan, state: RolloutState, chunk: Requests, span: slice) -> WindowCounts:
    """What `core.window.Window` would have counted of these requests."""
    bucket = chunk.bucket[span]
    group, canary = bucket % GROUPS, bucket < state.weight_per_10k
    counts: dict[MetricKind, Counts] = {}
    histograms: dict[str, dict[int, int]] = {}
    failed = {arm: chunk.fails[arm][span] for arm in (False, True)}
    for rule in plan.metrics:
        columns: dict[bool, tuple[tuple[float, ...], ...]] = {}
        for arm, mine in ((False, ~canary), (True, canary)):
            if rule.kind is MetricKind.ERROR_RATE:
                bad = harm = failed[arm][mine].astype(float)
                groups = group[mine]
            elif rule.kind is MetricKind.SIMILARITY:
                # The baseline's requests are copied twice: to the canary's target and to its own.
                bad = harm = chunk.unlike[arm][span][~canary]
                groups = group[~canary]
            else:
                fine = mine & ~failed[arm]
                quantity = quantity_of(rule.kind)
                value, groups = chunk.values[arm][quantity][span][fine], group[fine]
                name = f"{quantity}/{'canary' if arm else 'baseline'}"
                if name not in histograms:
                    histograms[name] = _bins(value)
                cut = state.evidence.cuts.get(rule.kind)
                if cut is None:
                    groups = groups[:0]
                    bad = harm = value[:0]
                elif rule.kind in MEANS:
                    bad = harm = np.minimum(1.0, value / cut)
                else:
                    assert rule.kind in QUANTILES
                    stretched = (1 + rule.tolerance, 1 + rule.max_degradation) if arm else (1.0, 1.0)
                    bad, harm = ((value > cut * factor).astype(float) for factor in stretched)
            columns[arm] = (_by_group(groups, None), _by_group(groups, bad), _by_group(groups, harm))
        (n_baseline, bad_baseline, _), (n_canary, bad_canary, harm_canary) = columns[False], columns[True]
        counts[rule.kind] = Counts(n_baseline, n_canary, bad_baseline, bad_canary, harm_canary)
    return WindowCounts(state.evidence.epoch, int(canary.sum()), counts, histograms)


def _by_group(groups: NDArray[np.int64], weights: Floats | None) -> tuple[float, ...]:
    return tuple(np.bincount(groups, weights, GROUPS).astype(float).tolist())


def _bins(values: Floats) -> dict[int, int]:
    if not len(values):
        return {}
    at = np.floor(np.log2(values) * BINS_PER_OCTAVE).astype(int)
    lowest = int(at.min())
    return {lowest + index: some for index, some in enumerate(np.bincount(at - lowest).tolist()) if some}


def scenarios() -> tuple[Scenario, ...]:
    same, half_broken = Model(), Model(error_rate=0.05)
    slow, dear = Model(latency_s=4.0), Model(price=3e-5)
    wrong = Model(unlike=0.6)
    found = []
    for kinds in (ONE, THREE, SIX):
        found.append(Scenario("identical", kinds, same, ought=Phase.PROMOTED))
    for kinds in (ONE, THREE, SIX):
        found.append(Scenario("errors 2 % → 5 %", kinds, half_broken))
    found.append(Scenario("latency × 2", (MetricKind.LATENCY_P95,), slow))
    found.append(Scenario("cost × 3", (MetricKind.COST,), dear))
    found.append(Scenario("wrong answers", (MetricKind.SIMILARITY,), wrong))
    for name, model in (("latency × 2", slow), ("cost × 3", dear), ("wrong answers", wrong)):
        found.append(Scenario(name, SIX, model))
    return tuple(found)


def harder() -> tuple[Scenario, ...]:
    """Canaries exactly at the edge of what is tolerated, watched for 120 looks whatever is found good."""
    watched: tuple[PlanStep, ...] = (SetWeight(500), Pause(120 * TICK_S))

    def at_edge(name: str, *kinds: MetricKind, **changes: Any) -> Scenario:
        rules = tuple(replace(DEFAULT_RULES[kind], tolerance=0.0) for kind in kinds)
        return replace(
            Scenario(name, kinds, Model(), ought=Phase.PROMOTED, steps=watched, rules=rules), **changes
        )

    alike = Model(error_rate=0.1, frailty=9.0)
    return (
        at_edge("errors", MetricKind.ERROR_RATE),
        at_edge("latency p95", MetricKind.LATENCY_P95),
        at_edge("cost", MetricKind.COST),
        at_edge("errors, latency p95, cost", *THREE),
        at_edge("the same, both arms drifting by ± 70 % over the hour", *THREE, drift=0.7),
        at_edge(
            "errors of 10 %, 100 requests a session, one session in ten failing nearly always",
            MetricKind.ERROR_RATE,
            canary=alike,
            baseline=alike,
            session_requests=100.0,
        ),
        at_edge("latency p95, 100 requests a session", MetricKind.LATENCY_P95, session_requests=100.0),
        at_edge("errors, one request in 2 s", MetricKind.ERROR_RATE, per_second=0.5),
    )


def z_test(seed: int) -> bool:
    """Whether the usual test, at 5 % and looked at 120 times, ever finds an identical canary worse."""
    random = np.random.default_rng(seed)
    canary, baseline = PER_SECOND * TICK_S * 0.05, PER_SECOND * TICK_S * 0.95
    looks = np.arange(1, 121)
    bad_canary = random.binomial(round(canary), 0.02, 120).cumsum()
    bad_baseline = random.binomial(round(baseline), 0.02, 120).cumsum()
    share = (bad_canary + bad_baseline) / (looks * (canary + baseline))
    error = np.sqrt(np.maximum(share * (1 - share), 1e-12) * (1 / canary + 1 / baseline) / looks)
    z = (bad_canary / canary - bad_baseline / baseline) / looks / error
    return bool((z > 1.645).any())


def run(scenario: Scenario, runs: int, workers: int = 1) -> list[Result]:
    """So many rollouts with the seeds 0, 1, 2 …"""
    seeds = range(runs)
    if workers == 1:
        return [simulate(scenario, seed) for seed in seeds]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(simulate, [scenario] * runs, seeds, chunksize=max(1, runs // 20)))


def wilson(hits: int, runs: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share. Source: Wilson 1927."""
    share, square = hits / runs, z * z / runs
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * sqrt(share * (1 - share) / runs + square / runs / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


HEAD = """\
| canary | metrics | rolled back | 95 % interval | promoted | undecided | exposed, median | p95 |
|---|---|---|---|---|---|---|---|"""


def line(scenario: Scenario, results: list[Result]) -> str:
    """A row of the table."""
    runs = len(results)
    back = [result for result in results if result.phase is Phase.ABORTED]
    promoted = sum(result.phase is Phase.PROMOTED for result in results)
    low, high = wilson(len(back), runs)
    exposed = sorted(result.exposed for result in back) or [0]
    far = exposed[min(len(exposed) - 1, int(0.95 * len(exposed)))]
    return (
        f"| {scenario.name} | {len(scenario.kinds)} | {len(back) / runs:.2%} | {low:.2%} – {high:.2%} | "
        f"{promoted / runs:.2%} | {(runs - len(back) - promoted) / runs:.2%} | "
        f"{median(exposed):.0f} | {far} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="How often a rollout decides rightly, in virtual time.")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--harder", action="store_true", help="the canaries that are hardest to leave alone")
    given = parser.parse_args()
    started = time.perf_counter()
    print(HEAD)
    for scenario in harder() if given.harder else scenarios():
        print(line(scenario, run(scenario, given.runs, given.workers)), flush=True)
    if given.harder:
        hits = sum(map(z_test, range(given.runs)))
        low, high = wilson(hits, given.runs)
        print(f"\nA z-test at 5 % at each of these looks: {hits / given.runs:.1%} ({low:.1%} – {high:.1%}).")
    print(f"\n{given.runs} rollouts a row, {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
