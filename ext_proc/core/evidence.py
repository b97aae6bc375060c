"""From the windows of a step to what is known: is the canary worse, good, or is it too early to say?

Each metric has two null hypotheses, each with an e-process of its own (`core/sequential.py`):

- *worse* asks whether "the canary is worse by no more than `tolerance`" can be refuted. It is at
  `log_worse >= ln(metrics * steps / false_rollback_rate)`: the plan's rate is split evenly over its metrics
  and over the steps that are analysed (Bonferroni), since any one of them rolls back. So a canary that is
  within every tolerance is rolled back with a chance of at most `false_rollback_rate` in the whole rollout,
  over all metrics, steps and looks.
- *good* asks whether "the canary is worse by `max_degradation` or more" can be refuted. It is at
  `log_good >= ln(1 / false_pass_rate)`. A step passes when every metric is good, so that a canary beyond any
  one's `max_degradation` passes a step with a chance of at most that (no splitting: all must agree).

Where both hold (a canary between the two margins, after a great many requests), good wins: it is known to
be within what the plan allows. Where neither does: undecided, wait.

Every weight has evidence of its own: sessions move when it changes, and a canary that is good at 5 % may
not bear 50 %. Only the baseline's quantiles are carried over.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log

from ext_proc.core import sequential
from ext_proc.core.rollout_plan import (
    COMPARED,
    LEAST_GROUPS,
    MEANS,
    QUANTILES,
    MetricKind,
    MetricRule,
    RolloutPlan,
)
from ext_proc.core.rollout_types import (
    Counts,
    Evidence,
    Finding,
    MetricEvidence,
    Outcome,
    WindowCounts,
)
from ext_proc.core.types import WHOLE_PER_10K
from ext_proc.core.window import added, added_bins, mean, quantile, quantity_of

CALIBRATION = 100
"""The baseline's answers that a quantile of its times or costs is first read from."""

CEILING = 0.99
"""Where the means of tokens and cost are cut off: at this quantile of the baseline, stretched by
`max_degradation`. Without that, a canary could not be seen to be dearer than a baseline whose answers all
cost the same."""

_SHARE = {
    MetricKind.LATENCY_P50: 0.5,
    MetricKind.LATENCY_P95: 0.95,
    MetricKind.FIRST_BYTE_P50: 0.5,
    MetricKind.FIRST_BYTE_P95: 0.95,
    MetricKind.TOKENS: CEILING,
    MetricKind.COST: CEILING,
}
_LEAST_EDGE = 0.01
"""An edge of 0 would be refuted by anything."""


def restarted(evidence: Evidence, plan: RolloutPlan) -> Evidence:
    """Nothing but the baseline's quantiles, under a new epoch."""
    return Evidence(epoch=evidence.epoch + 1, basis=plan.basis, cuts=evidence.cuts)


def folded(evidence: Evidence, plan: RolloutPlan, window: WindowCounts) -> Evidence:
    """The evidence with one more window. A window of another epoch changes nothing."""
    if window.epoch != evidence.epoch:
        return evidence
    metrics = {}
    for rule in plan.metrics:
        old = evidence.metrics.get(rule.kind, MetricEvidence())
        new = window.counts.get(rule.kind, Counts())
        metrics[rule.kind] = MetricEvidence(
            counts=added(old.counts, new),
            worse=_grown(old.worse, rule, new, good=False),
            good=_grown(old.good, rule, new, good=True),
        )
    histograms = dict(evidence.histograms)
    for name, bins in window.histograms.items():
        histograms[name] = added_bins(histograms.get(name, {}), bins)
    return Evidence(
        epoch=evidence.epoch,
        basis=evidence.basis,
        requests=evidence.requests + window.requests,
        cuts=_cuts(evidence.cuts, plan, histograms),
        metrics=metrics,
        histograms=histograms,
    )


def findings(evidence: Evidence, plan: RolloutPlan) -> tuple[Finding, ...]:
    """What the evidence says of each metric, in the plan's order."""
    steps = sum(0 < weight < WHOLE_PER_10K for weight in plan.weights)
    needed_worse = log(max(1, len(plan.metrics) * steps) / plan.false_rollback_rate)
    needed_good = log(1 / plan.false_pass_rate)
    return tuple(_finding(rule, evidence, needed_worse, needed_good) for rule in plan.metrics)


def _finding(rule: MetricRule, evidence: Evidence, needed_worse: float, needed_good: float) -> Finding:
    gathered = evidence.metrics.get(rule.kind, MetricEvidence())
    counts = gathered.counts
    bernoulli = _edge(rule, good=False) is not None
    baseline = sequential.dispersion(counts.bad_baseline, counts.n_baseline, bernoulli=bernoulli)
    bad = max(baseline, sequential.dispersion(counts.bad_canary, counts.n_canary, bernoulli=bernoulli))
    harm = max(baseline, sequential.dispersion(counts.harm_canary, counts.n_canary, bernoulli=bernoulli))
    log_worse = sequential.mixture(gathered.worse, bad)
    log_good = sequential.mixture(gathered.good, harm)
    outcome = Outcome.UNDECIDED
    if sum(map(bool, counts.n_canary)) >= LEAST_GROUPS:
        if log_good >= needed_good:
            outcome = Outcome.GOOD
        elif log_worse >= needed_worse:
            outcome = Outcome.WORSE
    return Finding(
        metric=rule.kind,
        outcome=outcome,
        baseline=_measured(rule.kind, counts.bad_baseline, counts.n_baseline, evidence, "baseline"),
        canary=_measured(rule.kind, counts.bad_canary, counts.n_canary, evidence, "canary"),
        n_baseline=round(sum(counts.n_baseline)),
        n_canary=round(sum(counts.n_canary)),
        log_worse=log_worse,
        needed_worse=needed_worse,
        log_good=log_good,
        needed_good=needed_good,
        dispersion=max(bad, harm),
    )


def _grown(logs: tuple[float, ...], rule: MetricRule, new: Counts, *, good: bool) -> tuple[float, ...]:
    """The log e-values after one more window."""
    alternatives = sequential.GOOD if good else sequential.WORSE
    old = logs or (0.0,) * len(alternatives)
    canary = (sum(new.harm_canary if good else new.bad_canary), sum(new.n_canary))
    edge = _edge(rule, good=good)
    if edge is not None:
        return tuple(
            before + sequential.one_arm(canary, edge, r) for before, r in zip(old, alternatives, strict=True)
        )
    baseline = (sum(new.bad_baseline), sum(new.n_baseline))
    ratio, offset = _margin(rule, good=good)
    return tuple(
        before + sequential.two_arms(canary, baseline, ratio, offset, r)
        for before, r in zip(old, alternatives, strict=True)
    )


def _margin(rule: MetricRule, *, good: bool) -> tuple[float, float]:
    """The null hypothesis's edge as ratio and offset to the baseline's mean."""
    margin = rule.max_degradation if good else rule.tolerance
    if rule.kind in QUANTILES:
        return 1.0, 0.0  # the margin stretched the canary's threshold already
    return (1.0 + margin, 0.0) if rule.relative else (1.0, margin)


def _edge(rule: MetricRule, *, good: bool) -> float | None:
    """What a comparison without a baseline of its own is held against. None: there is a baseline."""
    if rule.kind not in COMPARED or rule.noise_floor:
        return None
    base = 0.5 if rule.kind is MetricKind.JUDGE else 0.0
    margin = rule.max_degradation if good else rule.tolerance
    return min(1 - _LEAST_EDGE, max(_LEAST_EDGE, base + margin))


def _cuts(
    cuts: Mapping[MetricKind, float], plan: RolloutPlan, histograms: Mapping[str, Mapping[int, int]]
) -> dict[MetricKind, float]:
    new = dict(cuts)
    for rule in plan.metrics:
        if share := _SHARE.get(rule.kind):
            bins = histograms.get(f"{quantity_of(rule.kind)}/baseline", {})
            if sum(bins.values()) >= CALIBRATION:
                stretched = 1 + rule.max_degradation if rule.kind in MEANS else 1.0
                new[rule.kind] = quantile(bins, share) * stretched
    return new


def _measured(
    kind: MetricKind, bad: tuple[float, ...], n: tuple[float, ...], evidence: Evidence, arm: str
) -> float | None:
    """An arm's value in the metric's own unit, for people."""
    bins = evidence.histograms.get(f"{quantity_of(kind)}/{arm}")
    if kind in QUANTILES:
        return quantile(bins, _SHARE[kind]) if bins else None
    if kind in MEANS:
        return mean(bins) if bins else None
    return sum(bad) / sum(n) if sum(n) else None
