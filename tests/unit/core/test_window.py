"""What is counted of an answer, and what the replicas' counts add up to."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from ext_proc.core.evidence import findings, folded, restarted
from ext_proc.core.observation import Comparison, Observation, Preference, Role
from ext_proc.core.rollout_plan import DEFAULT_RULES, MetricKind
from ext_proc.core.rollout_types import Counts, Evidence, Outcome
from ext_proc.core.window import (
    GROUPS,
    Window,
    bin_of,
    group_of,
    mean,
    merged,
    quantile,
    upper_edge,
)
from tests.support.rollouts import a_plan, an_answer


def a_window_of(kind: MetricKind, cut: float | None = None, **rule: Any) -> Window:
    plan = a_plan(metrics=(replace(DEFAULT_RULES[kind], **rule),))
    return Window(plan, Evidence(epoch=4, cuts={} if cut is None else {kind: cut}))


def sums(window: Window, kind: MetricKind) -> tuple[float, ...]:
    """Answers of baseline and canary, bad of baseline and canary, harm of canary."""
    found = window.counts().counts[kind]
    columns = (found.n_baseline, found.n_canary, found.bad_baseline, found.bad_canary, found.harm_canary)
    return tuple(sum(column) for column in columns)


@pytest.mark.parametrize(
    ("kind", "bad", "fine"),
    [
        (MetricKind.ERROR_RATE, {"status": 500}, {"status": 404}),
        (MetricKind.ERROR_RATE, {"broken": True}, {}),
        (MetricKind.ERROR_RATE, {"fallback": True}, {}),
        (MetricKind.REJECTED_SHARE, {"status": 400}, {"status": 429}),
        (MetricKind.FALLBACK_SHARE, {"fallback": True}, {"status": 500}),
    ],
)
def test_a_share_counts_every_answer(kind: MetricKind, bad: dict[str, Any], fine: dict[str, Any]) -> None:
    window = a_window_of(kind)
    for arm in ("canary", "baseline", "baseline"):
        window.add(an_answer(arm, **bad))
        window.add(an_answer(arm, **fine))
    assert sums(window, kind) == (4, 2, 2, 1, 1)
    assert (window.counts().requests, window.counts().epoch) == (2, 4)


@pytest.mark.parametrize(
    "kind", [MetricKind.REJECTED_SHARE, MetricKind.FALLBACK_SHARE, MetricKind.ERROR_RATE]
)
def test_an_answer_that_never_began_says_nothing_but_that_its_client_left(kind: MetricKind) -> None:
    left, cut = an_answer(cut=True, status=0), an_answer("baseline", cut=True)
    window, leaving = a_window_of(kind), a_window_of(MetricKind.LEFT_SHARE)
    window.add(left)
    for one in (left, cut, an_answer(), an_answer("baseline")):
        leaving.add(one)
    assert sums(window, kind) == (0,) * 5
    assert (window.counts().requests, leaving.counts().requests) == (1, 2)
    assert sums(leaving, MetricKind.LEFT_SHARE) == (2, 2, 1, 1, 1)


def test_a_cut_answer_is_a_failure_once_its_provider_is_known_to_have_done_it() -> None:
    window = a_window_of(MetricKind.ERROR_RATE)
    for cut in (an_answer(cut=True), an_answer("baseline", cut=True)):
        window.add(cut)
    assert sums(window, MetricKind.ERROR_RATE) == (0, 0, 0, 0, 0)
    window.add(an_answer(cut=True, broken=True))
    assert sums(window, MetricKind.ERROR_RATE) == (0, 1, 0, 1, 1)
    assert window.counts().requests == 1


def test_a_fallback_that_breaks_off_is_one_failure_of_the_first_choice() -> None:
    window = a_window_of(MetricKind.ERROR_RATE)
    window.add(an_answer(cut=True, fallback=True))
    window.add(an_answer(cut=True, fallback=True, broken=True))
    assert sums(window, MetricKind.ERROR_RATE) == (0, 1, 0, 1, 1)


def test_what_amends_an_answer_counts_for_no_other_metric() -> None:
    window = a_window_of(MetricKind.COST, cut=1.0)
    window.add(an_answer(cut=True, broken=True, cost=0.5))
    assert sums(window, MetricKind.COST) == (0, 0, 0, 0, 0)
    assert not window.counts().histograms


def test_what_another_target_answered_says_nothing_of_the_cost_of_the_canary() -> None:
    window = a_window_of(MetricKind.COST, cut=1.0)
    window.add(an_answer(cost=0.5, fallback=True))
    assert sums(window, MetricKind.COST) == (0, 0, 0, 0, 0)


def test_a_quantile_stretches_the_canarys_threshold_by_what_is_allowed() -> None:
    window = a_window_of(MetricKind.LATENCY_P95, cut=2.0, tolerance=0.5, max_degradation=1.0)
    for seconds in (1.9, 2.1, 3.1, 4.1):
        window.add(an_answer("baseline", latency_s=seconds))
        window.add(an_answer("canary", latency_s=seconds))
    assert sums(window, MetricKind.LATENCY_P95) == (4, 4, 3, 2, 1)


def test_a_time_that_was_cut_counts_only_where_it_is_too_long_already() -> None:
    window = a_window_of(MetricKind.LATENCY_P95, cut=2.0, tolerance=0.5, max_degradation=1.0)
    for seconds in (1.9, 2.1, 3.1, 4.1):
        window.add(an_answer("baseline", latency_s=seconds, cut=True))
        window.add(an_answer("canary", latency_s=seconds, cut=True))
    # At 3.1 s the canary's may have been on its way to more than the 4 s that no canary may take.
    assert sums(window, MetricKind.LATENCY_P95) == (3, 2, 3, 2, 2)
    assert window.counts().histograms == {}


def test_a_first_byte_is_whole_though_the_answer_was_cut() -> None:
    window = a_window_of(MetricKind.FIRST_BYTE_P50, cut=2.0)
    for arm in ("baseline", "canary"):
        window.add(an_answer(arm, first_byte_s=1.0, cut=True))
        window.add(an_answer(arm, cut=True))
    assert sums(window, MetricKind.FIRST_BYTE_P50) == (1, 1, 0, 0, 0)
    bins = {bin_of(1.0): 1}
    assert window.counts().histograms == {"first_byte/baseline": bins, "first_byte/canary": bins}


@pytest.mark.parametrize("kind", [MetricKind.COST, MetricKind.TOKENS])
def test_what_was_spent_until_an_answer_was_cut_does_not_count(kind: MetricKind) -> None:
    window = a_window_of(kind, cut=1.0)
    window.add(an_answer(cost=0.1, tokens_out=1, cut=True))
    assert sums(window, kind) == (0,) * 5
    assert window.counts().histograms == {}


def test_a_canary_whose_clients_leave_is_not_faster_for_it() -> None:
    """Eight times slower, and four clients in five leave before it is done."""
    plan = a_plan(metrics=(DEFAULT_RULES[MetricKind.LATENCY_P50],))
    chance, evidence = random.Random(1), restarted(Evidence(), plan)
    for _ in range(20):
        window = Window(plan, evidence)
        for _ in range(200):
            is_canary = chance.random() < 0.5
            needed = chance.lognormvariate(2.3, 0.3) * (8 if is_canary else 1)
            stays = chance.uniform(2, 9) if chance.random() < (0.8 if is_canary else 0.1) else 1e9
            window.add(
                an_answer(
                    "canary" if is_canary else "baseline",
                    latency_s=min(needed, stays),
                    cut=stays < needed,
                    bucket=chance.randrange(10_000),
                )
            )
        evidence = folded(evidence, plan, window.counts())
    (found,) = findings(evidence, plan)
    assert found.outcome is Outcome.WORSE


def test_a_canary_that_hangs_until_its_clients_leave_is_worse() -> None:
    plan = a_plan(metrics=(DEFAULT_RULES[MetricKind.ERROR_RATE], DEFAULT_RULES[MetricKind.LEFT_SHARE]))
    evidence = restarted(Evidence(), plan)
    window = Window(plan, evidence)
    for bucket in range(400):
        window.add(an_answer("baseline", bucket=bucket, cut=bucket % 50 == 0))
        hangs = bucket % 2 == 0
        window.add(an_answer(bucket=bucket, cut=hangs, status=0 if hangs else 200, latency_s=0.0))
    found = findings(folded(evidence, plan, window.counts()), plan)
    assert {one.metric: one.outcome for one in found}[MetricKind.LEFT_SHARE] is Outcome.WORSE


def test_a_mean_is_cut_off_at_the_baselines_far_end() -> None:
    window = a_window_of(MetricKind.COST, cut=2.0)
    for cost in (0.5, 1.0, 50.0, None):
        window.add(an_answer("canary", cost=cost))
    assert sums(window, MetricKind.COST) == (0, 3, 0, 1.75, 1.75)


def test_times_and_costs_of_errors_do_not_count() -> None:
    window = a_window_of(MetricKind.LATENCY_P50, cut=1.0)
    window.add(an_answer("canary", latency_s=9.0, status=503))
    assert sums(window, MetricKind.LATENCY_P50) == (0,) * 5
    assert window.counts().histograms == {}


def test_without_a_threshold_values_are_only_learnt() -> None:
    window = a_window_of(MetricKind.TOKENS)
    window.add(an_answer("baseline", tokens_out=100))
    assert sums(window, MetricKind.TOKENS) == (0,) * 5
    assert window.counts().histograms == {"tokens/baseline": {bin_of(100): 1}}


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_value_that_is_none_is_left_out(value: float) -> None:
    window = a_window_of(MetricKind.COST, cut=1.0)
    window.add(an_answer("canary", cost=value))
    assert sums(window, MetricKind.COST) == (0,) * 5


@pytest.mark.parametrize("other", [an_answer("canary-2"), an_answer(""), an_answer(role=Role.NOISE)])
def test_other_arms_and_copies_are_left_out(other: Observation) -> None:
    window = a_window_of(MetricKind.ERROR_RATE)
    window.add(other)
    assert sums(window, MetricKind.ERROR_RATE) == (0,) * 5
    assert window.counts().requests == 0


def a_comparison(role: Role = Role.SHADOW, arm: str = "baseline", **changes: Any) -> Comparison:
    target = "vllm/next" if role is Role.SHADOW else "vllm/now"
    return Comparison(an_answer(arm), an_answer("", role=role, target=target), at=0.0, **changes)


def test_comparisons_count_for_the_canary_and_noise_for_the_baseline() -> None:
    window = a_window_of(MetricKind.SIMILARITY)
    window.compare(a_comparison(similarity=0.75))
    window.compare(a_comparison(similarity=-0.5))
    window.compare(a_comparison(similarity=None))
    window.compare(a_comparison(Role.NOISE, similarity=0.9))
    assert sums(window, MetricKind.SIMILARITY) == pytest.approx((1, 2, 0.1, 1.25, 1.25))


def test_a_judge_counts_losses_and_half_of_ties() -> None:
    window = a_window_of(MetricKind.JUDGE)
    for preference in Preference:
        window.compare(a_comparison(judge=preference))
    assert sums(window, MetricKind.JUDGE) == (0, 3, 0, 1.5, 1.5)


def test_comparisons_with_the_canarys_own_answers_or_of_another_target_are_left_out() -> None:
    window = a_window_of(MetricKind.SIMILARITY)
    window.compare(a_comparison(arm="canary", similarity=0.0))
    window.compare(a_comparison(arm="", similarity=0.0))
    stranger = a_comparison(similarity=0.0)
    window.compare(replace(stranger, shadow=replace(stranger.shadow, target="vllm/other")))
    assert sums(window, MetricKind.SIMILARITY) == (0,) * 5


def test_requests_of_one_session_fall_in_one_group() -> None:
    assert group_of(77, "a") == group_of(77, "b") == 77 % GROUPS
    assert len({group_of(None, f"request {number}") for number in range(1000)}) == GROUPS


def test_windows_of_replicas_add_up_and_strangers_are_left_out() -> None:
    windows = []
    for _ in range(2):
        window = a_window_of(MetricKind.LATENCY_P50, cut=0.5)
        window.add(an_answer("baseline", latency_s=1.0))
        window.add(an_answer("canary", latency_s=0.1))
        windows.append(window.counts())
    stranger = replace(windows[0], epoch=5)
    total = merged([*windows, stranger], epoch=4)
    assert total.requests == 2
    assert sum(total.counts[MetricKind.LATENCY_P50].n_baseline) == 2
    assert total.histograms == {"latency/baseline": {0: 2}, "latency/canary": {bin_of(0.1): 2}}
    assert merged([], epoch=9).counts.get(MetricKind.COST, Counts()) == Counts()


def test_a_histogram_is_read_to_a_bin() -> None:
    values = [0.2, 0.4, 1.0, 3.0, 8.0]
    bins: dict[int, int] = {}
    for value in values:
        bins[bin_of(value)] = bins.get(bin_of(value), 0) + 1
        assert value < upper_edge(bin_of(value)) <= value * 1.0443
    assert quantile(bins, 0.5) == upper_edge(bin_of(1.0))
    assert quantile(bins, 0.95) == upper_edge(bin_of(8.0))
    assert mean(bins) == pytest.approx(sum(values) / 5, rel=0.03)
