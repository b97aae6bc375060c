"""What is counted of each answer between two looks, in memory that does not grow with the traffic.

Every metric comes down to answers that are bad by a number in [0, 1], per arm:

- a share (`error_rate`, …): 1 if the request is bad;
- a quantile (`latency_p95`, …): 1 if the baseline's answer took longer than the baseline's quantile q, the
  canary's longer than q stretched by what is allowed. If the canary's times are the baseline's stretched
  by no more than that, it exceeds its threshold no more often than the baseline exceeds q. An answer that
  was cut counts where its time had passed the threshold by then, and nowhere else;
- a mean (`cost`, `tokens`): the value by the baseline's 99th percentile stretched by `max_degradation`, at
  most 1. Cutting off there keeps one answer of a million tokens from deciding;
- a comparison (`similarity`, `judge`): 1 - similarity; a lost comparison 1, a tie 1/2.

The thresholds come from the windows before, so what is counted never chooses what it is counted against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import floor, log2
from operator import add
from zlib import crc32

from ext_proc.core.observation import Comparison, Observation, Preference, Role
from ext_proc.core.rollout_plan import MEANS, MetricKind, MetricRule, RolloutPlan
from ext_proc.core.rollout_types import Counts, Evidence, WindowCounts

GROUPS = 64
"""Groups that the sessions of an arm fall in, to see how alike a session's requests are. 63 degrees of
freedom estimate a variance to about 18 %."""

BINS_PER_OCTAVE = 16
"""A histogram's bin is 2^(1/16) wide: quantiles are read to 4.4 %."""

BASELINE = "baseline"

_UNBELIEVABLE = 1e12
_QUANTITY = {
    MetricKind.LATENCY_P50: "latency",
    MetricKind.LATENCY_P95: "latency",
    MetricKind.FIRST_BYTE_P50: "first_byte",
    MetricKind.FIRST_BYTE_P95: "first_byte",
    MetricKind.TOKENS: "tokens",
    MetricKind.COST: "cost",
}
_LOSS = {Preference.PRIMARY: 1.0, Preference.TIE: 0.5, Preference.SHADOW: 0.0}


class Window:
    """The counts of one rollout from one look to the next. One per replica; not for several threads."""

    def __init__(self, plan: RolloutPlan, evidence: Evidence) -> None:
        self._canary = plan.canary
        self._target = plan.target
        self._rules = plan.metrics
        self._cuts = evidence.cuts
        self._epoch = evidence.epoch
        self._requests = 0
        self._tallies = {rule.kind: _Tally() for rule in plan.metrics}
        self._histograms: dict[str, dict[int, int]] = {}
        self._quantities = {quantity_of(rule.kind) for rule in plan.metrics} - {""}

    def add(self, observation: Observation) -> None:
        """Count one answer of the policy; a copy's, or another arm's, is left out."""
        if observation.role is not Role.PRIMARY:
            return
        is_canary = observation.arm == self._canary
        if not is_canary and observation.arm != BASELINE:
            return
        group = group_of(observation.bucket, observation.request_id)
        if observation.amends:
            # The answer has been counted, but for its failure; a fallback's with the failure before it.
            if MetricKind.ERROR_RATE in self._tallies and not observation.fallback:
                self._tallies[MetricKind.ERROR_RATE].add(is_canary, group, True)
            return
        self._requests += is_canary
        failed = bool(observation.first_choice_failed)
        for name in self._quantities:
            value = None if failed or not _is_whole(observation, name) else _value(observation, name)
            if value is not None:
                bins = self._histograms.setdefault(f"{name}/{_arm(is_canary)}", {})
                at = bin_of(value)
                bins[at] = bins.get(at, 0) + 1
        for rule in self._rules:
            self._count(rule, observation, is_canary, group)

    def compare(self, comparison: Comparison) -> None:
        """Count one compared answer of the canary's target, or of the primary's own as the noise floor.

        Only answers of the baseline are compared with: beside the canary's own there is nothing to see, and
        what answered in the place of a baseline that failed, or could not serve the call, is a third model.
        """
        primary = comparison.primary
        if primary.arm != BASELINE or primary.fallback:
            return
        is_canary = comparison.shadow.role is Role.SHADOW
        if is_canary and comparison.shadow_target != self._target:
            return
        group = group_of(primary.bucket, primary.request_id)
        tally = self._tallies.get(MetricKind.SIMILARITY)
        if tally and comparison.similarity is not None:
            tally.add(is_canary, group, min(1.0, max(0.0, 1.0 - comparison.similarity)))
        tally = self._tallies.get(MetricKind.JUDGE)
        if tally and comparison.judge is not None:
            tally.add(is_canary, group, _LOSS[comparison.judge])

    def counts(self) -> WindowCounts:
        """What was counted so far."""
        return WindowCounts(
            epoch=self._epoch,
            requests=self._requests,
            counts={kind: tally.counts() for kind, tally in self._tallies.items()},
            histograms={name: dict(bins) for name, bins in self._histograms.items()},
        )

    def _count(self, rule: MetricRule, observation: Observation, is_canary: bool, group: int) -> None:
        tally, failed = self._tallies[rule.kind], observation.first_choice_failed
        match rule.kind:
            case MetricKind.ERROR_RATE:
                if failed is not None:
                    tally.add(is_canary, group, failed)
            case MetricKind.LEFT_SHARE:
                tally.add(is_canary, group, observation.cut)
            case _ if observation.is_unanswered:
                pass
            case MetricKind.REJECTED_SHARE:
                tally.add(is_canary, group, not failed and 400 <= observation.status < 500)
            case MetricKind.FALLBACK_SHARE:
                tally.add(is_canary, group, observation.fallback)
            case MetricKind.SIMILARITY | MetricKind.JUDGE:
                pass
            case _ if not failed:
                self._measure(rule, observation, is_canary, group)

    def _measure(self, rule: MetricRule, observation: Observation, is_canary: bool, group: int) -> None:
        quantity, cut = quantity_of(rule.kind), self._cuts.get(rule.kind)
        value, is_whole = _value(observation, quantity), _is_whole(observation, quantity)
        if value is None or cut is None:
            return
        tally = self._tallies[rule.kind]
        if rule.kind in MEANS:
            if is_whole:
                tally.add(is_canary, group, min(1.0, value / cut))
            return
        bad = value > cut * (1 + rule.tolerance * is_canary)
        # A time that was cut is a lower bound. Past the first threshold it may have passed the second:
        # what is not known counts against the canary's passing.
        if bad or is_whole:
            tally.add(
                is_canary, group, bad, bad and (not is_whole or value > cut * (1 + rule.max_degradation))
            )


def group_of(bucket: int | None, request_id: str) -> int:
    """Which of the `GROUPS` a session is in; a request of no known session is a session of its own."""
    if bucket is None:
        return crc32(request_id.encode("utf-8", "surrogatepass")) % GROUPS
    return bucket % GROUPS


def bin_of(value: float) -> int:
    """The logarithmic bin of a value; everything below 10^-9 falls in one."""
    return floor(log2(max(value, 1e-9)) * BINS_PER_OCTAVE)


def upper_edge(at: int) -> float:
    """The value that a bin ends at."""
    return float(2 ** ((at + 1) / BINS_PER_OCTAVE))


def quantile(bins: Mapping[int, int], share: float) -> float:
    """The upper edge of the bin that holds the quantile. Shapes: at least one value."""
    left = share * sum(bins.values())
    for at in sorted(bins):
        left -= bins[at]
        if left <= 0:
            return upper_edge(at)
    return upper_edge(max(bins))


def mean(bins: Mapping[int, int]) -> float:
    """The mean, each value taken for the middle of its bin. Shapes: at least one value."""
    middle = 2 ** (-0.5 / BINS_PER_OCTAVE)
    return sum(upper_edge(at) * middle * some for at, some in bins.items()) / sum(bins.values())


def quantity_of(kind: MetricKind) -> str:
    """What the metric measures of one answer; empty where it only counts."""
    return _QUANTITY.get(kind, "")


def merged(windows: Iterable[WindowCounts], epoch: int) -> WindowCounts:
    """The sum of the replicas' windows of this epoch; the others are left out."""
    requests = 0
    counts: dict[MetricKind, Counts] = {}
    histograms: dict[str, dict[int, int]] = {}
    for window in windows:
        if window.epoch != epoch:
            continue
        requests += window.requests
        for kind, found in window.counts.items():
            counts[kind] = added(counts.get(kind, Counts()), found)
        for name, bins in window.histograms.items():
            histograms[name] = added_bins(histograms.get(name, {}), bins)
    return WindowCounts(epoch, requests, counts, histograms)


def added(one: Counts, other: Counts) -> Counts:
    """The sum of both, group by group."""
    return Counts(
        _sum(one.n_baseline, other.n_baseline),
        _sum(one.n_canary, other.n_canary),
        _sum(one.bad_baseline, other.bad_baseline),
        _sum(one.bad_canary, other.bad_canary),
        _sum(one.harm_canary, other.harm_canary),
    )


def added_bins(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    """The sum of both, bin by bin."""
    total = dict(one)
    for at, some in other.items():
        total[at] = total.get(at, 0) + some
    return total


class _Tally:
    """One metric's `Counts`, while they grow."""

    __slots__ = ("_bad", "_harm", "_n")

    def __init__(self) -> None:
        self._n = ([0.0] * GROUPS, [0.0] * GROUPS)
        self._bad = ([0.0] * GROUPS, [0.0] * GROUPS)
        self._harm = [0.0] * GROUPS

    def add(self, is_canary: bool, group: int, bad: float, harm: float | None = None) -> None:
        self._n[is_canary][group] += 1
        self._bad[is_canary][group] += bad
        if is_canary:
            self._harm[group] += bad if harm is None else harm

    def counts(self) -> Counts:
        (n_baseline, n_canary), (bad_baseline, bad_canary) = self._n, self._bad
        columns = (n_baseline, n_canary, bad_baseline, bad_canary, self._harm)
        return Counts(*(tuple(column) for column in columns))


def _sum(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    if not one or not other:
        return one or other
    return tuple(map(add, one, other))


def _value(observation: Observation, quantity: str) -> float | None:
    """The observation's value of a quantity. None: not known, or no number that could be binned."""
    value: float | None
    match quantity:
        case "latency":
            value = observation.latency_s
        case "first_byte":
            value = observation.first_byte_s
        case "tokens":
            value = observation.tokens_out
        case _:
            value = observation.cost
    return value if value is not None and 0 <= value < _UNBELIEVABLE else None


def _is_whole(observation: Observation, quantity: str) -> bool:
    """Whether the value is the answer's, and not that of the part that came before it was cut."""
    return quantity == "first_byte" or not observation.cut


def _arm(is_canary: bool) -> str:
    return "canary" if is_canary else BASELINE
